"""Reading files that may hold anything: what guards every reader of the project, in one place.

Sizes are checked before memory is allocated, pipes and devices are not waited for, links lead nowhere, and
nothing in a file is executed. Readers add what their formats need; tests/test_fuzz.py holds all of it.
"""

import math
import os
import stat
import zipfile

from utils.errors import UserError


def regular(path, flags):
    """The opener of `open` for a regular file: an OSError where it is a pipe, a device or a folder."""
    # Without O_NONBLOCK, opening a named pipe would wait for a writer.
    descriptor = os.open(path, flags | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is no file but a pipe or a device")
    return descriptor


def read_limited(path, limit):
    """The content of a regular file, in bytes; an OSError where it has more than `limit`."""
    with open(path, "rb", opener=regular) as file:
        if (size := os.fstat(file.fileno()).st_size) > limit:
            raise OSError(f"it has {size} bytes, more than {limit}")
        return file.read(size)


def refuse_links(folder):
    """Raises a UserError where a folder holds links: what is written to it would land elsewhere."""
    for parent, folders, files in os.walk(folder):
        for entry in (os.path.join(parent, name) for name in folders + files):
            if os.path.islink(entry):
                raise UserError(f"{entry} is a symbolic link: runs with links are not resumed.")


def is_file_inside(path, root):
    """Whether a path, followed through its links, is a file below a folder, given as a real path."""
    target = os.path.realpath(path)
    return os.path.isfile(target) and os.path.commonpath([target, root]) == root


def read_arrays(path, names, limit):
    """Arrays of an .npz file, by name; the sizes that it claims are checked first, pickles are refused.

    Args:
        limit: bytes that all of them may have, unpacked.

    Raises:
        Exception: of many types, where the file is damaged.
    """
    import numpy as np  # not needed before the flags are known to be good

    arrays, left = {}, limit
    with open(path, "rb", opener=regular) as file, zipfile.ZipFile(file) as archive:
        for name in names:
            info = archive.getinfo(f"{name}.npy")
            left -= info.file_size
            if left < 0:
                raise ValueError(f"its arrays would unpack to more than {limit} bytes")
            # Other methods reserve as much memory as the file asks for.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name} is compressed in an unusual way")
            with archive.open(info) as member:
                if _npy_size(member) != info.file_size:
                    raise ValueError(f"the size of {name} is not the one that its header claims")
                member.seek(0)
                arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    return arrays


def _npy_size(file):
    """Bytes that an .npy file should have by its own header, at which `file` stands."""
    import numpy as np

    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = read_header[np.lib.format.read_magic(file)](file)
    if dtype.itemsize == 0:
        raise ValueError("items without a size")  # any number of them would fit
    return file.tell() + math.prod(shape) * dtype.itemsize


def count_records(path):
    """Number of records of a TFRecord file, whose lengths TensorFlow would trust and allocate."""
    position = count = 0
    with open(path, "rb", opener=regular) as file:
        size = os.fstat(file.fileno()).st_size
        while position < size:
            # A record is its length (8 bytes), a checksum of that (4), its content, a checksum of that (4).
            position += 8 + 4 + int.from_bytes(file.read(8), "little") + 4
            if position > size:
                raise ValueError(f"{path.name} is truncated or damaged")
            file.seek(position)
            count += 1
    return count

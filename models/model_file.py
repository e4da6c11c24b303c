"""The .keras file of a model: an archive of Keras that says where it comes from and carries a checksum.

The archive holds weights, optimizers and the count of train steps. Its comment, which Keras ignores, is a
JSON object, the description that the saver gives, and after it the SHA-256 of all bytes before.
"""

import contextlib
import hashlib
import json
import os
import zipfile

from utils.errors import first_line
from utils.files import atomic_path

DIGEST_SIZE = 64  # hexadecimal digits of SHA-256
# Of runs whose digits OpenCV had resized: by a grey level, their pixels depended on the processor.
PROCESSORS_DIGITS = "scikit-learn's embedded digits, 8 x 8 resized to 28 x 28"


def save_model(model, path, description):
    """Writes a .keras file atomically.

    Args:
        description: dict of what JSON can hold; `load_model` compares its "flags" and "data" with those of
            the run in whose directory it finds the file.
    """
    _remember_what_saving_skips()
    with atomic_path(path) as temporary:
        model.save(temporary)
        seal(temporary, description)


def seal(path, description):
    """Writes a description, as of `save_model`, and the checksum into an archive without a comment."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = json.dumps(description).encode() + bytes(DIGEST_SIZE)
    with open(path, "rb+") as file:
        digest = _digest(file)
        file.seek(-DIGEST_SIZE, os.SEEK_END)
        file.write(digest)


def _remember_what_saving_skips():
    """Keeps `model.save` from leaving 0.2 MB behind with each call.

    Keras 3.15 notes which attributes of an optimizer are not to be saved under one name, and looks for them
    under another. So each call makes an optimizer to ask it, whose variables have new names, and TensorFlow
    remembers an operation for every name.
    """
    # Where a later version has neither name, there is nothing to mend.
    with contextlib.suppress(ImportError, AttributeError):
        from keras.src.backend.common.global_state import set_global_attribute
        from keras.src.saving.saving_lib import get_attr_skipset

        set_global_attribute("saving_attr_skiplist_Optimizer", get_attr_skipset("Optimizer"))


def value_differences(theirs, ours):
    """Texts about the flags and the figures of the data in which two descriptions of runs differ.

    What only one of them names is younger than the other; where and how the data was found may differ.
    """
    flags, others = theirs["flags"], ours["flags"]
    differing = [name for name in flags if name in others and flags[name] != others[name]]
    texts = [f"--{name} {flags[name]} instead of {others[name]}" for name in differing]
    return texts + data_differences(theirs["data"], ours["data"])


def data_differences(old, new):
    """Texts about what differs between two descriptions of data; where and how it was found may."""
    free = {"source", "note"} | ({"checksum"} if old.get("source") == PROCESSORS_DIGITS else set())
    names = [name for name in new if name not in free and name in old]
    return [f"{name} {old[name]} instead of {new[name]}" for name in names if old[name] != new[name]]


def read_description(path):
    """What `save_model` noted in a .keras file, once its checksum has been found right.

    Returns:
        the description; {} for a file without one, as other programs and earlier versions write them.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            comment = archive.comment
            file.seek(-22, os.SEEK_END)
            described = file.read(4) != b"PK\5\6"  # there, an archive without a comment ends
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                raise ValueError("it would unpack to more than its size")  # Keras does not compress
            intact = _digest(file) == comment[-DIGEST_SIZE:] if described else archive.testzip() is None
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise ValueError(f"it is no whole archive ({first_line(error)})") from None
    if not intact:
        raise ValueError("its checksum is wrong")
    if not described:
        return {}
    description = json.loads(comment[:-DIGEST_SIZE])
    if not isinstance(description, dict) or not {"flags", "data", "versions", "checkpoint"} <= set(
        description
    ):
        raise ValueError("it does not say which run it belongs to")
    return description


def _digest(file):
    """The SHA-256 of an open file up to the place of its own digest, as bytes of hexadecimal digits."""
    digest, left = hashlib.sha256(), os.fstat(file.fileno()).st_size - DIGEST_SIZE
    file.seek(0)
    while left > 0 and (block := file.read(min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest().encode()

"""Street view house numbers: the cropped digits of SVHN."""

import io
import struct
import zlib

import numpy as np

from data.image_data import ImageData
from data.own import load_tfds
from data.readers import MAX_BYTES, checked
from utils.errors import UserError, first_line
from utils.untrusted import read_limited

SIDE, CLASSES = 32, 10
HEADER, TAG = 128, struct.Struct("<II")  # of a MATLAB file, and of each of its elements: type, bytes
COMPRESSED = 15


def load_svhn(folders):
    """SVHN's cropped digits, 32 x 32 x 3, from train_32x32.mat and test_32x32.mat, or from TFDS."""
    for folder in folders:
        for place in (folder, folder / "svhn"):
            paths = [place / f"{split}_32x32.mat" for split in ("train", "test")]
            missing = [path.name for path in paths if not path.is_file()]
            if not missing:
                pairs = [read_mat(path) for path in paths]
                return ImageData.from_official_split("svhn", str(place), *pairs, folder=str(place))
            if len(missing) == 1:
                raise UserError(f"{place} holds only a part of SVHN: {missing[0]} missing.")
    return load_tfds(folders, SIDE, "svhn_cropped")


def read_mat(path):
    """Images uint8 (N, 32, 32, 3) and labels uint8 (N,) of a file of SVHN's, where 0 has the label 10.

    Raises:
        UserError: in one line, where the file is none, or too large.
    """
    from scipy import io as scipy_io  # imported late: it takes half a second

    try:
        arrays = scipy_io.loadmat(_unpacked(path), variable_names=["X", "y"])
        images, labels = arrays["X"], arrays["y"]
    except UserError:
        raise
    except Exception as error:  # whatever SciPy raises on damaged files
        raise UserError(f"{path} cannot be read as a MATLAB file with X and y: {first_line(error)}") from None
    count = images.shape[-1] if images.ndim == 4 else -1
    if images.dtype != np.uint8 or images.shape != (SIDE, SIDE, 3, count):
        raise UserError(f"{path}: X should be uint8 (32, 32, 3, N), but is {images.dtype} {images.shape}.")
    if labels.dtype.kind not in "iu" or labels.shape != (count, 1):
        raise UserError(f"{path}: y should be integers ({count}, 1), but is {labels.dtype} {labels.shape}.")
    if labels.size and not 1 <= labels.min() <= labels.max() <= CLASSES:
        raise UserError(f"{path}: labels from {labels.min()} to {labels.max()}, not 1 to 10.")
    return checked(np.ascontiguousarray(images.transpose(3, 0, 1, 2)), labels[:, 0] % CLASSES, str(path))


def _unpacked(path):
    """The file with its elements unpacked, in memory: SciPy would unpack a thousand times a file's size."""
    packed = read_limited(path, MAX_BYTES)
    parts, place, left = [packed[:HEADER]], HEADER, MAX_BYTES
    while place + TAG.size <= len(packed):
        kind, size = TAG.unpack_from(packed, place)
        element = packed[place : place + TAG.size + size]
        if kind == COMPRESSED:
            element = zlib.decompressobj().decompress(element[TAG.size :], left + 1)
        left -= len(element)
        if left < 0:
            raise UserError(f"{path} unpacks to more than {MAX_BYTES:,} bytes.")
        parts.append(element)
        place += TAG.size + size
    return io.BytesIO(b"".join(parts))

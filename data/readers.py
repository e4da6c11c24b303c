"""Readers of the file formats that MNIST, Fashion-MNIST and CIFAR-10 come in.

Each checks what it reads before it allocates memory for it, executes nothing, and raises `UserError`
with one line when a file is not what it should be.
"""

import contextlib
import json
import math
import os
import struct
import sys
import zlib

import numpy as np

from utils.errors import UserError, first_line
from utils.untrusted import count_records, read_arrays, read_limited

IDX_IMAGES, IDX_LABELS = 2051, 2049  # magic numbers: uint8 data with 3 and with 1 dimensions
IDX_KINDS = {IDX_IMAGES: "images", IDX_LABELS: "labels"}
CIFAR_RECORD = 1 + 32 * 32 * 3  # label, then red, green and blue planes
MAX_BYTES = 4 * 10**8  # of one split, unpacked; the largest of these sets has 154 MB
MAX_INFO_BYTES = 2**20  # of a dataset_info.json
TFDS_SHAPES = {"mnist": (28, 28, 1), "fashion_mnist": (28, 28, 1), "cifar10": (32, 32, 3)}


def find_idx_files(folder):
    """The four MNIST-style files in a folder, by role, e.g. {"train-images": path}; gzipped or not."""
    names = {
        "train-images": "train-images-idx3-ubyte",
        "train-labels": "train-labels-idx1-ubyte",
        "test-images": "t10k-images-idx3-ubyte",
        "test-labels": "t10k-labels-idx1-ubyte",
    }
    found = {}
    for role, name in names.items():
        # Some archives unpack to train-images.idx3-ubyte.
        spellings = [
            name,
            name + ".gz",
            name.replace("-idx", ".idx"),
            name.replace("-idx", ".idx") + ".gz",
        ]
        for spelling in spellings:
            if (folder / spelling).is_file():
                found[role] = folder / spelling
                break
    if found and len(found) < len(names):
        missing = [names[role] for role in names if role not in found]
        raise UserError(f"{folder} holds only a part of the data: {', '.join(missing)} missing.")
    return found


def read_idx_split(images_path, labels_path):
    """Images uint8 (N, 28, 28, 1) and labels uint8 (N,) of two IDX files."""
    images = read_idx(images_path, IDX_IMAGES)
    labels = read_idx(labels_path, IDX_LABELS)
    if images.shape[1:] != (28, 28):
        raise UserError(f"{images_path} holds images of {images.shape[1:]} pixels, not (28, 28).")
    return checked(images[..., None], labels, f"{images_path} and {labels_path.name}")


def read_idx(path, magic):
    """The array of an IDX file: uint8 (N, H, W) for images, (N,) for labels."""
    n_dims = magic % 256
    header_size = 4 + 4 * n_dims
    try:
        packed = read_limited(path, MAX_BYTES)
        # Unpacked step by step: a gzipped file may hold a thousand times its size.
        gzipped = zlib.decompressobj(wbits=31) if path.suffix == ".gz" else None
        header = gzipped.decompress(packed, header_size) if gzipped else packed[:header_size]
        found = int.from_bytes(header[:4], "big")
        if found != magic:
            kind = f"{IDX_KINDS[found]}; are the files swapped?" if found in IDX_KINDS else "something else."
            raise UserError(
                f"{path} should hold {IDX_KINDS[magic]} (magic {magic}), but its magic is {found}: {kind}"
            )
        if len(header) < header_size:
            raise UserError(f"{path} is truncated: it ends within its header.")
        shape = struct.unpack(f">{n_dims}I", header[4:])
        size = math.prod(shape)
        if size > MAX_BYTES:
            raise UserError(f"{path} is damaged: its header claims data of shape {shape}.")
        content = gzipped.decompress(gzipped.unconsumed_tail, size + 1) if gzipped else packed[header_size:]
    except (OSError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    # zlib compares the checksum when it reaches the end.
    if len(content) != size or (gzipped and not gzipped.eof):
        state = "too long" if len(content) > size else "truncated"
        raise UserError(f"{path} is {state}: its header announces {size} bytes of data.")
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_npz(path):
    """Pairs (images, labels) for train and test of a Keras-style mnist.npz; never unpickles."""
    try:
        arrays = read_arrays(path, ("x_train", "y_train", "x_test", "y_test"), MAX_BYTES)
    except Exception as error:  # whatever zipfile and numpy raise on damaged files
        raise UserError(f"{path} cannot be read (pickled objects are refused): {first_line(error)}") from None
    splits = []
    for split in ("train", "test"):
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1:] != (28, 28):
            raise UserError(
                f"{path}: x_{split} should be uint8 (N, 28, 28), but is {images.dtype} {images.shape}."
            )
        if labels.dtype.kind not in "iu" or labels.ndim != 1:
            raise UserError(
                f"{path}: y_{split} should be integers (N,), but is {labels.dtype} {labels.shape}."
            )
        splits.append(checked(images[..., None], labels, f"{path} ({split})"))
    return splits


def read_cifar_files(paths):
    """Images uint8 (N, 32, 32, 3) and labels uint8 (N,) of CIFAR-10 binary files."""
    parts, left = [], MAX_BYTES
    for path in paths:
        try:
            content = read_limited(path, left)
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error}.") from None
        left -= len(content)
        if not content or len(content) % CIFAR_RECORD:
            raise UserError(
                f"{path} is truncated or no CIFAR-10 batch: its {len(content)} bytes are no "
                f"multiple of {CIFAR_RECORD}."
            )
        records = np.frombuffer(content, np.uint8).reshape(-1, CIFAR_RECORD)
        images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        parts.append(checked(images, records[:, 0], path))
    images, labels = zip(*parts, strict=True)
    return np.concatenate(images), np.concatenate(labels)


def read_tfds(folder, name):
    """Pairs (images, labels) for train and test of a data set that TFDS has prepared in a folder."""
    with tfds_errors(folder, name):
        return [read_tfds_split(folder, name, split, TFDS_SHAPES[name]) for split in ("train", "test")]


@contextlib.contextmanager
def tfds_errors(folder, name):
    """Makes a `UserError` of whatever TensorFlow, protobuf and OpenCV raise on damaged files."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"The TFDS folder {folder} of {name} cannot be read: {first_line(error)}") from None


def read_tfds_split(folder, name, split, shape, n_classes=10, decode=None, limit=MAX_BYTES):
    """Images uint8 (N, *shape) and labels uint8 (N,) of one split; arguments also as of `tfds_examples`.

    Args:
        decode: function from the content of a picture file to an image; by default `decode_picture`.
        limit: bytes that the images may have.
    """
    count, examples = tfds_examples(folder, name, split)
    if count * math.prod(shape) > limit:
        raise ValueError(f"{count} examples of {split} are too many")
    images, labels = np.empty((count, *shape), np.uint8), np.empty(count, np.int64)
    with quiet_decoders():
        for index, example in enumerate(examples):
            content = example["image"].bytes_list.value[0]
            picture = decode(content) if decode else decode_picture(content, grey=shape[2] == 1)
            if picture.shape != shape:
                raise ValueError(f"an image of {split} has the shape {picture.shape}, not {shape}")
            images[index], labels[index] = picture, example["label"].int64_list.value[0]
    return checked(images, labels, f"{folder} ({split})", n_classes)


def tfds_examples(folder, name, split):
    """The examples of one split of a data set that TFDS has prepared in a folder.

    TFDS itself would import whatever module the folder's features.json names, and follow the paths in its
    dataset_info.json, so the records are read without it.

    Args:
        name: of the data set, as in the names of the files.

    Returns:
        Their number, and an iterator over dicts of `tf.train.Feature`.

    Raises:
        Exception: of many types, here or while iterating, where files are missing or damaged.
    """
    import tensorflow as tf

    info = json.loads(read_limited(folder / "dataset_info.json", MAX_INFO_BYTES))
    (lengths,) = ([int(n) for n in s["shardLengths"]] for s in info["splits"] if s["name"] == split)
    ends = [f"{index:05}-of-{len(lengths):05}" for index in range(len(lengths))]
    paths = [folder / f"{name}-{split}.tfrecord-{end}" for end in ends]
    if [count_records(path) for path in paths] != lengths:
        raise ValueError(f"its files do not hold the {sum(lengths)} examples of {split} that were prepared")
    records = tf.data.TFRecordDataset([str(path) for path in paths]).as_numpy_iterator()
    return sum(lengths), (tf.train.Example.FromString(record).features.feature for record in records)


@contextlib.contextmanager
def quiet_decoders():
    """Keeps OpenCV, and libpng behind it, from describing damaged pictures: that is the caller's to do.

    libpng writes to the process's standard error itself, so for as long nothing else can be written there.
    """
    import cv2

    log_level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(0)
    sys.stderr.flush()
    standard_error = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(standard_error, 2)
        os.close(standard_error)
        cv2.utils.logging.setLogLevel(log_level)


def decode_picture(content, grey=False):
    """A picture file's content as uint8 (H, W, 3), RGB, or (H, W, 1).

    Raises:
        ValueError, cv2.error: if it cannot be decoded, or has more than `data.MAX_PIXELS`.
    """
    import cv2

    mode = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR_RGB
    image = cv2.imdecode(np.frombuffer(content, np.uint8), mode)
    if image is None:
        raise ValueError("no picture")
    return image[..., None] if grey else image


def enlarged(images, side):
    """Square images (n, s, s), uint8, enlarged by bicubic interpolation, a = -3/4, with repeated edges.

    In whole numbers, since OpenCV's floating point gives other pixels on other processors.

    Returns:
        (n, side, side), uint8.
    """
    size, whole = images.shape[1], 2 * side  # positions are multiples of 1 / whole of a pixel
    weights = np.zeros((side, size), np.int64)  # times 4 whole^3
    for row in range(side):
        position = (2 * row + 1) * size - side
        for pixel in range(position // whole - 1, position // whole + 3):
            d = abs(position - pixel * whole)
            near = 5 * d**3 - 9 * whole * d**2 + 4 * whole**3
            far = -3 * (d**3 - 5 * whole * d**2 + 8 * whole**2 * d - 4 * whole**3)
            weights[row, np.clip(pixel, 0, size - 1)] += near if d <= whole else far
    total = (4 * whole**3) ** 2
    sums = weights @ images.astype(np.int64) @ weights.T
    return np.clip((2 * sums + total) // (2 * total), 0, 255).astype(np.uint8)


def checked(images, labels, where, n_classes=10):
    """Images and labels as uint8, if there are equally many of them and the labels are in range."""
    if len(images) != len(labels):
        raise UserError(f"{where}: {len(images)} images but {len(labels)} labels.")
    if len(labels) == 0:
        raise UserError(f"{where}: no images.")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise UserError(f"{where}: labels from {labels.min()} to {labels.max()}, not 0 to {n_classes - 1}.")
    return np.asarray(images, np.uint8), labels.astype(np.uint8)

"""Readers of the file formats that MNIST, Fashion-MNIST and CIFAR-10 come in.

Each checks what it reads before it allocates memory for it, executes nothing, and raises `UserError`
with one line when a file is not what it should be.
"""

import gzip
import math
import struct
import zipfile
import zlib

import numpy as np

from utils.errors import UserError, first_line

IDX_IMAGES, IDX_LABELS = 2051, 2049  # magic numbers: uint8 data with 3 and with 1 dimensions
IDX_KINDS = {IDX_IMAGES: "images", IDX_LABELS: "labels"}
MAX_IMAGES = 1_000_000  # a header that claims more is damaged
CIFAR_RECORD = 1 + 32 * 32 * 3  # label, then red, green and blue planes
MAX_BYTES = 2**30  # of one file, unpacked


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
    opener = gzip.open if path.suffix == ".gz" else open
    n_dims = magic % 256
    try:
        with opener(path, "rb") as file:
            header = file.read(4 + 4 * n_dims)
            found = int.from_bytes(header[:4], "big")
            if found != magic:
                kind = (
                    f"{IDX_KINDS[found]}; are the files swapped?" if found in IDX_KINDS else "something else."
                )
                raise UserError(
                    f"{path} should hold {IDX_KINDS[magic]} (magic {magic}), but its magic is {found}: {kind}"
                )
            if len(header) < 4 + 4 * n_dims:
                raise UserError(f"{path} is truncated: it ends within its header.")
            shape = struct.unpack(f">{n_dims}I", header[4:])
            if shape[0] > MAX_IMAGES or math.prod(shape) > MAX_BYTES:
                raise UserError(f"{path} is damaged: its header claims data of shape {shape}.")
            size = math.prod(shape)
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}.") from None
    if len(content) != size:
        state = "truncated" if len(content) < size else "too long"
        raise UserError(f"{path} is {state}: its header announces {size} bytes of data.")
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_npz(path):
    """Pairs (images, labels) for train and test of a Keras-style mnist.npz; never unpickles."""
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(info.file_size for info in archive.infolist()) > MAX_BYTES:
                raise UserError(f"{path} is damaged: it would unpack to more than {MAX_BYTES} bytes.")
        with np.load(path, allow_pickle=False) as archive:
            for name in ("x_train", "y_train", "x_test", "y_test"):
                if name not in archive.files:
                    raise UserError(f"{path} holds no array {name}.")
                arrays[name] = archive[name]
                if not isinstance(arrays[name], np.ndarray):
                    raise UserError(f"{path}: {name} is not an array.")
    # RuntimeError: an encrypted member, or a compression that zipfile does not know.
    except (
        OSError,
        EOFError,
        ValueError,
        MemoryError,
        RuntimeError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
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
    parts = []
    for path in paths:
        try:
            if path.stat().st_size > MAX_IMAGES * CIFAR_RECORD:
                raise UserError(f"{path} is too large for a CIFAR-10 batch.")
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error}.") from None
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
    import tensorflow_datasets as tfds  # imports TensorFlow

    splits = []
    try:
        builder = tfds.builder_from_directory(folder)
        for split in ("train", "test"):
            batch = tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
            images, labels = batch["image"], batch["label"]
            if images.dtype != np.uint8 or images.ndim != 4:
                raise UserError(
                    f"{folder}: images are {images.dtype} {images.shape}, not uint8 (N, H, W, C)."
                )
            splits.append(checked(images, labels, f"{folder} ({split})"))
    except UserError:
        raise
    except Exception as error:  # whatever TFDS and its formats raise on damaged files
        raise UserError(f"The TFDS folder {folder} of {name} cannot be read: {first_line(error)}") from None
    return splits


def checked(images, labels, where, n_classes=10):
    """Images and labels as uint8, if there are equally many of them and the labels are in range."""
    if len(images) != len(labels):
        raise UserError(f"{where}: {len(images)} images but {len(labels)} labels.")
    if len(labels) == 0:
        raise UserError(f"{where}: no images.")
    if labels.min() < 0 or labels.max() >= n_classes:
        raise UserError(f"{where}: labels from {labels.min()} to {labels.max()}, not 0 to {n_classes - 1}.")
    return np.asarray(images, np.uint8), labels.astype(np.uint8)

"""Data of the user's own: a file of arrays, or any image classification set of TFDS."""

import contextlib
import json
import math
import os
import zipfile

import numpy as np

from data.image_cache import cache_key
from data.image_data import ImageData
from data.image_folder import MAX_CLASSES, square, three_splits
from data.loading import download_tfds, tfds_folder
from data.readers import (
    MAX_INFO_BYTES,
    checked,
    decode_picture,
    read_tfds_split,
    tfds_errors,
    tfds_examples,
)
from data.source import ImageSource, shard_places
from utils.errors import UserError, first_line
from utils.untrusted import read_arrays, read_limited

MAX_BYTES = 10**9  # of all arrays, or of the images of a split, unpacked
FEWEST = 12  # training images: one of them is for validation
ARRAYS = ("x_train", "y_train", "x_test", "y_test", "class_names")


def load_npz(folders):
    """An .npz file: `x_train`, and where there are any `y_train`, `x_test`, `y_test` and `class_names`.

    Images are uint8 (N, H, W) or (N, H, W, C), labels integers (N,). Without labels all images are of one
    class; without test images a twelfth is held out.

    Args:
        folders: list of the one path, of the file.
    """
    (path,) = folders
    with _refusals(path):
        with zipfile.ZipFile(path) as archive:
            there = {name.removesuffix(".npy") for name in archive.namelist()}
            shapes = {name: _plain_shape(archive, name) for name in ("x_train", "x_test") if name in there}
        others = [name for name in ARRAYS if name in there and name not in shapes]
        arrays = read_arrays(path, others, MAX_BYTES)
        if not shapes or None in shapes.values():
            return _of_npz(path, {**arrays, **read_arrays(path, list(shapes), MAX_BYTES)})
    # What is wrong with labels and shapes is said before anything is written.
    stand_ins = {name: np.broadcast_to(np.uint8(0), shape) for name, shape in shapes.items()}
    numbered = _of_npz(path, {**arrays, **stand_ins}, numbered=True)
    status = path.stat()
    return ImageSource(
        sum(map(math.prod, shapes.values())),
        (*shapes["x_train"][1:], 1)[:3],
        cache_key(0, [(path.name, status.st_size, status.st_mtime_ns)]),
        shard_places(path.parent, f"npz_{path.stem}"),
        lambda: (sum(shape[0] for shape in shapes.values()), _images(path, shapes)),
        lambda image: image,
        lambda readable: numbered,
        lambda: _of_npz(path, {**arrays, **_read_images(path, list(shapes))}),
        most=MAX_BYTES,
    )


def _plain_shape(archive, name):
    """The shape of images in an archive that can be read one after the other; None of all other arrays."""
    member = archive.getinfo(f"{name}.npy")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        # A small file that unpacks to a large one, or claims to, is no data for the disk.
        whole = member.file_size == member.compress_size <= os.path.getsize(archive.filename)
        if member.compress_type != zipfile.ZIP_STORED or version != (1, 0) or not whole:
            return None
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        plain = dtype == np.uint8 and not fortran_order and len(shape) in (3, 4) and 0 not in shape
        return shape if plain and member.file_size == file.tell() + math.prod(shape) else None


def _images(path, shapes):
    """The images (H, W, C) of these arrays of an archive, one after the other."""
    with _refusals(path), zipfile.ZipFile(path) as archive:
        for name, (count, *shape) in shapes.items():
            shape = (*shape, 1)[:3]
            with archive.open(f"{name}.npy") as file:
                np.lib.format.read_magic(file)
                np.lib.format.read_array_header_1_0(file)
                for _ in range(count):
                    yield np.frombuffer(file.read(math.prod(shape)), np.uint8).reshape(shape)


@contextlib.contextmanager
def _refusals(path):
    """Makes a `UserError` of whatever zipfile and numpy raise on damaged files."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read (pickled objects are refused): {first_line(error)}") from None


def _read_images(path, names):
    with _refusals(path):
        return read_arrays(path, names, MAX_BYTES)


def _of_npz(path, arrays, numbered=False):
    """The `ImageData` of the arrays of a file, by name; with the numbers of the images in their place."""
    if "x_train" not in arrays:
        raise UserError(f"{path} holds no x_train, the training images uint8 (N, H, W) or (N, H, W, C).")
    for needed, other in (("y_train", "y_test"), ("x_test", "y_test"), ("y_test", "x_test")):
        if other in arrays and needed not in arrays and ("y_train" in arrays or needed == "y_train"):
            raise UserError(f"{path} holds {other}, but no {needed}.")
    train, *test = (_pair(arrays, split, path) for split in ("train", "test") if f"x_{split}" in arrays)
    names = tuple(str(name) for name in arrays.get("class_names", np.zeros(0, "U1")).ravel())
    most = max(int(labels.max()) for _, labels in (train, *test)) + 1
    if names and (arrays["class_names"].dtype.kind != "U" or len(names) < most):
        raise UserError(f"{path}: class_names should be {most} texts or more, one for each class.")
    n_classes = len(names) or most
    if numbered:
        train, *test = _numbered(train, *test)
    return _image_data("npz", path, train, *test, n_classes=n_classes, label_names=names, folder=path.parent)


def _numbered(*pairs):
    """Pairs (images, labels) with the numbers of the images, over all pairs, in their place."""
    ends = np.cumsum([len(labels) for _, labels in pairs])
    return [(np.arange(end - len(labels), end), labels) for end, (_, labels) in zip(ends, pairs, strict=True)]


def _pair(arrays, split, path):
    """Images uint8 (N, H, W, C) and labels uint8 (N,) of a split, checked."""
    images = arrays[f"x_{split}"]
    shape = images.shape
    images = images[..., None] if images.ndim == 3 else images
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in shape:
        raise UserError(
            f"{path}: x_{split} should be uint8 (N, H, W) or (N, H, W, C) with C 1 or 3, but is "
            f"{images.dtype} {shape}."
        )
    labels = arrays.get(f"y_{split}", np.zeros(len(images), np.uint8))
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise UserError(f"{path}: y_{split} should be integers (N,), but is {labels.dtype} {labels.shape}.")
    first = arrays["x_train"].shape[1:]
    if shape[1:] != first:
        raise UserError(f"{path}: the images of x_{split} are {shape[1:]}, those of x_train {first}.")
    return checked(images, labels, f"{path} ({split})", MAX_CLASSES)


def _image_data(name, source, train, test=None, **kwargs):
    """An `ImageData`; without test images, a twelfth of each class is for validation and one for testing."""
    images, labels = train
    kwargs["folder"] = str(kwargs["folder"])
    if len(images) < FEWEST:
        raise UserError(f"{source}: {len(images)} training images are too few, at least {FEWEST} are needed.")
    if test:
        return ImageData.from_official_split(name, str(source), train, test, **kwargs)
    splits = three_splits(labels)
    parts = [part[splits == split] for split in range(3) for part in (images, labels)]
    return ImageData(name, str(source), *parts, **kwargs)


def load_tfds(folders, image_size, name):
    """An image classification set of TFDS that is prepared in one of the folders, or downloaded.

    Images that are all of one size keep it; others are cut to squares and resized. The test images are the
    split `test`, else `validation`, else a twelfth of the training images.

    Args:
        image_size: pixels along each side, where images differ in size.
        name: as TFDS has it, such as kmnist; or with a configuration, NAME/CONFIGURATION.
    """
    prepared = next(filter(None, (tfds_folder(name, folder) for folder in folders)), None)
    place = prepared or download_tfds(name, folders)
    file_name, cut = name.split("/")[0], None
    with tfds_errors(place, name):
        shape, n_classes, label_names = _features(place, name)
        info = json.loads(_read(place / "dataset_info.json"))
        counts = {s["name"]: sum(map(int, s["shardLengths"])) for s in info["splits"]}
        if shape is None:
            shape, cut = (image_size, image_size, 3), lambda content: square(content, image_size)
        chosen = ["train", *[split for split in ("test", "validation") if split in counts][:1]]
        n_bytes = sum(counts[split] for split in chosen) * math.prod(shape)
    labels = {split: [] for split in chosen}

    def image_data(pairs):
        names = {"label_names": label_names, "folder": place}
        return _image_data(f"tfds:{name}", f"TFDS folder {place}", *pairs, n_classes=n_classes, **names)

    def held():
        with tfds_errors(place, name):
            kwargs = {"n_classes": n_classes, "limit": MAX_BYTES, "decode": cut}
            pairs = [read_tfds_split(place, file_name, split, shape, **kwargs) for split in chosen]
        return image_data(pairs)

    def items():
        with tfds_errors(place, name):
            for split in chosen:
                for example in tfds_examples(place, file_name, split)[1]:
                    labels[split].append(example["label"].int64_list.value[0])
                    yield example["image"].bytes_list.value[0]

    def decode(content):
        image = cut(content) if cut else decode_picture(content, grey=shape[2] == 1)
        if image.shape != shape:
            raise ValueError("its shape is another")
        return image

    def arrange(readable):
        if not readable.all():
            raise UserError(
                f"The TFDS folder {place}: image {readable.argmin()} is none of the shape {shape}."
            )
        pairs = [(np.broadcast_to(np.uint8(0), len(part)), np.array(part)) for part in labels.values()]
        pairs = [
            checked(*pair, f"{place} ({split})", n_classes) for pair, split in zip(pairs, chosen, strict=True)
        ]
        return image_data(_numbered(*pairs))

    files = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(place.iterdir())]
    return ImageSource(
        n_bytes,
        shape,
        cache_key(image_size, [file for file in files if not file[0].startswith("aae_")]),
        shard_places(place, f"{name}_{'x'.join(map(str, shape))}"),
        lambda: (sum(counts[split] for split in chosen), items()),
        decode,
        arrange,
        held,
        most=2 * MAX_BYTES,
    )


def _features(place, name):
    """What a prepared folder says of its images: (H, W, C), or None where they differ; K; names of the K."""
    features = json.loads(_read(place / "features.json"))["featuresDict"]["features"]
    if not all(kind in features.get(key, {}) for key, kind in (("image", "image"), ("label", "classLabel"))):
        raise UserError(f"tfds:{name} has not an image and a class each, but {', '.join(sorted(features))}.")
    shape = tuple(int(side) for side in features["image"]["image"]["shape"]["dimensions"])
    n_classes = int(features["label"]["classLabel"]["numClasses"])
    if not 1 <= n_classes <= MAX_CLASSES:
        raise UserError(f"tfds:{name} has {n_classes} classes, more than {MAX_CLASSES}.")
    names = place / "label.labels.txt"
    lines = _read(names).decode().strip().splitlines() if names.is_file() else []
    known = len(shape) == 3 and min(shape) > 0 and shape[2] in (1, 3)
    # Without names of their own, TFDS calls classes by their numbers.
    named = len(lines) == n_classes and lines != [str(label) for label in range(n_classes)]
    return shape if known else None, n_classes, tuple(lines) if named else ()


def _read(path):
    return read_limited(path, MAX_INFO_BYTES)

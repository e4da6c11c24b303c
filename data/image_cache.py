"""Decoded images in one file beside the pictures they come from, so that a second start takes seconds."""

import dataclasses
import hashlib
import os

import numpy as np

from data.image_data import SPLITS, ImageData
from utils.errors import UserError, first_line
from utils.files import atomic_path
from utils.untrusted import read_arrays

FORMAT = 1  # to be raised with every change of how images are cropped, resized, split or stored
N_NAMED = 5  # unreadable images named, before they are only counted


@dataclasses.dataclass(frozen=True)
class DecodedImages:
    """What a cache file holds.

    Attributes:
        images: uint8 (N, S, S, 3), RGB, sorted by split; or, of stored images, their numbers, int (N,).
        labels: uint8, classes (N,) or attributes (N, K) in {0, 1}.
        splits: uint8 (N,), ascending: 0 train, 1 validation, 2 test.
        label_names: str (K,), of the classes or attributes; (0,) where all images are of one class.
        unreadable: str (U,), names of the images that could not be decoded and are left out.
    """

    images: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    label_names: np.ndarray
    unreadable: np.ndarray

    def check(self, image_size):
        """Raises ValueError where the arrays do not fit together, or labels or splits are out of range."""
        count = len(self.images)
        kinds = {"images": "u", "labels": "u", "splits": "u", "label_names": "U", "unreadable": "U"}
        fits = (
            all(getattr(self, name).dtype.kind == kind for name, kind in kinds.items())
            and self.images.shape == (count, image_size, image_size, 3)
            and self.labels.shape in ((count,), (count, len(self.label_names)))
            and self.splits.shape == (count,)
            and self.images.dtype == self.labels.dtype == self.splits.dtype == np.uint8
            and self.label_names.ndim == self.unreadable.ndim == 1
        )
        n_values = max(len(self.label_names), 1) if self.labels.ndim == 1 else 2
        if not fits or np.any(self.labels >= n_values) or np.any(np.diff(self.splits.astype(int)) < 0):
            raise ValueError("its arrays do not fit together")

    def image_data(self, name, source, folder):
        """The `ImageData`, whose splits are views of these arrays; names the unreadable images.

        Args: as of `ImageData`.

        Raises:
            UserError: if a split is empty.
        """
        if len(self.unreadable):
            named = ", ".join(map(repr, self.unreadable[:N_NAMED].tolist()))
            more = len(self.unreadable) - N_NAMED
            print(
                f"{len(self.unreadable)} of {len(self.unreadable) + len(self.images)} images of {source} "
                f"cannot be read and are left out: {named}{f' and {more} more' if more > 0 else ''}.",
                flush=True,
            )
        ends = np.searchsorted(self.splits, [1, 2])
        images, labels = np.split(self.images, ends), np.split(self.labels, ends)
        for split, part in zip(SPLITS, images, strict=True):
            if len(part) == 0:
                raise UserError(f"{source}: no readable image is left for the {split} split.")
        arrays = (array for pair in zip(images, labels, strict=True) for array in pair)
        label_names = tuple(self.label_names.tolist())
        n_classes = max(len(label_names), 1)
        return ImageData(
            name, source, *arrays, n_classes=n_classes, label_names=label_names, folder=str(folder)
        )


def cached(path, key, image_size, decode):
    """The `DecodedImages` of a cache file, or those of `decode()`, which are then cached.

    A file that is damaged or made from other images is replaced; where none can be written, a line says so.

    Args:
        path: of the cache file, .npz.
        key: `cache_key` of what `decode` would read.
        decode: function without arguments that returns `DecodedImages`.
    """
    if path.is_file():
        try:
            decoded = _read(path, key, image_size)
        except Exception as error:  # whatever zipfile and numpy raise on a damaged file
            print(f"The cache {path} is damaged and is made anew: {first_line(error)}", flush=True)
            decoded = None
        if decoded is not None:
            return decoded
    decoded = decode()
    try:
        with atomic_path(path) as temporary:
            np.savez(temporary, allow_pickle=False, key=key, **vars(decoded))
    except OSError as error:
        reason = error.strerror or first_line(error)
        print(f"No cache can be written at {path} ({reason}): every start will decode anew.", flush=True)
    return decoded


def _read(path, key, image_size):
    # It is written without compression, so its arrays cannot be larger than itself.
    limit = os.path.getsize(path)
    if str(read_arrays(path, ["key"], limit)["key"]) != key:
        return None
    names = [field.name for field in dataclasses.fields(DecodedImages)]
    decoded = DecodedImages(**read_arrays(path, names, limit))
    decoded.check(image_size)
    return decoded


def cache_key(image_size, files, *contents):
    """A digest of all that decoded images depend on.

    Args:
        files: list of (name, bytes, mtime in nanoseconds).
        contents: bytes of files that are read as a whole.
    """
    digest = hashlib.sha256(f"{FORMAT} {image_size} {len(files)}\n".encode())
    for name, size, modified in files:
        digest.update(os.fsencode(name) + f"\0{size} {modified}\n".encode())
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()

"""Images on the disk that are read by their numbers, for data sets that fit no memory.

A folder of shards holds files of equally large records, images_00000.bin and so on, in the order of the
source, and index.npz: which records are the images of each split, their labels and names, and what they were
made from. A record is the pixels of an image and a CRC-32 that begins with the source's key and the record's
number: a record that is damaged, or stands in the place of another, is noticed when it is read.
"""

import contextlib
import dataclasses
import math
import os
import re
import zlib

import numpy as np

from data import MAX_PIXELS
from data.image_data import SPLITS, ImageData
from utils.errors import UserError, first_line
from utils.files import atomic_path
from utils.untrusted import read_arrays

FORMAT = 1  # to be raised with every change of the files
INDEX = "index.npz"
SHARD_BYTES, MAX_SHARDS = 2**26, 256  # a shard is larger where there would be more: all are open at a time
CRC_BYTES = 4
UNREADABLE = 0xFFFFFFFF  # turns the CRC of an image that could not be decoded


class StoredImages:
    """Some images of a folder of shards as an array uint8 (N, H, W, C); what is asked for is read.

    Args:
        shards: the `Shards`.
        numbers: of their records, int (N,).
    """

    ndim, dtype = 4, np.dtype(np.uint8)

    def __init__(self, shards, numbers):
        self.shards, self.numbers = shards, numbers
        self.shape = (len(numbers), *shards.shape)
        self.size = math.prod(self.shape)
        self.nbytes = self.size

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, chosen):
        numbers = self.numbers[chosen]
        return self.shards.read(numbers) if numbers.ndim else self.shards.read(numbers[None])[0]


class Shards:
    """The files of the records.

    Args:
        folder: where they lie.
        key: of what they were made from.
        shape: (H, W, C) of the images.
        count: number of records.

    Attributes:
        failure: the UserError of a record that could not be read: inside a graph, TensorFlow raises another.
    """

    def __init__(self, folder, key, shape, count):
        self.folder, self.shape, self.count = folder, tuple(shape), count
        self.pixels = math.prod(shape)
        self.record = self.pixels + CRC_BYTES
        self.per_shard = max(-(-SHARD_BYTES // self.record), -(-count // MAX_SHARDS))
        self.seed = zlib.crc32(f"{FORMAT} {key} {self.shape}".encode())
        self.failure = None
        self.files = []

    def __len__(self):
        return -(-self.count // self.per_shard)

    def path(self, shard):
        return self.folder / f"images_{shard:05}.bin"

    def numbers(self, shard):
        """The records of a shard, a range."""
        return range(shard * self.per_shard, min((shard + 1) * self.per_shard, self.count))

    def crc(self, number, pixels):
        return zlib.crc32(pixels, (self.seed + number) & 0xFFFFFFFF)

    def open(self):
        """Opens all files; raises ValueError or OSError where one is missing or has another size."""
        for shard in range(len(self)):
            # Without O_NONBLOCK, opening a named pipe would wait for a writer, which its size gives away.
            self.files.append(os.open(self.path(shard), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            size, expected = os.fstat(self.files[-1]).st_size, len(self.numbers(shard)) * self.record
            if size != expected:
                raise ValueError(f"{self.path(shard).name} has {size:,} bytes instead of {expected:,}")
            os.posix_fadvise(self.files[-1], 0, 0, os.POSIX_FADV_RANDOM)
        return self

    def __del__(self):
        for file in self.files:
            os.close(file)

    def read(self, numbers):
        """The images of records, uint8 (N, H, W, C).

        Raises:
            UserError: in one line, where a record is damaged.
        """
        images = np.empty((len(numbers), self.pixels), np.uint8)
        sums = np.empty((len(numbers), 1), "<u4")
        numbers = numbers.tolist()
        places = [(self.files[n // self.per_shard], n % self.per_shard * self.record) for n in numbers]
        # The disk may fetch all of them at once, rather than one after the other.
        for file, place in places:
            os.posix_fadvise(file, place, self.record, os.POSIX_FADV_WILLNEED)
        for number, (file, place), image, noted in zip(numbers, places, images, sums, strict=True):
            try:
                whole = os.preadv(file, [image, noted], place) == self.record
            except OSError:
                whole = False
            if not whole or self.crc(number, image) != noted[0]:
                path = self.path(number // self.per_shard)
                self.failure = UserError(
                    f"{path} is damaged: record {number % self.per_shard} is not what was written there. "
                    "--prepare with the same --data and --data_dir mends it."
                )
                raise self.failure
        return images.reshape(-1, *self.shape)

    def readable(self, shard):
        """Which images of a shard could be decoded, a mask; None where the shard is damaged or not there."""
        path, numbers = self.path(shard), self.numbers(shard)
        with contextlib.suppress(OSError):
            if path.is_file() and path.stat().st_size == len(numbers) * self.record:
                mask = np.empty(len(numbers), bool)
                with open(path, "rb") as file:
                    for index, number in enumerate(numbers):
                        record = file.read(self.record)
                        noted = int.from_bytes(record[self.pixels :], "little")
                        found = self.crc(number, record[: self.pixels])
                        if noted not in (found, found ^ UNREADABLE):
                            return None
                        mask[index] = noted == found
                return mask
        return None

    def write(self, shard, images):
        """Writes a shard whole or not at all; returns which images could be decoded, a mask.

        Args:
            images: iterable of uint8 (H, W, C), and None for those that could not.
        """
        numbers, mask = self.numbers(shard), []
        nothing = np.zeros(self.shape, np.uint8)
        with atomic_path(self.path(shard)) as temporary, open(temporary, "xb") as file:
            for number, image in zip(numbers, images, strict=True):
                pixels = (nothing if image is None else image).tobytes()
                crc = self.crc(number, pixels) ^ (UNREADABLE if image is None else 0)
                file.write(pixels + crc.to_bytes(CRC_BYTES, "little"))
                mask.append(image is not None)
        return np.array(mask, bool)


def with_stored_images(data, shards):
    """The `ImageData` with stored images in the place of their numbers."""
    return data.with_images([StoredImages(shards, getattr(data, f"{split}_images")) for split in SPLITS])


def find_prepared(source):
    """The prepared `ImageData` of an `ImageSource`; None where there is none, or it is damaged."""
    for place in source.places:
        if (place / INDEX).is_file():
            try:
                return open_shards(place, source.key)
            except Exception as error:  # whatever zipfile and numpy raise on a damaged file
                print(f"The shards in {place} are made anew: {first_line(error)}.", flush=True)
    return None


def load_prepared(folders):
    """What `--prepare` left in a folder, without the files that it was made from."""
    for folder in folders:
        if (folder / INDEX).exists():
            try:
                data = open_shards(folder)
            except Exception as error:  # likewise
                raise UserError(
                    f"The shards in {folder} cannot be used: {first_line(error)}. Prepare them anew."
                ) from None
            return dataclasses.replace(data, name="prepared", source=f"{folder}, from {data.source}")
    raise UserError(
        f"No {INDEX} in {', '.join(map(str, folders))}: --data prepared needs --data_dir, a folder of shards "
        "that --prepare has written."
    )


def open_shards(folder, key=None):
    """The `ImageData` of a folder of shards, which may hold anything.

    Args:
        key: that it must have; None for any.

    Raises:
        Exception: of many types, where index or files are damaged or do not fit together.
    """
    path = folder / INDEX
    names = [f"{split}_{part}" for split in SPLITS for part in ("numbers", "labels")]
    single = ("format", "key", "checksum", "count", "n_classes", "name", "source")
    # It is written without compression, so its arrays cannot be larger than itself.
    found = read_arrays(path, [*single, "shape", "label_names", *names], path.stat().st_size)
    if any(found[name].ndim for name in single) or int(found["format"]) != FORMAT:
        raise ValueError(f"{INDEX} has another format")
    if key is not None and str(found["key"]) != key:
        raise ValueError("the files that they were made from have changed")
    shape, count, n_classes = tuple(found["shape"].tolist()), int(found["count"]), int(found["n_classes"])
    label_names = tuple(map(str, found["label_names"].ravel().tolist()))
    numbers, labels = ([found[f"{split}_{part}"] for split in SPLITS] for part in ("numbers", "labels"))
    has_attributes = labels[0].ndim == 2
    fits = (
        len(shape) == 3
        and all(type(side) is int and side > 0 for side in shape)
        and shape[0] * shape[1] <= MAX_PIXELS
        and shape[2] in (1, 3)
        and found["label_names"].dtype.kind == "U"
        and len(label_names) in (0, n_classes)
        and re.fullmatch("[0-9a-f]{8}", str(found["checksum"]))
        and 1 <= n_classes <= 256
        and all(
            n.dtype == np.int64 and n.ndim == 1 and len(n) and 0 <= n.min() <= n.max() < count
            for n in numbers
        )
        and all(
            part.dtype == np.uint8
            and part.shape == ((len(n), n_classes) if has_attributes else (len(n),))
            and part.max() < (2 if has_attributes else n_classes)
            for n, part in zip(numbers, labels, strict=True)
        )
    )
    if not fits:
        raise ValueError(f"the arrays of {INDEX} do not fit together")
    parts = [part for pair in zip(numbers, labels, strict=True) for part in pair]
    data = ImageData(
        str(found["name"]),
        str(found["source"]),
        *parts,
        n_classes=n_classes,
        label_names=label_names,
        folder=str(folder),
        known_checksum=str(found["checksum"]),
    )
    return with_stored_images(data, Shards(folder, str(found["key"]), shape, count).open())

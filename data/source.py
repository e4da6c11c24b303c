"""Images that have not been read yet: first it is decided whether memory holds them, or the disk."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data.image_data import SPLITS

SHARE = 4  # images may take a quarter of the free memory
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclasses.dataclass(frozen=True)
class ImageSource:
    """A data set of which only names, sizes and headers are known.

    Attributes:
        n_bytes: of all images once they are decoded.
        most: bytes that are held at most, whatever memory there is.
        shape: (H, W, C) of the decoded images.
        key: a text that changes with the content.
        places: where its shards may lie, the best first: paths of folders.
        contents: function to the number of items N, and an iterator over them in the order of their files.
        decode: function from an item to its image, uint8 (H, W, C); what cannot be decoded is a ValueError,
            an OSError or a cv2.error. Many threads call it.
        arrange: function of a mask (N,), which items could be decoded, to an `ImageData` that has the numbers
            of the items, int (M,), in the place of images. It is called when `contents` has been used up.
        held: function to the `ImageData` with its images in memory.
    """

    n_bytes: int
    shape: tuple
    key: str
    places: list
    contents: Callable
    decode: Callable
    arrange: Callable
    held: Callable
    most: int = 2**63

    @classmethod
    def of_arrays(cls, data):
        """Of an `ImageData` that is in memory already."""
        parts = [getattr(data, f"{split}_images") for split in SPLITS]
        ends = np.cumsum([len(part) for part in parts])

        def contents():
            return int(ends[-1]), (image for part in parts for image in part)

        def numbered(readable):
            return data.with_images(np.split(np.arange(ends[-1]), ends[:-1]))

        return cls(
            sum(part.nbytes for part in parts),
            data.image_shape,
            data.checksum,
            shard_places(data.folder, f"{data.name}_{data.checksum}"),
            contents,
            lambda image: image,
            numbered,
            lambda: data,
        )


def shard_places(folder, name):
    """Where the shards of a data set may lie: beside its files, or in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aae"
    name = f"aae_{''.join(c if c.isalnum() else '_' for c in name)}_shards"
    return [place / name for place in ([Path(folder)] if folder else []) + [cache]]


def available_bytes():
    """Memory that is free, or that the process may have; 0 where that cannot be told."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return 0
    try:
        return min(free, int(CGROUP_LIMIT.read_text()))
    except (OSError, ValueError):  # no limit, or another system
        return free

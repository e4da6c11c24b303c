"""The one-time conversion of a data set into shards, see `data.shards`."""

import contextlib
import dataclasses
import fcntl
import itertools
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from data.image_data import SPLITS
from data.readers import quiet_decoders
from data.shards import FORMAT, INDEX, Shards, find_prepared, with_stored_images
from utils.errors import UserError, first_line
from utils.files import atomic_path, remove_temporaries

CHUNK = 512  # images decoded at a time
MAX_THREADS = 4  # each may hold a picture of data.MAX_PIXELS


def prepare(source, wait=False):
    """Writes the shards of an `ImageSource` where they are not there yet, and reads through all of them.

    A preparation that was killed goes on after its last whole shard.

    Args:
        wait: whether to wait for the end of another process that prepares them, rather than refuse.

    Returns:
        the `ImageData`, whose images are `StoredImages`.

    Raises:
        UserError: if they cannot be written.
    """
    count, items = source.contents()
    folder = _writable(source.places)
    shards = Shards(folder, source.key, source.shape, count)
    readable = np.zeros(count, bool)
    try:
        with _locked(folder, wait) as has_waited:
            if has_waited and (data := find_prepared(source)):
                return data
            remove_temporaries(folder)
            _require_space(shards)
            progress = Progress(count, f"Preparing {count:,} images in {folder}, once:")
            with ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
                for shard in range(len(shards)):
                    numbers = shards.numbers(shard)
                    mine = itertools.islice(items, len(numbers))
                    mask = shards.readable(shard)
                    if mask is None:
                        mask = shards.write(shard, _decoded(mine, source.decode, pool, progress))
                    else:
                        progress.add(sum(1 for _ in mine))
                    readable[numbers.start : numbers.stop] = mask
            data = source.arrange(readable)
            stored = with_stored_images(data, shards.open())
            _write_index(folder, source, count, data, stored.checksum)
            for path in folder.glob("images_*.bin"):  # of a larger set that was here before
                if path.name > shards.path(len(shards) - 1).name:
                    path.unlink()
    except OSError as error:
        raise UserError(f"The shards in {folder} cannot be written: {first_line(error)}.") from None
    return dataclasses.replace(stored, known_checksum=stored.checksum)


def _writable(places):
    """The first of these folders that can be written to; it is made where it is not there."""
    problems = []
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            if os.access(place, os.W_OK):
                return place
            problems.append(f"{place} is read-only")
        except OSError as error:
            problems.append(first_line(error))
    raise UserError(f"There is no place for the shards: {'; '.join(problems)}.")


@contextlib.contextmanager
def _locked(folder, wait=False):
    """Keeps others out; gives whether it had to wait for one."""
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
    try:
        has_waited = False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"{folder} is being prepared by another process"
            if not wait:
                raise UserError(f"{message}: wait for its end.") from None
            print(f"{message}: waiting for its end.", flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            has_waited = True
        yield has_waited
    finally:
        os.close(descriptor)


def _require_space(shards):
    there = sum(path.stat().st_size for path in shards.folder.glob("images_*.bin"))
    needed, free = shards.count * shards.record - there, shutil.disk_usage(shards.folder).free
    if needed > free:
        raise UserError(
            f"The shards in {shards.folder} take {needed / 1e9:.1f} GB more, and {free / 1e9:.1f} GB of the "
            "disk are free."
        )


def _decoded(items, decode, pool, progress):
    """The images of items, in their order, None for those that cannot be decoded."""
    import cv2

    def image_of(item):
        try:
            return decode(item)
        except (OSError, ValueError, cv2.error):
            return None  # the source names those that are left out

    while chunk := list(itertools.islice(items, CHUNK)):
        with quiet_decoders():
            images = list(pool.map(image_of, chunk))
        yield from images
        progress.add(len(chunk))


class Progress:
    """A line that says how far a long work has come: one that changes on a terminal, a few in a file.

    Args:
        count: of all items.
        title: printed first.
    """

    def __init__(self, count, title):
        self.count, self.done, self.shown, self.begun = count, 0, 0, time.monotonic()
        print(title, flush=True)

    def add(self, items):
        self.done += items
        on_terminal, end = sys.stdout.isatty(), self.done == self.count
        if not on_terminal and not end and self.done - self.shown < self.count / 10:
            return
        self.shown = self.done
        left = (time.monotonic() - self.begun) * (self.count / self.done - 1) if self.done else 0
        bar = "#" * (30 * self.done // self.count)
        line = f"  [{bar:<30}] {self.done:,} of {self.count:,}, {left:.0f} s left"
        print(
            f"\r{line:<79}" if on_terminal else line, end="" if on_terminal and not end else "\n", flush=True
        )


def _write_index(folder, source, count, data, checksum):
    arrays = {
        "format": FORMAT,
        "key": source.key,
        "checksum": checksum,
        "count": count,
        "shape": np.array(source.shape),
        "name": data.name,
        "source": data.source,
        "n_classes": data.n_classes,
        "label_names": np.array(data.label_names, str),
    }
    for split in SPLITS:
        arrays[f"{split}_numbers"] = getattr(data, f"{split}_images")
        arrays[f"{split}_labels"] = getattr(data, f"{split}_labels")
    with atomic_path(folder / INDEX) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)

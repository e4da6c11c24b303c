"""Files that are either whole or absent, and what is in them."""

import contextlib
import json
import os
import re
import shutil
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path):
    """Yields a temporary path beside `path`, with its suffix, and moves it there when the block ends well."""
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    temporary.unlink(missing_ok=True)  # a link by this name would be written through
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync(path.parent)
    finally:
        with contextlib.suppress(OSError):  # a folder that has vanished must not hide what happened
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path):
    """Yields a new folder beside `path`, which takes the place of `path` when the block ends well."""
    path = Path(path)
    new, old = (path.with_name(f".{path.name}.{os.getpid()}.{age}.tmp") for age in ("new", "old"))
    try:
        new.mkdir(parents=True)
        yield new
        list(map(sync, new.rglob("*")))
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
        sync(path.parent)
    finally:
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def sync(path):
    """Waits until a file, or the names in a folder, which is another thing, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder):
    """Removes what killed processes have left of `atomic_path` and `atomic_folder` in a folder and below."""
    for path in list(Path(folder).rglob(".*.tmp*")):
        shutil.rmtree(path, ignore_errors=True)  # which does nothing to files and links
        path.unlink(missing_ok=True)


def write_text(path, text):
    """Writes a text file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text)


def write_json(path, content):
    """Writes a JSON file atomically, indented and in the order of `content`."""
    text = json.dumps(content, indent=2)
    # A list of numbers reads better on one line than on one each.
    text = re.sub(r"\[[-\d.e,\s]+\]", lambda numbers: " ".join(numbers[0].split()), text)
    write_text(path, text + "\n")

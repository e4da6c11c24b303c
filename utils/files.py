"""Files that are either whole or absent, and what is in them."""

import contextlib
import json
import os
import re
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
        sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # a folder that has vanished must not hide what happened
            temporary.unlink(missing_ok=True)


def sync_folder(folder):
    """Waits until the names in a folder are on the disk, as fsync of a file does not."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder):
    """Removes what killed processes have left of `atomic_path` in a folder and below."""
    for path in Path(folder).rglob(".*.tmp*"):
        path.unlink()


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

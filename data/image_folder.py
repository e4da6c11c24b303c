"""Any folder of pictures as a data set; and finding, decoding, cropping and resizing pictures."""

import itertools
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from data.image_cache import DecodedImages, cache_key, cached
from data.image_data import stratified_choice
from data.readers import decode_picture, quiet_decoders
from data.source import ImageSource, shard_places
from utils.errors import UserError
from utils.untrusted import is_file_inside, read_limited

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MAX_FILE_BYTES = 50 * 2**20
MAX_CLASSES = 256  # labels are uint8
MAX_THREADS = 4  # each may hold a picture of data.MAX_PIXELS
CHUNK = 512  # pictures in the queue of the threads


def load_folder(folders, image_size):
    """The pictures in and below a folder; its subfolders are the classes if there are any.

    Where pictures lie in the folder itself, in fewer than two subfolders or in too many, all are class 0.
    A twelfth of each class is for validation, a twelfth for testing.

    Args:
        folders: list of the one folder.
        image_size: S of the square images (S, S, 3).
    """
    (folder,) = folders
    files = find_images(folder)
    if not files:
        raise UserError(
            f"{folder} holds no images: {', '.join(SUFFIXES)} files are read, also in subfolders."
        )
    names = [name for name, _, _ in files]
    labels, label_names = folder_classes(names)

    def arrange(images, readable):
        if readable.sum() < 3:
            raise UserError(
                f"{folder}: {readable.sum()} of {len(names)} images can be read, and three splits need 3."
            )
        kept = labels[readable]
        splits = three_splits(kept)
        order = np.argsort(splits, kind="stable")
        unreadable = [names[index] for index in np.flatnonzero(~readable)]
        texts = np.array(label_names, str), np.array(unreadable, str)
        return DecodedImages(images[order], kept[order], splits[order], *texts)

    return picture_source(
        "folder",
        str(folder),
        folder,
        image_size,
        cache_key(image_size, files),
        len(files),
        lambda: (len(names), iter(names)),
        file_reader(folder),
        arrange,
    )


def picture_source(name, source, folder, image_size, key, count, items, read, arrange):
    """The `ImageSource` of pictures that are cut to squares and resized.

    Args:
        name, source, folder, key: of the `ImageData` and of its cache.
        count: number of pictures, or a few more.
        items, read: function to the number of items and an iterator over them; function from an item to the
            content of a picture file, which may raise OSError.
        arrange: function of the images that can be read, or of their numbers, and of the mask of which they
            are, to `DecodedImages`.
    """

    def decode(item):
        return square(read(item), image_size)

    def held():
        def decoded():
            n_items, iterator = items()
            return arrange(*decode_images(iterator, n_items, image_size, source, decode))

        path = folder / f"aae_{name}_{image_size}.npz"
        return cached(path, key, image_size, decoded).image_data(name, source, folder)

    return ImageSource(
        count * image_size**2 * 3,
        (image_size, image_size, 3),
        key,
        shard_places(folder, f"{name}_{image_size}"),
        items,
        decode,
        lambda readable: arrange(np.flatnonzero(readable), readable).image_data(name, source, folder),
        held,
    )


def folder_classes(names):
    """Labels uint8 (N,) and sorted class names (K,) of pictures by their paths; one class has no name."""
    tops = [name.split("/")[0] for name in names]
    classes = sorted(set(tops))
    if len(classes) < 2 or not all("/" in name for name in names):
        return np.zeros(len(names), np.uint8), []
    if len(classes) > MAX_CLASSES:
        print(f"{len(classes)} subfolders are more than {MAX_CLASSES} classes: all images are class 0.")
        return np.zeros(len(names), np.uint8), []
    return np.searchsorted(classes, tops).astype(np.uint8), classes


def three_splits(labels):
    """0, 1 or 2 for train, validation and test, uint8 (N,): a twelfth of each class for the last two."""
    count = max(1, len(labels) // 12)
    splits = np.zeros(len(labels), np.uint8)
    splits[stratified_choice(labels, count)] = 2
    rest = np.flatnonzero(splits == 0)
    splits[rest[stratified_choice(labels[rest], count)]] = 1
    return splits


def find_images(folder):
    """The pictures in and below a folder, sorted: list of (path relative to it, bytes, mtime in ns).

    Hidden files are left out, and so, with a notice, are symbolic links, unless to a file in the folder.
    """
    root = os.path.realpath(folder)
    files, links, pending = [], 0, [""]
    try:
        while pending:
            prefix = pending.pop()
            with os.scandir(os.path.join(root, prefix)) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if entry.name.startswith("."):
                        continue
                    if entry.is_symlink() and not is_file_inside(entry.path, root):
                        links += 1
                    elif entry.is_dir():
                        pending.append(name + "/")
                    elif entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                        status = entry.stat()
                        files.append((name, status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error}.") from None
    if links:
        print(f"{links} symbolic links in {folder} are not followed: to folders or out of it.", flush=True)
    return sorted(files)


def file_reader(folder):
    """A function from the name of a picture file in a folder to its content."""
    return lambda name: read_limited(os.path.join(folder, name), MAX_FILE_BYTES)


def decode_images(items, count, image_size, source, picture):
    """Decodes pictures in parallel (OpenCV lets other threads run) into one array.

    Args:
        items: iterable of `count` items; no more than CHUNK of them are held at once.
        source: what the progress line calls them.
        picture: function from an item to an image uint8 (S, S, 3), or OSError, ValueError, cv2.error.

    Returns:
        images uint8 (M, S, S, 3), RGB, of those that can be read, and a mask (count,) of which these are.
    """
    import cv2

    print(f"Decoding {count} images of {source}, once:", flush=True)
    try:
        images = np.empty((count, image_size, image_size, 3), np.uint8)
    except MemoryError:
        raise UserError(
            f"{count} images of {image_size} pixels do not fit: choose a smaller --image_size."
        ) from None
    readable = np.zeros(count, bool)

    def decode(index, item):
        try:
            images[index] = picture(item)
            readable[index] = True
        except (OSError, ValueError, cv2.error):
            pass  # the caller names those that are left out

    on_terminal = sys.stdout.isatty()
    with quiet_decoders(), ThreadPoolExecutor(min(MAX_THREADS, os.cpu_count() or 1)) as pool:
        numbered, done = enumerate(items), 0
        while chunk := list(itertools.islice(numbered, CHUNK)):
            list(pool.map(decode, *zip(*chunk, strict=True)))
            done += len(chunk)
            if on_terminal or done == count or done // CHUNK % 20 == 0:
                end = "\r" if on_terminal and done < count else "\n"
                print(f"  {done} of {count}", end=end, flush=True)
    return (images if readable.all() else images[readable]), readable


def square(content, image_size):
    """The centre of a picture, as large a square as fits, resized: RGB uint8 (S, S, 3).

    Args:
        content: bytes of a picture file; grey ones become RGB, too.

    Raises:
        ValueError, cv2.error: if it cannot be decoded.
    """
    import cv2

    image = decode_picture(content)
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    centre = image[top : top + side, left : left + side]
    # Averaging areas keeps fine structures from aliasing; where pixels are made up, it would show blocks.
    method = cv2.INTER_AREA if side >= image_size else cv2.INTER_LINEAR
    return cv2.resize(centre, (image_size, image_size), interpolation=method)

"""CelebA: 202,599 faces with 40 attributes, from its own files or from a folder prepared by TFDS."""

import contextlib
import functools

import numpy as np

from data.image_cache import DecodedImages, cache_key
from data.image_data import SPLITS
from data.image_folder import file_reader, find_images, picture_source
from data.loading import DataNotFound, tfds_folder
from data.readers import tfds_examples
from utils.errors import UserError, first_line
from utils.untrusted import count_records, read_limited

IMAGES, ATTRIBUTES, PARTITION = "img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"
N_ATTRIBUTES = 40
MAX_LIST_BYTES = 32 * 2**20  # the longer list has 27 MB


def load_celeb_a(folders, image_size):
    """CelebA's aligned images, in the official splits; labels are the 40 attributes, (N, 40) in {0, 1}.

    Args:
        image_size: S of the square images (S, S, 3), cut from the middle.
    """
    for folder in folders:
        for place in (folder, *(folder / name for name in ("celeb_a", "celeba", "CelebA"))):
            files = _find_files(place)
            if files:
                return _load_files(place, *files, image_size)
        prepared = tfds_folder("celeb_a", folder)
        if prepared:
            return _load_tfds(prepared, image_size)
    raise DataNotFound(
        f"No CelebA in {', '.join(map(str, folders))}, and its 1.4 GB are not downloaded: unpack "
        f"{IMAGES}.zip and put {IMAGES}/, {ATTRIBUTES} and {PARTITION} into --data_dir."
    )


def _find_files(place):
    """Image folder, attribute list and partition list in a folder, or None where it has none of them."""
    places = {
        IMAGES: (place, place / "Img"),
        ATTRIBUTES: (place, place / "Anno", place / "Eval"),
        PARTITION: (place, place / "Eval", place / "Anno"),
    }
    found = {
        name: next((parent / name for parent in parents if (parent / name).exists()), None)
        for name, parents in places.items()
    }
    missing = [name for name, path in found.items() if path is None]
    if len(missing) == len(found):
        return None
    if missing:
        raise UserError(f"{place} holds only a part of CelebA: {', '.join(missing)} missing.")
    return found.values()


def _load_files(place, image_folder, attribute_path, partition_path, image_size):
    files = find_images(image_folder)
    contents = [_read(attribute_path), _read(partition_path)]

    @functools.cache
    def listed():
        names, attributes, attribute_names = parse_attributes(contents[0], attribute_path)
        splits = parse_partition(contents[1], partition_path)
        present = {name for name, _, _ in files}
        _require_known(names, present, f"{attribute_path} lists images that {image_folder} does not hold")
        _require_known(splits, set(names), f"{partition_path} lists images that {ATTRIBUTES} does not")
        _require_known(names, splits, f"{attribute_path} lists images that {PARTITION} does not")
        if len(present) > len(names):
            print(f"{len(present) - len(names)} images in {image_folder} are not listed: left out.")
        splits = np.array([splits[name] for name in names], np.uint8)
        order = np.argsort(splits, kind="stable")
        return [names[index] for index in order], attributes[order], splits[order], attribute_names

    def items():
        names, *_ = listed()
        return len(names), iter(names)

    def arrange(images, readable):
        names, attributes, splits, attribute_names = listed()
        unreadable = [names[index] for index in np.flatnonzero(~readable)]
        texts = np.array(attribute_names), np.array(unreadable, str)
        return DecodedImages(images, attributes[readable], splits[readable], *texts)

    return picture_source(
        "celeb_a",
        str(place),
        place,
        image_size,
        cache_key(image_size, files, *contents),
        len(files),
        items,
        file_reader(image_folder),
        arrange,
    )


def _require_known(names, known, problem):
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"{problem}: {len(unknown)}, the first is {_short(unknown[0])}.")


def _read(path):
    try:
        return read_limited(path, MAX_LIST_BYTES)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}.") from None


def _lines(content, path):
    try:
        return content.decode().rstrip().split("\n")
    except UnicodeDecodeError:
        raise UserError(
            f"{path} is no text, but a list of CelebA is: is it damaged or still packed?"
        ) from None


def parse_attributes(content, path):
    """Image names (N), attributes uint8 (N, 40) in {0, 1}, and attribute names (40) of the attribute list.

    Its first line is N, its second the 40 names, each other an image name and 40 numbers, -1 or 1.

    Args:
        content: bytes of the list.
        path: what errors call it.
    """
    lines = _lines(content, path)
    rows = lines[2:]
    if lines[0].strip() != str(len(rows)):
        raise UserError(
            f"{path}: line 1 announces {_short(lines[0])} images, but {len(rows)} lines follow the names."
        )
    attribute_names = lines[1].split() if len(lines) > 1 else []
    if not len(attribute_names) == len(set(attribute_names)) == N_ATTRIBUTES:
        raise UserError(
            f"{path}: line 2 should name {N_ATTRIBUTES} different attributes, but has {len(attribute_names)} "
            f"names, {len(set(attribute_names))} of them different."
        )
    names, attributes = [], np.empty((len(rows), N_ATTRIBUTES), np.uint8)
    bits = {"-1": 0, "1": 1}
    for index, row in enumerate(rows):
        name, *values = row.split() or [""]
        if len(values) != N_ATTRIBUTES:
            raise UserError(f"{path}: line {index + 3} has {len(values)} attributes, not {N_ATTRIBUTES}.")
        try:
            attributes[index] = [bits[value] for value in values]
        except KeyError as error:
            raise UserError(f"{path}: line {index + 3} has {_short(error.args[0])}, not -1 or 1.") from None
        names.append(name)
    if len(set(names)) < len(names):
        raise UserError(f"{path} lists {len(names) - len(set(names))} images more than once.")
    return names, attributes, attribute_names


def parse_partition(content, path):
    """Split of each image, name -> 0 (train), 1 (validation) or 2 (test), of the partition list.

    Each of its lines is an image name and the number of the split.

    Args:
        content, path: as of `parse_attributes`.
    """
    splits = {}
    for index, line in enumerate(_lines(content, path)):
        fields = line.split()
        if len(fields) != 2 or fields[1] not in ("0", "1", "2"):
            raise UserError(f"{path}: line {index + 1} is {_short(line)}, not an image name and 0, 1 or 2.")
        if fields[0] in splits:
            raise UserError(f"{path} lists {_short(fields[0])} more than once.")
        splits[fields[0]] = int(fields[1])
    return splits


def _short(text):
    """Text of a file on one line, however long and strange it is."""
    text = text.strip()
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _load_tfds(place, image_size):
    paths = sorted([*place.glob("*.json"), *place.glob("*.tfrecord*")])
    key = cache_key(image_size, [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in paths])
    splits, attributes, names = [], [], set()

    def items():
        with _tfds_errors(place):
            per_split = [tfds_examples(place, "celeb_a", split) for split in SPLITS]
            return sum(count for count, _ in per_split), pictures(per_split)

    def pictures(per_split):
        with _tfds_errors(place):
            for number, (_, examples) in enumerate(per_split):
                for example in examples:
                    values = {
                        key.removeprefix("attributes/"): value.int64_list.value[0]
                        for key, value in example.items()
                        if key.startswith("attributes/")
                    }
                    names.add(tuple(sorted(values)))  # TFDS forgets the order, which is this one
                    splits.append(number)
                    attributes.append([values[name] for name in sorted(values)])
                    yield example["image"].bytes_list.value[0]

    def arrange(images, readable):
        with _tfds_errors(place):
            (attribute_names,) = names  # the same ones everywhere
            if len(attribute_names) != N_ATTRIBUTES or not {0, 1}.issuperset(np.unique(attributes)):
                raise ValueError(f"an image does not have {N_ATTRIBUTES} attributes of 0 or 1")
        unreadable = [f"example {index}" for index in np.flatnonzero(~readable)]
        texts = np.array(attribute_names), np.array(unreadable, str)
        of_all = np.array(attributes, np.uint8), np.array(splits, np.uint8)
        return DecodedImages(images, *(part[readable] for part in of_all), *texts)

    with _tfds_errors(place):
        n_pictures = sum(count_records(path) for path in paths if ".tfrecord" in path.name)
    return picture_source(
        "celeb_a", f"TFDS folder {place}", place, image_size, key, n_pictures, items, bytes, arrange
    )


@contextlib.contextmanager
def _tfds_errors(place):
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever TensorFlow and protobuf raise on damaged files
        raise UserError(f"The TFDS folder {place} of celeb_a cannot be read: {first_line(error)}") from None

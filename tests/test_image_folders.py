"""Folders of pictures, and CelebA in the layout of its distribution."""

import errno
import json
import os
import shlex
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import ROOT

import main
from data import ATTRIBUTE_DATASETS, DATASETS, RESIZED, image_folder
from data.image_folder import find_images, folder_classes, three_splits
from data.loading import DataNotFound, load_data
from models import load_model
from training.settings import Config
from utils.errors import UserError

N = 40
HEIGHT, WIDTH = 218, 178
SPLITS = np.array([0] * 30 + [1] * 4 + [2] * 6)
ATTRIBUTES = np.random.default_rng(1).integers(0, 2, (N, 40))
ATTRIBUTE_NAMES = [f"Attribute_{index:02}" for index in range(40)]
IMAGES = "img_align_celeba"
ATTRIBUTE_LIST, PARTITION_LIST = "list_attr_celeba.txt", "list_eval_partition.txt"


def picture(index, height=HEIGHT, width=WIDTH):
    """A smooth RGB picture, uint8 (H, W, 3): red grows downwards, green rightwards, blue is the index."""
    rows, columns = np.indices((height, width))
    channels = [rows * 255 // height, columns * 255 // width, np.full_like(rows, 3 * index % 256)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def write_picture(path, rgb):
    path.parent.mkdir(parents=True, exist_ok=True)
    # cv2 would choose the format by a suffix in small letters only.
    suffix = path.suffix.lower()
    quality = [cv2.IMWRITE_JPEG_QUALITY, 98] if suffix in (".jpg", ".jpeg") else []
    path.write_bytes(cv2.imencode(suffix, np.ascontiguousarray(rgb[..., ::-1]), quality)[1].tobytes())


def write_pictures(folder, count, suffix=".png", **size):
    for index in range(count):
        write_picture(folder / f"{index:03}{suffix}", picture(index, **size))


def names():
    return [f"{index + 1:06}.jpg" for index in range(N)]


def attribute_text(attributes=ATTRIBUTES):
    """The list as distributed: the numbers are padded to the width of -1."""
    rows = [
        f"{name} " + " ".join(f"{2 * bit - 1:2}" for bit in row)
        for name, row in zip(names(), attributes, strict=True)
    ]
    return "\n".join([str(N), " ".join(ATTRIBUTE_NAMES) + " ", *rows]) + "\n"


def partition_text(splits=SPLITS):
    return "".join(f"{name} {split}\n" for name, split in zip(names(), splits, strict=True))


@pytest.fixture(scope="session")
def original_celeb_a(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    for index, name in enumerate(names()):
        write_picture(folder / IMAGES / name, picture(index))
    (folder / ATTRIBUTE_LIST).write_text(attribute_text())
    (folder / PARTITION_LIST).write_text(partition_text())
    return folder


@pytest.fixture
def celeb_a(original_celeb_a, tmp_path):
    """A folder in CelebA's layout, with 40 images, to be damaged as a test likes."""
    return shutil.copytree(original_celeb_a, tmp_path / "celeb")


@pytest.fixture
def folder(tmp_path):
    """36 pictures without classes."""
    write_pictures(tmp_path / "pictures", 36, height=20, width=30)
    return tmp_path / "pictures"


@pytest.fixture
def decoded(monkeypatch):
    """Counts the pictures that are decoded: a list that grows by one for each."""
    calls, real = [], image_folder.square

    def counted(content, image_size):
        calls.append(len(content))
        return real(content, image_size)

    monkeypatch.setattr(image_folder, "square", counted)
    return calls


def refusal(name, data_dir, **kwargs):
    with pytest.raises(UserError) as caught:
        load_data(name, str(data_dir), **kwargs)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def splits_of(data):
    return [
        (data.train_images, data.train_labels),
        (data.validation_images, data.validation_labels),
        (data.test_images, data.test_labels),
    ]


def assert_equal_data(a, b):
    for (images, labels), (other_images, other_labels) in zip(splits_of(a), splits_of(b), strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)
    assert a.describe() == b.describe()
    assert a.label_names == b.label_names


def area_average(image, size):
    """An independent area interpolation: float (S, S, C), each pixel the mean over its share of the image."""
    side = len(image)
    edges = np.arange(size + 1) * side / size
    # How much of every source pixel lies between two edges.
    pixels = np.arange(side)
    overlap = np.clip(np.minimum(pixels + 1, edges[1:, None]) - np.maximum(pixels, edges[:-1, None]), 0, None)
    weights = overlap / overlap.sum(axis=1, keepdims=True)
    return np.einsum("yi,xj,ijc->yxc", weights, weights, image.astype(float), optimize=True)


# CelebA


@pytest.mark.parametrize("image_size", [32, 50])
def test_celeb_a_is_cut_from_the_middle_and_resized_by_areas(celeb_a, image_size):
    data = load_data("celeb_a", str(celeb_a), image_size)
    assert data.image_shape == (image_size, image_size, 3)
    images = np.concatenate([images for images, _ in splits_of(data)])
    assert images.dtype == np.uint8
    for index, image in enumerate(images):
        expected = area_average(picture(index)[20:198], image_size)
        # JPEG changes the smooth pictures a little; other rows or channels would differ by far more.
        np.testing.assert_allclose(image, expected, atol=3)


def test_celeb_a_has_its_official_splits_and_attributes(celeb_a):
    data = load_data("celeb_a", str(celeb_a))
    for number, (images, labels) in enumerate(splits_of(data)):
        np.testing.assert_array_equal(labels, ATTRIBUTES[number == SPLITS])
        assert labels.dtype == np.uint8
        assert len(images) == len(labels)
    assert (data.name, data.n_classes, data.has_attributes) == ("celeb_a", 40, True)
    assert data.label_names == tuple(ATTRIBUTE_NAMES)
    assert data.describe()["named_labels"] == 40
    json.dumps(data.describe())


def test_splits_need_not_be_sorted(celeb_a):
    splits = np.random.default_rng(2).permutation(SPLITS)
    (celeb_a / PARTITION_LIST).write_text(partition_text(splits))
    data = load_data("celeb_a", str(celeb_a))
    for number, (images, labels) in enumerate(splits_of(data)):
        own = np.flatnonzero(splits == number)
        np.testing.assert_array_equal(labels, ATTRIBUTES[own])
        # Blue tells which picture it is.
        np.testing.assert_allclose(images[..., 2].mean(axis=(1, 2)), 3 * own, atol=2)


@pytest.mark.parametrize("place", [".", "celeb_a", "celeba", "CelebA"])
@pytest.mark.parametrize("layout", ["flat", "sorted"])
def test_places_of_celeb_a(celeb_a, tmp_path, place, layout):
    if layout == "sorted":
        for folder, name in (("Img", IMAGES), ("Anno", ATTRIBUTE_LIST), ("Eval", PARTITION_LIST)):
            (celeb_a / folder).mkdir()
            (celeb_a / name).rename(celeb_a / folder / name)
    (tmp_path / "data").mkdir()
    celeb_a.rename(tmp_path / "data" / place if place != "." else tmp_path / "here")
    data = load_data("celeb_a", str(tmp_path / ("here" if place == "." else "data")))
    assert len(data.train_images) == 30


def test_celeb_a_in_the_usual_places(celeb_a, tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()
    celeb_a.rename(tmp_path / "datasets" / "celeb_a")
    monkeypatch.chdir(tmp_path)
    assert len(load_data("celeb_a").test_images) == 6


def test_without_celeb_a_a_line_says_what_to_put_where(tmp_path):
    with pytest.raises(DataNotFound) as caught:
        load_data("celeb_a", str(tmp_path))
    for part in (str(tmp_path), IMAGES, ATTRIBUTE_LIST, PARTITION_LIST, "--data_dir"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [IMAGES, ATTRIBUTE_LIST, PARTITION_LIST])
def test_a_part_of_celeb_a_missing(celeb_a, name):
    (celeb_a / name).rename(celeb_a / "elsewhere")
    message = refusal("celeb_a", celeb_a)
    assert name in message
    assert "missing" in message


ROW = attribute_text().split("\n")[2]
BAD_ATTRIBUTE_LISTS = {
    "another count": (lambda text: text.replace("40\n", "41\n", 1), "41"),
    "a line less": (lambda text: text[: text.rindex("000040.jpg")], "39 lines"),
    "no count": (lambda text: text.split("\n", 1)[1], "line 1"),
    "a missing name": (lambda text: text.replace(ATTRIBUTE_NAMES[3], "", 1), "line 2"),
    "a name twice": (lambda text: text.replace(ATTRIBUTE_NAMES[3], ATTRIBUTE_NAMES[4], 1), "line 2"),
    "41 names, one twice": (
        lambda text: text.replace(ATTRIBUTE_NAMES[3], f"{ATTRIBUTE_NAMES[4]} x", 1),
        "41 names",
    ),
    "a missing column": (lambda text: text.replace(ROW, ROW[:-3]), "line 3 has 39"),
    "an additional column": (lambda text: text.replace(ROW, ROW + "  1"), "line 3 has 41"),
    "an empty line": (lambda text: text.replace(ROW, ""), "line 3 has 0"),
    "a zero": (lambda text: text.replace(ROW, ROW[:-2] + " 0"), "line 3 has '0'"),
    "a word": (lambda text: text.replace(ROW, ROW[:-2] + " yes"), "line 3 has 'yes'"),
    "an unknown image": (lambda text: text.replace("000007.jpg", "../../7.jpg"), "'../../7.jpg'"),
    "an image twice": (lambda text: text.replace("000007.jpg", "000008.jpg"), "once"),
    "empty": (lambda text: "", "line 1"),
    "one line": (lambda text: "0", "line 2"),
    "no text": (lambda text: b"\xff\xd8\xff\xe0\x00\x10JFIF" * 20, "no text"),
    "zeros": (lambda text: bytes(10_000), "line 1"),
    "packed": (lambda text: b"\x1f\x8b\x08" + bytes(range(256)), "no text"),
}


@pytest.mark.parametrize(("damage", "mentioned"), BAD_ATTRIBUTE_LISTS.values(), ids=BAD_ATTRIBUTE_LISTS)
def test_bad_attribute_lists(celeb_a, decoded, damage, mentioned):
    content = damage(attribute_text())
    (celeb_a / ATTRIBUTE_LIST).write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refusal("celeb_a", celeb_a)
    assert ATTRIBUTE_LIST in message
    assert mentioned in message
    assert len(message) < 300 + len(str(celeb_a))
    assert not decoded


BAD_PARTITION_LISTS = {
    "another split": (lambda text: text.replace("000007.jpg 0", "000007.jpg 3"), "line 7"),
    "no split": (lambda text: text.replace("000007.jpg 0", "000007.jpg"), "line 7"),
    "too many columns": (lambda text: text.replace("000007.jpg 0", "000007.jpg 0 0"), "line 7"),
    "an empty line": (lambda text: text.replace("000007.jpg 0", ""), "line 7"),
    "a long line": (lambda text: text.replace("000007.jpg 0", "x" * 10**6), "line 7"),
    "an image twice": (lambda text: text.replace("000007.jpg", "000006.jpg"), "once"),
    "an unknown image": (lambda text: text.replace("000007.jpg", "000099.jpg"), "000099.jpg"),
    "a line less": (lambda text: text[: text.rindex("000040.jpg")], "000040.jpg"),
    "no test image": (lambda text: text.replace(".jpg 2", ".jpg 0"), "test"),
    "empty": (lambda text: "", "line 1"),
    "no text": (lambda text: b"\xff\xd8\xff\xe0" * 20, "no text"),
}


@pytest.mark.parametrize(("damage", "mentioned"), BAD_PARTITION_LISTS.values(), ids=BAD_PARTITION_LISTS)
def test_bad_partition_lists(celeb_a, damage, mentioned):
    content = damage(partition_text())
    (celeb_a / PARTITION_LIST).write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refusal("celeb_a", celeb_a)
    assert mentioned in message
    assert len(message) < 300 + 2 * len(str(celeb_a))


@pytest.mark.parametrize("name", [ATTRIBUTE_LIST, PARTITION_LIST])
def test_a_list_that_is_a_pipe_or_too_large(celeb_a, name):
    (celeb_a / name).unlink()
    os.mkfifo(celeb_a / name)
    assert name in refusal("celeb_a", celeb_a)
    (celeb_a / name).unlink()
    with open(celeb_a / name, "wb") as file:
        file.truncate(33 * 2**20)
    assert name in refusal("celeb_a", celeb_a)


def test_lists_with_other_line_ends(celeb_a, original_celeb_a):
    for name in (ATTRIBUTE_LIST, PARTITION_LIST):
        text = (celeb_a / name).read_text()
        (celeb_a / name).write_bytes(text.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    np.testing.assert_array_equal(load_data("celeb_a", str(celeb_a)).test_labels, ATTRIBUTES[SPLITS == 2])


def test_a_listed_image_that_is_missing(celeb_a):
    (celeb_a / IMAGES / "000012.jpg").unlink()
    assert "'000012.jpg'" in refusal("celeb_a", celeb_a)


def test_images_that_are_not_listed_are_counted(celeb_a, capsys):
    write_picture(celeb_a / IMAGES / "000041.jpg", picture(0))
    assert len(load_data("celeb_a", str(celeb_a)).train_images) == 30
    assert "1 images" in capsys.readouterr().out


def test_unreadable_images_of_celeb_a_are_left_out_with_their_attributes(celeb_a, capsys):
    (celeb_a / IMAGES / "000003.jpg").write_bytes(b"nothing")
    data = load_data("celeb_a", str(celeb_a))
    np.testing.assert_array_equal(data.train_labels, np.delete(ATTRIBUTES[SPLITS == 0], 2, axis=0))
    np.testing.assert_allclose(data.train_images[2, ..., 2].mean(), 9, atol=2)
    assert "'000003.jpg'" in capsys.readouterr().out


@pytest.fixture(scope="module")
def prepared_tfds(tmp_path_factory):
    """The same 40 images as TFDS prepares them: celeb_a/2.1.0/."""
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(HEIGHT, WIDTH, 3), encoding_format="jpeg"),
            "attributes": dict.fromkeys(ATTRIBUTE_NAMES, np.bool_),
        }
    )
    splits = {}
    for number, split in enumerate(["train", "validation", "test"]):
        splits[split] = [
            (
                int(index),
                {
                    "image": picture(index),
                    "attributes": dict(zip(ATTRIBUTE_NAMES, ATTRIBUTES[index].astype(bool), strict=True)),
                },
            )
            for index in np.flatnonzero(number == SPLITS)
        ]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="celeb_a", version="2.1.0", features=features, split_datasets=splits, data_dir=folder
    )
    return folder


def test_celeb_a_prepared_by_tfds(prepared_tfds, tmp_path, decoded):
    prepared = shutil.copytree(prepared_tfds, tmp_path / "prepared")
    data = load_data("celeb_a", str(prepared))
    assert "TFDS" in data.source
    assert data.label_names == tuple(ATTRIBUTE_NAMES)
    for number, (images, labels) in enumerate(splits_of(data)):
        # TFDS shuffles the examples when it prepares them; blue tells which is which.
        own = np.rint(images[..., 2].mean(axis=(1, 2)) / 3).astype(int)
        np.testing.assert_array_equal(np.sort(own), np.flatnonzero(number == SPLITS))
        np.testing.assert_array_equal(labels, ATTRIBUTES[own])
        for index, image in zip(own, images, strict=True):
            # TFDS has stored the pictures at a lower quality.
            np.testing.assert_allclose(image, area_average(picture(index)[20:198], 32), atol=8)
    assert len(decoded) == N
    assert_equal_data(load_data("celeb_a", str(prepared)), data)
    assert len(decoded) == N


def test_damaged_tfds_folder_of_celeb_a(prepared_tfds, tmp_path):
    prepared = shutil.copytree(prepared_tfds, tmp_path / "prepared")
    records = next((prepared / "celeb_a" / "2.1.0").glob("*train.tfrecord*"))
    records.write_bytes(records.read_bytes()[:-9])
    assert "TFDS folder" in refusal("celeb_a", prepared)


# Folders


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".png", ".bmp", ".webp", ".JPG", ".PnG"])
def test_picture_formats(tmp_path, suffix):
    write_pictures(tmp_path, 12, suffix, height=40, width=60)
    data = load_data("folder", str(tmp_path), 16)
    assert [len(images) for images, _ in splits_of(data)] == [10, 1, 1]
    images = np.concatenate([images for images, _ in splits_of(data)])
    for image in images:
        index = round(image[..., 2].mean() / 3)
        expected = area_average(picture(index, 40, 60)[:, 10:50], 16)
        np.testing.assert_allclose(image, expected, atol=10 if suffix == ".webp" else 5)


@pytest.mark.parametrize(("height", "width"), [(31, 50), (50, 31), (16, 16), (5, 9), (1, 1)])
def test_any_shape_becomes_a_square(tmp_path, height, width):
    write_pictures(tmp_path, 3, height=height, width=width)
    assert load_data("folder", str(tmp_path), 16).image_shape == (16, 16, 3)


def test_grey_and_transparent_pictures_become_rgb(tmp_path):
    grey = np.full((20, 20), 77, np.uint8)
    for index, image in enumerate([grey, grey.astype(np.uint16) * 257, np.dstack([grey] * 3 + [grey * 0])]):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    data = load_data("folder", str(tmp_path), 16)
    for images, _ in splits_of(data):
        np.testing.assert_array_equal(images, np.full((1, 16, 16, 3), 77))


def test_subfolders_are_classes(tmp_path):
    for name, count in {"dog": 24, "cat": 36, "bird": 12}.items():
        write_pictures(tmp_path / name / "more", count, height=16, width=16)
    (tmp_path / "empty").mkdir()
    data = load_data("folder", str(tmp_path), 16)
    assert (data.n_classes, data.label_names, data.has_attributes) == (3, ("bird", "cat", "dog"), False)
    assert [np.bincount(labels).tolist() for _, labels in splits_of(data)] == [
        [10, 30, 20],
        [1, 3, 2],
        [1, 3, 2],
    ]
    assert data.train_labels.dtype == np.uint8


def test_labels_stay_with_their_pictures(tmp_path):
    for label in range(3):
        for index in range(12):
            write_picture(
                tmp_path / f"class {label}" / f"{index}.png", np.full((8, 8, 3), 50 * label, np.uint8)
            )
    for images, labels in splits_of(load_data("folder", str(tmp_path), 8)):
        np.testing.assert_array_equal(images.max(axis=(1, 2, 3)), 50 * labels)


@pytest.mark.parametrize(
    "names",
    [
        ["a.png", "b.png", "c.png"],
        ["only/a.png", "only/b.png", "only/c.png"],
        ["a.png", "x/b.png", "y/c.png"],
    ],
    ids=["no subfolder", "one subfolder", "pictures beside subfolders"],
)
def test_a_single_class(tmp_path, names):
    for name in names:
        write_picture(tmp_path / name, picture(1, 16, 16))
    data = load_data("folder", str(tmp_path), 16)
    assert (data.n_classes, data.label_names, data.train_labels.tolist()) == (1, (), [0])
    assert "named_labels" not in data.describe()


def test_more_subfolders_than_labels_are_one_class(capsys):
    labels, classes = folder_classes([f"{index}/a.png" for index in range(257)])
    assert (labels.max(), classes) == (0, [])
    assert "257" in capsys.readouterr().out
    labels, classes = folder_classes([f"{index:03}/a.png" for index in range(256)])
    assert labels.tolist() == list(range(256))


@pytest.mark.parametrize("count", [3, 11, 12, 100])
def test_three_splits_are_disjoint_and_deterministic(count):
    labels = np.sort(np.arange(count, dtype=np.uint8) % 3)
    splits = three_splits(labels)
    share = max(1, count // 12)
    assert np.bincount(splits).tolist() == [count - 2 * share, share, share]
    np.testing.assert_array_equal(splits, three_splits(labels))


def test_hidden_and_other_files_are_no_pictures(folder):
    for name in (".hidden.png", "notes.txt", "png", "movie.gif", ".thumbnails/a.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"nothing")
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    assert len(find_images(folder)) == 36


def test_links_out_of_the_folder_are_not_followed(folder, tmp_path, capsys):
    write_pictures(tmp_path / "private", 2)
    (folder / "escape.png").symlink_to(tmp_path / "private" / "000.png")
    (folder / "relative.png").symlink_to("../private/001.png")
    (folder / "below").symlink_to(tmp_path / "private")
    (folder / "round").symlink_to(folder)
    (folder / "self.png").symlink_to("self.png")
    (folder / "within.png").symlink_to("000.png")
    found = {name for name, _, _ in find_images(folder)}
    assert found == {f"{index:03}.png" for index in range(36)} | {"within.png"}
    assert "5 symbolic links" in capsys.readouterr().out


def test_the_folder_itself_may_be_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert len(load_data("folder", str(tmp_path / "link"), 16).train_images) == 30


def test_unreadable_files_are_named_and_counted(folder, capfd):
    good = (folder / "020.png").read_bytes()
    bad = {
        0: b"",
        # A width that libpng finds too large.
        1: good[:16] + bytes([99]) + good[17:],
        2: good[: len(good) // 2],
        3: good[:-1],
        4: b"\xff\xd8\xff",
        5: bytes(999),
        6: b"BM",
    }
    for index, content in bad.items():
        (folder / f"{index:03}.png").write_bytes(content)
    for _ in ("decoded", "cached"):
        data = load_data("folder", str(folder), 16)
        assert sum(len(images) for images, _ in splits_of(data)) == 29
        output = capfd.readouterr()
        assert "7 of 36" in output.out
        assert [f"{index:03}.png" in output.out for index in range(7)] == [True] * 5 + [False] * 2
        assert "2 more" in output.out
        assert output.err == ""


def test_names_that_are_no_text_can_be_reported(folder, capsys):
    with open(os.fsencode(folder) + b"/\xff\n.png", "wb") as file:
        file.write(b"nothing")
    for _ in ("decoded", "cached"):
        load_data("folder", str(folder), 16)
        output = capsys.readouterr().out
        assert "\\udcff\\n.png" in output
        assert "damaged" not in output
        output.encode()


def test_files_that_are_too_large_are_unreadable(folder, monkeypatch, capsys):
    monkeypatch.setattr(image_folder, "MAX_FILE_BYTES", 10_000)
    with open(folder / "000.png", "ab") as file:
        file.write(bytes(10_000))
    assert load_data("folder", str(folder), 16).train_images[..., 2].min() > 0
    output = capsys.readouterr().out
    assert "1 of 36 images" in output
    assert "'000.png'" in output


@pytest.mark.parametrize("n_good", [0, 2])
def test_nothing_left(folder, n_good):
    for index in range(n_good, 36):
        (folder / f"{index:03}.png").write_bytes(b"nothing")
    message = refusal("folder", folder)
    assert f"{n_good} of 36" in message
    assert not list(folder.glob("*.npz"))


def test_an_empty_folder_and_no_folder(tmp_path):
    assert ".jpg" in refusal("folder", tmp_path)
    assert "--data_dir" in refusal("folder", "")


def test_an_array_larger_than_the_memory(folder, monkeypatch):
    def empty(*args):
        raise MemoryError

    monkeypatch.setattr(image_folder.np, "empty", empty)
    assert "--image_size" in refusal("folder", folder)


# The cache


SETS = ["folder", "celeb_a"]


@pytest.fixture(params=SETS)
def data_set(request):
    """Name, folder and image files of each kind of data set."""
    place = request.getfixturevalue(request.param)
    images = sorted(place.glob("*.png") if request.param == "folder" else place.glob(f"{IMAGES}/*.jpg"))
    return request.param, place, images


def test_the_second_start_decodes_nothing(data_set, decoded):
    name, place, images = data_set
    first = load_data(name, str(place), 16)
    assert len(decoded) == len(images)
    assert [path.name for path in place.glob("*.npz")] == [f"aae_{name}_16.npz"]
    assert_equal_data(load_data(name, str(place), 16), first)
    assert len(decoded) == len(images)
    # Nothing half-written, and nothing that needs pickle.
    assert not list(place.rglob("*tmp*"))
    with np.load(place / f"aae_{name}_16.npz", allow_pickle=False) as archive:
        assert all(archive[key].dtype != object for key in archive.files)


def test_a_cache_moves_with_its_folder(data_set, decoded, tmp_path):
    name, place, _ = data_set
    load_data(name, str(place), 16)
    decoded.clear()
    load_data(name, str(place.rename(tmp_path / "moved")), 16)
    assert not decoded


def replace_image(place, images):
    write_picture(images[0], picture(80, 50, 50))


def touch_image(place, images):
    os.utime(images[0], ns=(0, 0))


def rename_image(place, images):
    images[0].rename(images[0].with_name("renamed" + images[0].suffix))


@pytest.mark.parametrize("change", [replace_image, touch_image, rename_image])
def test_a_stale_cache_is_made_anew(folder, decoded, change):
    load_data("folder", str(folder), 16)
    change(folder, sorted(folder.glob("*.png")))
    decoded.clear()
    data = load_data("folder", str(folder), 16)
    assert len(decoded) == 36
    decoded.clear()
    assert_equal_data(load_data("folder", str(folder), 16), data)
    assert not decoded


def test_a_replaced_image_is_seen(celeb_a):
    before = load_data("celeb_a", str(celeb_a), 16)
    write_picture(celeb_a / IMAGES / "000001.jpg", picture(80))
    after = load_data("celeb_a", str(celeb_a), 16)
    assert abs(after.train_images[0, ..., 2].mean() - 240) < 3
    np.testing.assert_array_equal(after.train_images[1:], before.train_images[1:])


def test_changed_lists_are_seen(celeb_a):
    load_data("celeb_a", str(celeb_a), 16)
    (celeb_a / PARTITION_LIST).write_text(partition_text(2 - SPLITS))
    assert len(load_data("celeb_a", str(celeb_a), 16).train_images) == 6
    (celeb_a / ATTRIBUTE_LIST).write_text(attribute_text(1 - ATTRIBUTES))
    assert load_data("celeb_a", str(celeb_a), 16).test_labels[0].tolist() == (1 - ATTRIBUTES[0]).tolist()


def test_each_size_has_its_own_cache(folder, decoded):
    for size in (16, 20, 16, 20):
        assert load_data("folder", str(folder), size).image_shape == (size, size, 3)
    assert len(decoded) == 72


def test_another_format_is_made_anew(folder, decoded, monkeypatch):
    load_data("folder", str(folder), 16)
    monkeypatch.setattr("data.image_cache.FORMAT", 99)
    load_data("folder", str(folder), 16)
    assert len(decoded) == 72


def rewrite(path, **changes):
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})


class Opens:
    """Its unpickling would leave a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


CACHE_DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "garbage": lambda path: path.write_bytes(bytes(range(256)) * 9),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-99]),
    "flipped bits": lambda path: path.write_bytes(
        path.read_bytes().replace((c := path.read_bytes())[9000:9020], bytes(255 - b for b in c[9000:9020]))
    ),
    "no images": lambda path: rewrite(path, images=None),
    "no key": lambda path: rewrite(path, key=None),
    "another shape": lambda path: rewrite(path, images=np.zeros((36, 8, 8, 3), np.uint8)),
    "another type": lambda path: rewrite(path, images=np.zeros((36, 16, 16, 3))),
    "too few labels": lambda path: rewrite(path, labels=np.zeros(3, np.uint8)),
    "pickles": lambda path: rewrite(path, images=np.array([Opens(path.with_name("opened"))], object)),
    "labels out of range": lambda path: rewrite(path, labels=np.full(36, 7, np.uint8)),
    "splits in disorder": lambda path: rewrite(path, splits=np.tile(np.arange(3, dtype=np.uint8), 12)),
    "names without a size": lambda path: rewrite(path, label_names=np.zeros(10**6, "V0")),
    "compressed": lambda path: np.savez_compressed(path, images=np.zeros(10**6, np.uint8)),
}


@pytest.mark.parametrize("damage", CACHE_DAMAGES.values(), ids=CACHE_DAMAGES)
def test_a_damaged_cache_is_made_anew(folder, decoded, capsys, damage):
    first = load_data("folder", str(folder), 16)
    path = folder / "aae_folder_16.npz"
    damage(path)
    decoded.clear()
    assert_equal_data(load_data("folder", str(folder), 16), first)
    assert len(decoded) == 36
    assert "damaged" in capsys.readouterr().out
    load_data("folder", str(folder), 16)
    assert len(decoded) == 36
    assert not (folder / "opened").exists()


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_has_no_cache(folder, monkeypatch, capsys, code):
    def refuse(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(np, "savez", refuse)
    assert len(load_data("folder", str(folder), 16).train_images) == 30
    lines = capsys.readouterr().out.splitlines()
    assert [os.strerror(code) in line for line in lines].count(True) == 1
    assert len(list(folder.iterdir())) == 36


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_a_read_only_folder(folder, capsys):
    folder.chmod(0o555)
    try:
        assert len(load_data("folder", str(folder), 16).train_images) == 30
    finally:
        folder.chmod(0o755)
    assert "No cache" in capsys.readouterr().out


def test_a_folder_in_the_place_of_the_cache(folder, capsys):
    (folder / "aae_folder_16.npz").mkdir()
    assert len(load_data("folder", str(folder), 16).train_images) == 30
    assert "No cache" in capsys.readouterr().out


# Flags and runs


@pytest.mark.parametrize("name", ["celeb_a", "CelebA", "celeba", "Celeb-A", "CELEBA"])
def test_spellings_of_celeb_a(name):
    assert main.read_config(["main.py", "--data", name]).data == "celeb_a"


def test_the_size_has_limits():
    assert Config().image_size == 32
    for size in (8, 512):
        words = ["--data=folder", "--model=unsupervised", f"--image_size={size}"]
        assert main.read_config(["main.py", *words]).image_size == size
    for size in (-1, 0, 7, 513):
        with pytest.raises(UserError, match=r"image_size.*8 to 512"):
            main.read_config(["main.py", f"--image_size={size}"])


def test_tables_name_data_sets():
    assert set(DATASETS) >= RESIZED >= ATTRIBUTE_DATASETS


def main_with(line, data_dir, run_dir):
    words = ["--data_dir", str(data_dir), "--run_dir", str(run_dir), *shlex.split(line)]
    return main.main(["main.py", *words])


@pytest.mark.parametrize("model", ["supervised", "semi_supervised"])
def test_models_with_classes_refuse_attributes_at_once(celeb_a, tmp_path, capsys, decoded, model):
    assert main_with(f"--data celeb_a --model {model}", celeb_a, tmp_path / "run") == 2
    output = capsys.readouterr()
    assert "--model conditional or unsupervised" in output.err
    assert output.err.count("\n") == 1
    assert not decoded
    assert not (tmp_path / "run").exists()


def test_any_data_with_attributes_is_refused_by_them(celeb_a, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("training.run.ATTRIBUTE_DATASETS", set())
    assert main_with("--data celeb_a --model supervised", celeb_a, tmp_path / "run") == 2
    assert "--model conditional or unsupervised" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--PARR", "--PARR draws every class; celeb_a has attributes"),
        ("--PMLR --n_z 2", "--PMLR draws every class; celeb_a has attributes"),
        ("--likelihood", "--likelihood needs samples of every class; celeb_a has attributes"),
        ("--network conv --image_size 50", "multiples of 4; these have 50 x 50 pixels"),
    ],
)
def test_what_pictures_do_not_allow_is_refused_before_they_are_decoded(
    celeb_a, tmp_path, capsys, decoded, flags, message
):
    assert main_with(f"--data celeb_a --model conditional {flags}", celeb_a, tmp_path / "run") == 2
    assert message in capsys.readouterr().err
    assert not decoded
    assert not (tmp_path / "run").exists()


def test_a_bad_list_ends_the_program_in_one_line(celeb_a, tmp_path, capsys):
    (celeb_a / PARTITION_LIST).write_bytes(b"\xff\xfe\x00")
    assert main_with("--data celeb_a --model unsupervised", celeb_a, tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert error.startswith("main.py: error: ")
    assert error.count("\n") == 1


def test_readers_import_no_tensorflow_and_limit_opencv(folder):
    bomb = np.zeros((10_001, 10_000), np.uint8)
    (folder / "bomb.png").write_bytes(cv2.imencode(".png", bomb)[1].tobytes())
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import training.run, data.celeba, data.image_folder\n"
        "assert 'cv2' not in sys.modules\n"
        "from data.loading import load_data; load_data('folder', sys.argv[2], 16)\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV")}
    result = subprocess.run(
        [sys.executable, "-c", code, str(ROOT), str(folder)], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "1 of 37" in result.stdout
    assert "'bomb.png'" in result.stdout


TINY = "--n_hidden 16 --n_epoch 1 --image_size 8 --prior gaussian"


def test_a_run_on_a_folder(tmp_path):
    write_pictures(tmp_path / "pictures", 160, height=10, width=12)
    line = f"--model unsupervised --data folder {TINY} --n_z 4"
    assert main_with(line, tmp_path / "pictures", tmp_path / "run") == 0
    for name in ("reconstructions.png", "samples.png", "curves.png"):
        assert cv2.imread(str(tmp_path / "run" / "plots" / name)).std() > 5, name
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["flags"]["data"] == config["data"]["name"] == "folder"
    assert config["data"]["image_shape"] == [8, 8, 3]
    # flags.txt repeats the run, and it can be resumed.
    again = ["main.py", f"--flagfile={tmp_path / 'run' / 'flags.txt'}", "--run_dir", str(tmp_path / "again")]
    assert main.read_config(again).image_size == 8
    assert main.main(["main.py", "--resume", "--run_dir", str(tmp_path / "run"), "--n_epoch", "2"]) == 0


@pytest.mark.slow
def test_a_supervised_run_on_class_folders(tmp_path):
    for name in ("a", "b", "c"):
        write_pictures(tmp_path / "pictures" / name, 16, height=10, width=12)
    line = f"--model supervised --data folder {TINY} --n_z 2 --batch_size 8"
    assert main_with(line, tmp_path / "pictures", tmp_path / "run") == 0


def test_a_run_on_celeb_a(celeb_a, tmp_path):
    line = f"--model unsupervised --data celeb_a {TINY} --n_z 2 --PMLR --batch_size 8"
    assert main_with(line, celeb_a, tmp_path / "run") == 0
    assert cv2.imread(str(tmp_path / "run" / "plots" / "codes.png")).std() > 5
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["n_classes"] == config["data"]["named_labels"] == 40


@pytest.mark.slow
def test_the_second_seeds_scenario_on_celeb_a(celeb_a, tmp_path):
    """With small networks: attributes reach the decoder, and each gets a row of the animation."""
    flag_file = ROOT / "configs" / "freiburg_5_celeba_conv_y.flags"
    line = (
        f"--flagfile={flag_file} --conv_widths 4,8,8 --d_hidden 16 --image_size 16 --n_epoch 2 --batch_size 8"
    )
    assert main_with(line, celeb_a, tmp_path / "run") == 0
    plots = tmp_path / "run" / "plots"
    for name in ("reconstructions.png", "styles.png"):
        assert cv2.imread(str(plots / name)).std() > 5
    # Names of 105 pixels stand beside the rows of attributes.
    for name, height, width in (("traversal.png", 16 * 5, 16 * 10), ("style.png", 16 * 40, 105 + 16 * 6)):
        whole, animation = cv2.imreadanimation(str(plots / "animations" / name))
        assert whole
        assert len(animation.frames) == 20
        assert animation.frames[0].shape[:2] == (height + 16, width)
    model, data = load_model(tmp_path / "run"), load_data("celeb_a", str(celeb_a), 16)
    images, labels = data.test_images, data.test_labels
    flipped = np.abs(model.reconstruct(images, 1 - labels) - model.reconstruct(images, labels))
    assert flipped.max() > 0.005

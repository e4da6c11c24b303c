import contextlib
import gzip
import io
import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from conftest import ROOT, needs_mnist

import main
from data import loading, readers
from data import own as own_data
from data.image_data import ImageData, balanced_choice, stratified_choice
from data.loading import DataNotFound, load_data
from data.pipeline import evaluation_batches, training_batches
from data.readers import CIFAR_RECORD
from utils.errors import UserError

REAL_REACHABLE = loading._reachable  # the other tests replace it
N_TRAIN, N_TEST = 24, 12
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Without this, a data set that a test fails to find would be downloaded."""
    monkeypatch.setattr(loading, "_reachable", lambda host: False)


def arrays(count):
    """Random images uint8 (count, 28, 28) and labels uint8 (count,)."""
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), np.uint8)
    return images, np.arange(count, dtype=np.uint8) % 10


def idx_bytes(array):
    magic = {1: 2049, 3: 2051}[array.ndim]
    return struct.pack(f">{1 + array.ndim}I", magic, *array.shape) + array.tobytes()


def write_idx(folder, compress=False, spelling="-idx", **replaced):
    """Writes an IDX set; `replaced` maps roles to arrays or to whole contents."""
    roles = {
        "train_images": (TRAIN_IMAGES, arrays(N_TRAIN)[0]),
        "train_labels": (TRAIN_LABELS, arrays(N_TRAIN)[1]),
        "test_images": (TEST_IMAGES, arrays(N_TEST)[0]),
        "test_labels": (TEST_LABELS, arrays(N_TEST)[1]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for role, (name, array) in roles.items():
        content = replaced.get(role, array)
        content = content if isinstance(content, bytes) else idx_bytes(content)
        name = name.replace("-idx", spelling)
        if compress:
            (folder / (name + ".gz")).write_bytes(gzip.compress(content, 1))
        else:
            (folder / name).write_bytes(content)


def write_npz(path, **replaced):
    (x_train, y_train), (x_test, y_test) = arrays(N_TRAIN), arrays(N_TEST)
    content = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    content |= replaced
    np.savez(path, **{name: array for name, array in content.items() if array is not None})


def assert_is_the_tiny_set(data):
    """The splits are those of `arrays`, whatever file they came from."""
    splits = [
        (data.train_images, data.train_labels),
        (data.validation_images, data.validation_labels),
        (data.test_images, data.test_labels),
    ]
    assert [len(labels) for _, labels in splits] == [22, 2, N_TEST]
    for images, labels in splits:
        assert images.shape == (len(labels), 28, 28, 1)
        assert images.dtype == labels.dtype == np.uint8
    assert data.image_shape == (28, 28, 1)
    (train_images, train_labels), (test_images, test_labels) = arrays(N_TRAIN), arrays(N_TEST)
    assert pairs(*splits[0]) | pairs(*splits[1]) == pairs(train_images, train_labels)
    assert pairs(*splits[2]) == pairs(test_images, test_labels)


def pairs(images, labels):
    return {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


def refusal(data_dir, name="mnist"):
    """The one line with which a folder is refused."""
    with pytest.raises(UserError) as caught:
        load_data(name, str(data_dir))
    # A DataNotFound would mean that the damaged file was not even looked at.
    assert type(caught.value) is UserError
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


# Finding and reading MNIST files


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("place", [".", "mnist"])
@pytest.mark.parametrize("spelling", ["-idx", ".idx"])
def test_idx_set(tmp_path, compress, place, spelling):
    write_idx(tmp_path / place, compress, spelling)
    data = load_data("mnist", str(tmp_path))
    assert_is_the_tiny_set(data)
    assert data.name == "mnist"
    assert data.note == ""


@pytest.mark.parametrize("place", [".", "mnist"])
def test_npz(tmp_path, place):
    (tmp_path / place).mkdir(exist_ok=True)
    # Labels of other integer types occur.
    write_npz(tmp_path / place / "mnist.npz", y_test=arrays(N_TEST)[1].astype(np.int64))
    assert_is_the_tiny_set(load_data("mnist", str(tmp_path)))


def test_usual_places_are_searched_without_a_data_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_idx(tmp_path / "datasets" / "mnist")
    assert_is_the_tiny_set(load_data("mnist"))


IMAGES, LABELS = arrays(N_TRAIN)
OTHER_MAGIC = struct.pack(">I", 3331)
BAD_IDX = {
    "truncated images": (TRAIN_IMAGES, {"train_images": idx_bytes(IMAGES)[:-1]}),
    "truncated labels": (TRAIN_LABELS, {"train_labels": idx_bytes(LABELS)[:-1]}),
    "header only": (TRAIN_IMAGES, {"train_images": idx_bytes(IMAGES)[:16]}),
    "truncated header": (TRAIN_IMAGES, {"train_images": idx_bytes(IMAGES)[:10]}),
    "truncated magic": (TEST_LABELS, {"test_labels": idx_bytes(LABELS)[:2]}),
    "empty file": (TEST_IMAGES, {"test_images": b""}),
    "trailing bytes": (TEST_IMAGES, {"test_images": idx_bytes(IMAGES[:N_TEST]) + b"\0"}),
    "swapped files": (TRAIN_IMAGES, {"train_images": LABELS, "train_labels": IMAGES}),
    "wrong magic": (TRAIN_IMAGES, {"train_images": OTHER_MAGIC + idx_bytes(IMAGES)[4:]}),
    "wrong magic of labels": (TRAIN_LABELS, {"train_labels": OTHER_MAGIC + idx_bytes(LABELS)[4:]}),
    "fewer labels than images": (TRAIN_LABELS, {"train_labels": LABELS[:-1]}),
    "fewer test images than labels": (TEST_IMAGES, {"test_images": IMAGES[:3]}),
    "no images": (TEST_IMAGES, {"test_images": IMAGES[:0], "test_labels": LABELS[:0]}),
    "label out of range": (TRAIN_LABELS, {"train_labels": LABELS + 1}),
    "wrong image size": (TRAIN_IMAGES, {"train_images": IMAGES[:, :27]}),
    "wrong test image size": (TEST_IMAGES, {"test_images": IMAGES[:N_TEST, :, :14]}),
}


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize(("file_name", "replaced"), BAD_IDX.values(), ids=BAD_IDX)
def test_bad_idx_files_are_refused_by_name(tmp_path, file_name, replaced, compress):
    write_idx(tmp_path, compress, **replaced)
    assert file_name in refusal(tmp_path)


def test_swapped_files_are_recognised_as_such(tmp_path):
    write_idx(tmp_path, train_images=LABELS, train_labels=IMAGES)
    assert "swapped" in refusal(tmp_path)


# The second shape could be a million images of a plausible size, but would be 65 GB.
@pytest.mark.parametrize(
    "shape", [(10**9, 28, 28), (10**6, 256, 256), (2**32 - 1,) * 3], ids=["count", "product", "all"]
)
@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gzipped"])
def test_huge_announcements_are_refused_without_allocating(tmp_path, shape, compress):
    write_idx(tmp_path, compress, train_images=struct.pack(">4I", 2051, *shape) + bytes(100))
    with little_memory():
        assert TRAIN_IMAGES in refusal(tmp_path)


@contextlib.contextmanager
def little_memory(limit=10_000_000):
    """Asserts that Python has not allocated more than `limit` bytes at any time."""
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < limit


def test_a_gzip_bomb_is_not_unpacked(tmp_path):
    write_idx(tmp_path, compress=True)
    path = tmp_path / (TRAIN_IMAGES + ".gz")
    path.write_bytes(gzip.compress(idx_bytes(IMAGES) + bytes(10**8), 1))
    with little_memory():
        assert "too long" in refusal(tmp_path)


@pytest.mark.parametrize("length", [5, 200, -4], ids=["gzip header", "data", "checksum"])
def test_truncated_gzip_stream(tmp_path, length):
    write_idx(tmp_path, compress=True)
    path = tmp_path / (TRAIN_IMAGES + ".gz")
    path.write_bytes(path.read_bytes()[:length])
    assert path.name in refusal(tmp_path)


def test_flipped_bits_in_a_gzip_stream(tmp_path):
    write_idx(tmp_path, compress=True)
    path = tmp_path / (TRAIN_IMAGES + ".gz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    assert path.name in refusal(tmp_path)


def test_gz_file_that_is_not_gzipped(tmp_path):
    write_idx(tmp_path)
    path = tmp_path / TEST_LABELS
    path.rename(tmp_path / (TEST_LABELS + ".gz"))
    assert TEST_LABELS + ".gz" in refusal(tmp_path)


@pytest.mark.parametrize("name", [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS])
def test_one_of_four_files_missing(tmp_path, name):
    write_idx(tmp_path)
    (tmp_path / name).unlink()
    message = refusal(tmp_path)
    assert name in message
    assert "missing" in message


# Bad npz files


class TouchesAFile:
    """Its unpickling would leave a file behind."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("array_name", ["x_train", "y_test"])
def test_pickles_inside_an_npz_are_never_executed(tmp_path, array_name):
    touched = tmp_path / "touched"
    pickled = np.array([TouchesAFile(touched)] * N_TEST, dtype=object)
    write_npz(tmp_path / "mnist.npz", **{array_name: pickled})
    assert "mnist.npz" in refusal(tmp_path)
    assert not touched.exists()


def test_a_pickle_called_npz_is_never_executed(tmp_path):
    touched = tmp_path / "touched"
    (tmp_path / "mnist.npz").write_bytes(pickle.dumps(TouchesAFile(touched)))
    assert "mnist.npz" in refusal(tmp_path)
    assert not touched.exists()


BAD_NPZ = {
    "no training images": {"x_train": None},
    "no test labels": {"y_test": None},
    "float images": {"x_train": IMAGES / 255},
    "flat images": {"x_train": IMAGES.reshape(N_TRAIN, -1)},
    "wrong image size": {"x_test": IMAGES[:N_TEST, :, :14]},
    "float labels": {"y_train": LABELS.astype(float)},
    "one-hot labels": {"y_train": np.eye(10, dtype=np.uint8)[LABELS]},
    "label out of range": {"y_train": LABELS + 1},
    "negative label": {"y_train": LABELS.astype(int) - 1},
    "fewer labels": {"y_train": LABELS[1:]},
    "scalar": {"x_train": np.uint8(3)},
    "no images": {"x_test": IMAGES[:0], "y_test": LABELS[:0]},
}


@pytest.mark.parametrize("replaced", BAD_NPZ.values(), ids=BAD_NPZ)
def test_bad_arrays_in_an_npz(tmp_path, replaced):
    write_npz(tmp_path / "mnist.npz", **replaced)
    assert "mnist.npz" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", idx_bytes(IMAGES)], ids=["empty", "text", "idx"])
def test_npz_that_is_no_zip(tmp_path, content):
    (tmp_path / "mnist.npz").write_bytes(content)
    assert "mnist.npz" in refusal(tmp_path)


def test_npz_that_is_one_npy_array(tmp_path):
    np.save(tmp_path / "mnist.npy", IMAGES)
    (tmp_path / "mnist.npy").rename(tmp_path / "mnist.npz")
    assert "mnist.npz" in refusal(tmp_path)


def test_truncated_npz(tmp_path):
    path = tmp_path / "mnist.npz"
    write_npz(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert "mnist.npz" in refusal(tmp_path)


@pytest.mark.parametrize(
    "member", [b"no array", b"", b"\x93NUMPY\x01\x00\xff\xff{"], ids=["text", "empty", "npy header"]
)
def test_npz_whose_member_is_no_npy_file(tmp_path, member):
    path = tmp_path / "mnist.npz"
    write_npz(path, x_train=None)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x_train.npy", member)
    assert "mnist.npz" in refusal(tmp_path)


# In the central directory's entry of the first member: its flags (bit 0: encrypted) and its
# compression method (99: none that the zipfile module knows).
@pytest.mark.parametrize(("offset", "value"), [(8, 1), (10, 99)], ids=["encrypted", "compression"])
def test_npz_with_a_damaged_zip_directory(tmp_path, offset, value):
    path = tmp_path / "mnist.npz"
    write_npz(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + offset] = value
    path.write_bytes(content)
    assert "mnist.npz" in refusal(tmp_path)


def npy_header(shape, descr="|u1"):
    file = io.BytesIO()
    header = {"shape": shape, "fortran_order": False, "descr": descr}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()


# Items without a size fit in any number.
@pytest.mark.parametrize(
    ("shape", "descr"), [((10**12, 28, 28), "|u1"), ((10**12,), "<U0"), ((-1, 28, 28), "|u1")]
)
def test_npz_whose_header_claims_too_much(tmp_path, shape, descr):
    write_npz(tmp_path / "mnist.npz", x_train=None)
    with zipfile.ZipFile(tmp_path / "mnist.npz", "a") as archive:
        archive.writestr("x_train.npy", npy_header(shape, descr) + bytes(100))
    with little_memory():
        assert "mnist.npz" in refusal(tmp_path)


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    write_npz(tmp_path / "mnist.npz", x_train=None)
    count = 2 * 10**8 // 784
    with (
        zipfile.ZipFile(tmp_path / "mnist.npz", "a", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("x_train.npy", "w") as member,
    ):
        member.write(npy_header((3 * count, 28, 28)))
        for _ in range(3):
            member.write(bytes(count * 784))
    with little_memory():
        assert "unpack to more" in refusal(tmp_path)


def test_npz_with_a_compression_that_reserves_memory(tmp_path):
    write_npz(tmp_path / "whole.npz")
    with (
        zipfile.ZipFile(tmp_path / "whole.npz") as whole,
        zipfile.ZipFile(tmp_path / "mnist.npz", "w", zipfile.ZIP_LZMA) as packed,
    ):
        for name in whole.namelist():
            packed.writestr(name, whole.read(name))
    assert "unusual" in refusal(tmp_path)


def test_npz_that_would_unpack_to_too_much(tmp_path, monkeypatch):
    monkeypatch.setattr("data.readers.MAX_BYTES", 10_000)
    write_npz(tmp_path / "mnist.npz")
    assert "mnist.npz" in refusal(tmp_path)


# What is not there


def test_data_dir_must_be_a_folder(tmp_path):
    assert "absent" in refusal(tmp_path / "absent")
    (tmp_path / "file").touch()
    assert "file" in refusal(tmp_path / "file", "digits")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_an_empty_folder_holds_nothing(tmp_path, name):
    with pytest.raises(DataNotFound) as caught:
        load_data(name, str(tmp_path))
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_auto_falls_back_to_digits_and_says_so(tmp_path, capsys):
    data = load_data("auto", str(tmp_path))
    assert data.name == "digits"
    assert "SUBSTITUTE" in data.note
    assert data.note in capsys.readouterr().out


def test_auto_takes_mnist(tmp_path):
    write_idx(tmp_path)
    data = load_data("auto", str(tmp_path))
    assert data.name == "mnist"
    assert_is_the_tiny_set(data)


def test_auto_does_not_hide_a_damaged_mnist(tmp_path):
    write_idx(tmp_path, train_images=idx_bytes(IMAGES)[:-1])
    assert TRAIN_IMAGES in refusal(tmp_path, "auto")


# The files of MNIST and Fashion-MNIST have the same names.
@pytest.mark.parametrize("place", ["fashion_mnist", "fashion-mnist", "FashionMNIST"])
def test_the_folder_tells_fashion_mnist_and_mnist_apart(tmp_path, place):
    write_idx(tmp_path / place)
    data = load_data("fashion_mnist", str(tmp_path / place))
    assert data.name == "fashion_mnist"
    assert_is_the_tiny_set(data)
    with pytest.raises(DataNotFound):
        load_data("mnist", str(tmp_path / place))


@pytest.mark.parametrize("place", ["fashion_mnist", "fashion-mnist"])
def test_fashion_mnist_is_found_in_its_own_folder(tmp_path, place):
    write_idx(tmp_path / place)
    assert_is_the_tiny_set(load_data("fashion_mnist", str(tmp_path)))


@pytest.mark.parametrize("place", [".", "mnist", "other"])
def test_fashion_mnist_is_not_read_from_other_folders(tmp_path, place):
    # pytest names tmp_path after the test, which has "fashion" in its name.
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (tmp_path / "elsewhere").mkdir()
    write_idx(data_dir / place)
    data_dir = data_dir.rename(tmp_path / "elsewhere" / "data")
    with pytest.raises(DataNotFound):
        load_data("fashion_mnist", str(data_dir))


# CIFAR-10


def write_cifar(folder, **replaced):
    """Two training batches of 12 images and a test batch of 4; the pixels tell their places."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count in {"data_batch_1": 12, "data_batch_2": 12, "test_batch": 4}.items():
        records = np.zeros((count, CIFAR_RECORD), np.uint8)
        records[:, 0] = np.arange(count) % 10
        planes = records[:, 1:].reshape(count, 3, 32, 32)
        planes[:, 0] = np.arange(32)[:, None]  # red is the row
        planes[:, 1] = 100 + np.arange(32)  # green is the column
        planes[:, 2] = np.arange(count)[:, None, None]  # blue is the image
        content = replaced.get(name, records.tobytes())
        if content is not None:
            (folder / f"{name}.bin").write_bytes(content)


@pytest.mark.parametrize("parent", [".", "cifar10"])
@pytest.mark.parametrize("place", [".", "cifar-10-batches-bin"])
def test_cifar10(tmp_path, parent, place):
    write_cifar(tmp_path / parent / place)
    data = load_data("cifar10", str(tmp_path))
    assert data.label_names[3] == "cat"
    assert data.image_shape == (32, 32, 3)
    assert [len(data.train_images), len(data.validation_images)] == [22, 2]
    np.testing.assert_array_equal(data.test_labels, np.arange(4))
    rows, columns = np.indices((32, 32))
    for index, image in enumerate(data.test_images):
        expected = np.stack([rows, 100 + columns, np.full((32, 32), index)], axis=-1)
        np.testing.assert_array_equal(image, expected)
    # Labels stay with their images when a part is held out.
    np.testing.assert_array_equal(data.train_images[:, 0, 0, 2] % 10, data.train_labels)
    np.testing.assert_array_equal(data.validation_images[:, 0, 0, 2] % 10, data.validation_labels)


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        bytes(CIFAR_RECORD - 1),
        bytes(2 * CIFAR_RECORD + 1),
        b"\x0a" + bytes(CIFAR_RECORD - 1),
    ],
    ids=["empty", "truncated", "too long", "label out of range"],
)
def test_bad_cifar_batches_are_refused_by_name(tmp_path, name, content):
    write_cifar(tmp_path, **{name: content})
    assert f"{name}.bin" in refusal(tmp_path, "cifar10")


def test_cifar_batches_that_are_too_large_together(tmp_path, monkeypatch):
    monkeypatch.setattr("data.readers.MAX_BYTES", 20 * CIFAR_RECORD)
    write_cifar(tmp_path)
    assert "data_batch_2.bin" in refusal(tmp_path, "cifar10")


def write_svhn(folder, **changes):
    """Files in SVHN's layout: red is the row, blue the image; a 0 has the label 10, as there."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 24), ("test", 5)):
        images = np.zeros((32, 32, 3, count), np.uint8)
        images[:, :, 0] = np.arange(32)[:, None, None]
        images[:, :, 2] = np.arange(count)
        labels = (np.arange(count)[:, None] % 10 + 1).astype(np.uint8)
        arrays = {"X": images, "y": labels, **(changes if split == "train" else {})}
        arrays = {name: array for name, array in arrays.items() if array is not None}
        # That of SVHN is compressed.
        scipy.io.savemat(folder / f"{split}_32x32.mat", arrays, do_compression=split == "train")


@pytest.mark.parametrize("place", [".", "svhn"])
def test_svhn(tmp_path, place):
    write_svhn(tmp_path / place)
    data = load_data("svhn", str(tmp_path))
    assert (data.name, data.image_shape, data.n_classes) == ("svhn", (32, 32, 3), 10)
    assert [len(data.train_images), len(data.validation_images)] == [22, 2]
    np.testing.assert_array_equal(data.test_labels, [1, 2, 3, 4, 5])
    for index, image in enumerate(data.test_images):
        np.testing.assert_array_equal(image[..., 0], np.indices((32, 32))[0])
        assert np.all(image[..., 2] == index)
    np.testing.assert_array_equal((data.train_images[:, 0, 0, 2] + 1) % 10, data.train_labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"X": np.zeros((32, 32, 24), np.uint8)}, "X should be uint8 (32, 32, 3, N)"),
        ({"X": np.zeros((32, 32, 3, 24))}, "float64"),
        ({"y": np.zeros((24, 1), np.uint8)}, "labels from 0 to 0"),
        ({"y": np.full((24, 1), 11, np.uint8)}, "not 1 to 10"),
        ({"y": np.ones((23, 1), np.uint8)}, "y should be integers (24, 1)"),
        ({"y": None}, "with X and y"),
        ({"y": np.array([{"a": 1}], object)}, "y should be integers"),
    ],
)
def test_bad_files_of_svhn_are_refused(tmp_path, changes, message):
    write_svhn(tmp_path, **changes)
    assert message in refusal(tmp_path, "svhn")


def test_files_of_svhn_that_are_damaged_or_unpack_to_too_much(tmp_path, monkeypatch):
    write_svhn(tmp_path)
    path = tmp_path / "train_32x32.mat"
    whole = path.read_bytes()
    for content in (b"", whole[:200], whole[:-50], bytes(500)):
        path.write_bytes(content)
        assert path.name in refusal(tmp_path, "svhn")
    path.write_bytes(whole)
    monkeypatch.setattr("data.svhn.MAX_BYTES", 24 * 3000)
    assert "unpacks to more than" in refusal(tmp_path, "svhn")
    (tmp_path / "test_32x32.mat").unlink()
    assert "test_32x32.mat missing" in refusal(tmp_path, "svhn")


def test_a_pipe_is_not_waited_for(tmp_path):
    write_cifar(tmp_path, data_batch_2=None)
    os.mkfifo(tmp_path / "data_batch_2.bin")
    assert "data_batch_2.bin" in refusal(tmp_path, "cifar10")


def test_cifar10_without_its_test_batch(tmp_path):
    write_cifar(tmp_path, test_batch=None)
    assert "test_batch.bin" in refusal(tmp_path, "cifar10")


# TFDS


@pytest.fixture(scope="module")
def prepared_tfds(tmp_path_factory):
    """A folder with the tiny set, as TFDS prepares it: mnist/1.0.0/."""
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(28, 28, 1), dtype=np.uint8),
            "label": tfds.features.ClassLabel(num_classes=10),
        }
    )
    splits = {}
    for name, count in {"train": N_TRAIN, "test": N_TEST}.items():
        examples = zip(arrays(count)[0][..., None], arrays(count)[1].tolist(), strict=True)
        splits[name] = [(i, {"image": x, "label": k}) for i, (x, k) in enumerate(examples)]
    tfds.dataset_builders.store_as_tfds_dataset(
        name="mnist", version="1.0.0", features=features, split_datasets=splits, data_dir=folder
    )
    return folder


@pytest.mark.parametrize("data_dir", [".", "mnist", "mnist/1.0.0"])
def test_prepared_tfds_folder(prepared_tfds, data_dir):
    data = load_data("mnist", str(prepared_tfds / data_dir))
    assert_is_the_tiny_set(data)
    assert "TFDS" in data.source


def test_tfds_folder_of_another_data_set_is_left_alone(prepared_tfds):
    with pytest.raises(DataNotFound):
        load_data("fashion_mnist", str(prepared_tfds))


def damaged_copy(prepared, tmp_path, damage):
    """A copy of a prepared folder in which some files are damaged.

    Args:
        damage: function from a file's name and content to its new content, or None to leave it out.
    """
    for path in (prepared / "mnist" / "1.0.0").iterdir():
        content = damage(path.name, path.read_bytes())
        if content is not None:
            copy = tmp_path / path.relative_to(prepared)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)


TFDS_DAMAGES = {
    "truncated records": lambda name, content: content[:-9] if "tfrecord" in name else content,
    "no test records": lambda name, content: None if "-test.tfrecord" in name else content,
    "broken info": lambda name, content: content[:20] if name == "dataset_info.json" else content,
    "no info of a split": lambda name, content: (
        content.replace(b'"test"', b'"other"') if name == "dataset_info.json" else content
    ),
    # A record is as long as its first 8 bytes say, and 16 bytes.
    "a record less": lambda name, content: (
        content[16 + int.from_bytes(content[:8], "little") :] if "-test.tfrecord" in name else content
    ),
}


@pytest.mark.parametrize("damage", TFDS_DAMAGES.values(), ids=TFDS_DAMAGES)
def test_damaged_tfds_folder(prepared_tfds, tmp_path, damage):
    damaged_copy(prepared_tfds, tmp_path, damage)
    for name in ("mnist", "auto"):
        assert str(tmp_path / "mnist" / "1.0.0") in refusal(tmp_path, name)


def test_a_tfds_folder_imports_and_follows_nothing(prepared_tfds, tmp_path, monkeypatch):
    """Neither a module that its features name, nor a path that its information names."""
    (tmp_path / "hostile.py").write_text("open('executed', 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def damage(name, content):
        if name == "features.json":
            return content.replace(b"tensorflow_datasets.core.features.features_dict.", b"hostile.")
        if name == "dataset_info.json":
            info = json.loads(content)
            info["splits"] = [split | {"filepathTemplate": "/etc/passwd"} for split in info["splits"]]
            info["moduleName"] = "hostile"
            return json.dumps(info).encode()
        return content

    damaged_copy(prepared_tfds, tmp_path, damage)
    assert b"hostile." in (tmp_path / "mnist" / "1.0.0" / "features.json").read_bytes()
    assert_is_the_tiny_set(load_data("mnist", str(tmp_path)))
    assert not (tmp_path / "executed").exists()
    assert "hostile" not in sys.modules


def test_a_record_that_claims_to_be_huge(prepared_tfds, tmp_path):
    """With a valid checksum of the length, which TensorFlow alone would believe."""
    length = (10**12).to_bytes(8, "little")

    def damage(name, content):
        return length + bytes.fromhex("4a60fd0a") + content[12:] if "-train.tfrecord" in name else content

    damaged_copy(prepared_tfds, tmp_path, damage)
    with little_memory():
        assert "tfrecord" in refusal(tmp_path)


def test_tfds_images_of_another_size(prepared_tfds, tmp_path):
    """The digits called CIFAR-10."""
    damaged_copy(prepared_tfds, tmp_path, lambda name, content: content)
    place = tmp_path / "cifar10" / "1.0.0"
    (tmp_path / "mnist").rename(tmp_path / "cifar10")
    for path in place.glob("mnist-*"):
        path.rename(place / path.name.replace("mnist", "cifar10"))
    assert "(28, 28, 3), not (32, 32, 3)" in refusal(tmp_path, "cifar10")


# The network


def test_a_host_that_never_answers_is_given_up(monkeypatch):
    over, hung_up = threading.Event(), threading.Event()

    def hang(*args, **kwargs):
        over.wait(10)
        hung_up.set()
        raise TimeoutError

    monkeypatch.setattr(loading, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(socket, "create_connection", hang)
    try:
        assert REAL_REACHABLE("example.org") is False
        # The connection attempt is still waiting: the answer did not wait for it.
        assert not hung_up.is_set()
    finally:
        over.set()


def test_a_host_that_answers_is_reachable(monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *args, **kwargs: socket.socket())
    assert REAL_REACHABLE("example.org") is True


def test_a_host_that_refuses_is_not_reachable(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", refuse)
    assert REAL_REACHABLE("example.org") is False


class FailingBuilder:
    def download_and_prepare(self, **kwargs):
        raise ValueError("Checksum mismatch.\nMore about it.")


def no_builder(*args, **kwargs):
    raise ConnectionError


@pytest.mark.parametrize(
    ("builder", "reason"),
    [
        (lambda *args, **kwargs: FailingBuilder(), "Checksum mismatch."),
        (no_builder, "ConnectionError"),
    ],
    ids=["preparation", "builder"],
)
def test_a_failing_download_is_data_not_found(tmp_path, monkeypatch, builder, reason):
    monkeypatch.setattr(loading, "_reachable", lambda host: True)
    monkeypatch.setattr(tfds, "builder", builder)
    with pytest.raises(DataNotFound) as caught:
        load_data("mnist", str(tmp_path))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert load_data("auto", str(tmp_path)).name == "digits"


class Response:
    """What a server answers, whatever it is asked for."""

    status_code, headers = 200, {}

    def __init__(self, url, content):
        self.url, self.content = url, content

    def __enter__(self):
        return self

    def __exit__(self, *args):
        pass

    def iter_content(self, chunk_size):
        return [self.content]


def test_a_download_with_a_wrong_checksum_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    answered = []

    def get(session, url, **kwargs):
        answered.append(url)
        # Under a temporary name until it is checked.
        assert {path.name[:10] for path in tmp_path.iterdir()} <= {".download_", "mnist"}
        assert not list(tmp_path.glob("mnist/*/*.json"))
        return Response(url, gzip.compress(idx_bytes(IMAGES)))

    monkeypatch.setattr(loading, "_reachable", lambda host: True)
    monkeypatch.setattr("requests.Session.get", get)
    with pytest.raises(DataNotFound, match="wrong checksum") as caught:
        load_data("mnist", str(tmp_path))
    assert answered
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not list(tmp_path.glob(".download_*"))


def test_a_download_is_read_from_where_tfds_puts_it(tmp_path, monkeypatch, prepared_tfds):
    class Builder:
        data_path = prepared_tfds / "mnist" / "1.0.0"

        def download_and_prepare(self, download_dir, download_config):
            # Files of earlier downloads are not believed, nor any without a known checksum.
            assert list(tmp_path.iterdir()) == [Path(download_dir)]
            assert download_config.force_checksums_validation

    monkeypatch.setattr(loading, "_reachable", lambda host: True)
    monkeypatch.setattr(tfds, "builder", lambda *args, **kwargs: Builder())
    assert_is_the_tiny_set(load_data("mnist", str(tmp_path)))


# Splits


@pytest.mark.parametrize("count", [0, 1, 7, 100, 333, 1000])
@pytest.mark.parametrize("is_sorted", [False, True])
def test_stratified_choice_is_exact_and_proportional(count, is_sorted):
    rng = np.random.default_rng(0)
    labels = rng.choice(10, 1000, p=np.arange(1, 11) / 55).astype(np.uint8)
    mask = stratified_choice(np.sort(labels) if is_sorted else labels, count)
    assert mask.shape == (1000,)
    assert mask.sum() == count
    labels = np.sort(labels) if is_sorted else labels
    share = np.bincount(labels, minlength=10) * count / 1000
    assert np.all(np.abs(np.bincount(labels[mask], minlength=10) - share) < 1)
    np.testing.assert_array_equal(mask, stratified_choice(labels, count))


def test_from_official_split_holds_out_a_twelfth():
    images, labels = np.arange(600, dtype=np.uint16), np.repeat(np.arange(10), 60)
    test = np.arange(600, 650, dtype=np.uint16), np.arange(50) % 10
    data = ImageData.from_official_split("name", "source", (images, labels), test, note="note")
    assert (data.name, data.source, data.note, data.n_classes) == ("name", "source", "note", 10)
    assert len(data.validation_images) == 50
    # Here every image is its own index.
    np.testing.assert_array_equal(np.bincount(data.validation_labels), [5] * 10)
    np.testing.assert_array_equal(data.train_labels, labels[data.train_images])
    np.testing.assert_array_equal(data.validation_labels, labels[data.validation_images])
    np.testing.assert_array_equal(data.test_images, test[0])
    both = np.concatenate([data.train_images, data.validation_images])
    np.testing.assert_array_equal(np.sort(both), images)


def test_digits_are_split_without_overlap():
    data = load_data("digits")
    splits = [
        (data.train_images, data.train_labels),
        (data.validation_images, data.validation_labels),
        (data.test_images, data.test_labels),
    ]
    assert [len(images) for images, _ in splits] == [1319, 119, 359]
    for images, labels in splits:
        assert images.shape == (len(labels), 28, 28, 1)
        assert images.dtype == labels.dtype == np.uint8
        assert len(np.unique(labels)) == 10
    # All 1797 differ from each other, so that none can be in two splits.
    assert len({image.tobytes() for images, _ in splits for image in images}) == 1797
    assert data.train_images.max() == 255
    assert data.note == ""


def test_digits_are_those_of_scikit_learn(monkeypatch):
    from sklearn.datasets import load_digits

    embedded = load_digits()
    taken = []
    real = readers.enlarged
    monkeypatch.setattr(readers, "enlarged", lambda images, side: taken.append(images) or real(images, side))
    data = load_data("digits")
    np.testing.assert_array_equal(taken[0], (embedded.images * 255 / 16).astype(np.uint8))
    labels = np.concatenate([data.train_labels, data.validation_labels, data.test_labels])
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(embedded.target))


def test_digits_are_the_same_on_every_processor():
    assert load_data("digits").checksum == "7f165de0"


@pytest.mark.parametrize(("size", "side"), [(8, 28), (5, 16), (11, 37), (7, 7)])
def test_enlarged_images_are_opencvs_but_for_its_rounding(size, side):
    images = np.random.default_rng(size).integers(0, 256, (50, size, size), np.uint8)
    theirs = [cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC) for image in images]
    difference = np.abs(readers.enlarged(images, side) - np.stack(theirs).astype(int))
    assert difference.max() <= 1
    assert difference.mean() < 0.05  # its fixed point, on some processors, rounds 3 % of them otherwise


def test_digits_do_not_import_scikit_learn():
    code = (
        "import sys; from data.loading import load_data; load_data('digits'); print('sklearn' in sys.modules)"
    )
    words = [sys.executable, "-c", code]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == "False\n"


def test_description_counts_the_images():
    description = load_data("digits").describe()
    sizes = [description[f"{split}_images"] for split in ("train", "validation", "test")]
    assert sizes == [1319, 119, 359]
    assert description["image_shape"] == [28, 28, 1]
    assert description["name"] == "digits"


# Batches


def epochs(count, seed=0, first_epoch=0, n=50, batch_size=8):
    """The indices that `count` epochs draw: (count, N // B, B)."""
    steps = n // batch_size
    batches = training_batches(n, batch_size, seed, first_epoch * steps).take(count * steps)
    drawn = [batch["images"] for batch in batches.as_numpy_iterator()]
    return np.array(drawn).reshape(count, steps, batch_size)


def test_every_epoch_has_its_own_order_without_repeats():
    drawn = epochs(4)
    assert [len(np.unique(epoch)) for epoch in drawn] == [48] * 4
    assert len({epoch.tobytes() for epoch in drawn}) == 4
    # The images that an epoch leaves out differ too.
    assert len({np.unique(epoch).tobytes() for epoch in drawn}) > 1


def test_the_order_depends_on_the_seed_alone():
    np.testing.assert_array_equal(epochs(2, seed=3), epochs(2, seed=3))
    assert not np.array_equal(epochs(2, seed=3), epochs(2, seed=4))
    # Neighbouring seeds are no shifted copies of each other.
    assert not np.array_equal(epochs(2, seed=3)[1], epochs(2, seed=4)[0])


@pytest.mark.parametrize("first_epoch", [1, 3])
def test_a_resumed_run_goes_on_with_the_same_order(first_epoch):
    np.testing.assert_array_equal(epochs(2, first_epoch=first_epoch), epochs(5)[first_epoch:][:2])


def test_a_run_goes_on_from_the_middle_of_an_epoch():
    def steps(first, labelled):
        batches = training_batches(50, 8, 0, first, labelled).take(40 - first).as_numpy_iterator()
        return [np.concatenate([batch["images"], batch["labelled"]]) for batch in batches]

    np.testing.assert_array_equal(steps(9, range(20)), steps(0, range(20))[9:])


@pytest.mark.parametrize(("n_labelled", "size"), [(30, 8), (8, 8), (3, 3)])
def test_labelled_batches_draw_every_labelled_image_equally_often(n_labelled, size):
    labelled = np.arange(n_labelled) * 5
    batches = training_batches(1000, 8, 0, labelled=labelled).take(2 * (n_labelled // size))
    drawn = [batch["labelled"] for batch in batches.as_numpy_iterator()]
    assert {len(chosen) for chosen in drawn} == {size}
    first, second = np.split(np.concatenate(drawn), 2)
    for epoch in (first, second):
        assert len(np.unique(epoch)) == len(epoch)
        assert set(epoch) <= set(labelled)


@pytest.mark.parametrize(
    ("n_labelled", "of_them"),
    # Half of eight; more where there are more; all where there are few; at least one where others are few.
    [(10, 4), (25, 4), (36, 6), (3, 3), (50, 8), (49, 7), (47, 7)],
)
def test_half_of_the_images_are_labelled_where_these_do_not_come_apart(n_labelled, of_them):
    labelled = np.random.default_rng(0).permutation(50)[:n_labelled]

    def steps(first, last):
        batches = training_batches(50, 8, 0, first, labelled, apart=False).take(last - first)
        return [batch["images"] for batch in batches.as_numpy_iterator() if list(batch) == ["images"]]

    drawn = np.array(steps(0, 50))
    shown = np.isin(drawn, labelled)
    assert drawn.shape == (50, 8)
    assert set(shown.sum(axis=1)) == {of_them}
    # Either half of a batch, one of two replicas', has its share of both kinds.
    assert np.abs(2 * shown[:, :4].sum(axis=1) - of_them).max() <= 1
    assert len(np.unique(drawn)) == 50
    # No image comes twice before the others of its kind.
    for kind, size, there in (
        (drawn[shown], of_them, n_labelled),
        (drawn[~shown], 8 - of_them, 50 - n_labelled),
    ):
        epoch = kind[: there // size * size if size else 0]
        assert len(np.unique(epoch)) == len(epoch)
    np.testing.assert_array_equal(steps(9, 20), drawn[9:20])


@pytest.mark.parametrize("count", [10, 23, 100, 195, 210])
def test_balanced_choice_is_as_even_as_the_data_allows(count):
    labels = np.repeat(np.arange(10), [5, 10, 15, 20, 25, 25, 25, 25, 30, 30])
    chosen = balanced_choice(labels, count, seed=1)
    assert len(np.unique(chosen)) == count
    per_class, available = np.bincount(labels[chosen], minlength=10), np.bincount(labels)
    # Only a class that gave all it has may stay behind.
    assert np.all((per_class >= per_class.max() - 1) | (per_class == available))
    np.testing.assert_array_equal(chosen, balanced_choice(labels, count, seed=1))
    if count < 210:
        assert not np.array_equal(chosen, balanced_choice(labels, count, seed=2))


def test_a_batch_may_be_all_images():
    assert sorted(epochs(1, n=8)[0, 0]) == list(range(8))


@pytest.mark.parametrize("batch_size", [8, 50, 1000])
def test_evaluation_batches_are_all_images_in_order(batch_size):
    images = np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1)
    labels = (np.arange(50) % 10).astype(np.uint8)
    batches = list(evaluation_batches(images, labels, batch_size).as_numpy_iterator())
    np.testing.assert_array_equal(np.concatenate([batch[0] for batch in batches]), images)
    np.testing.assert_array_equal(np.concatenate([batch[1] for batch in batches]), labels)


# The real thing


@needs_mnist
def test_mnist_itself():
    data = load_data("mnist", os.environ["AAE_DATA_DIR"])
    splits = [
        (data.train_images, data.train_labels, 55_000),
        (data.validation_images, data.validation_labels, 5_000),
        (data.test_images, data.test_labels, 10_000),
    ]
    for images, labels, count in splits:
        assert images.shape == (count, 28, 28, 1)
        assert labels.shape == (count,)
        assert images.dtype == labels.dtype == np.uint8
        # The rarest digit, 5, is a little more than 9 percent of MNIST's training images.
        shares = np.bincount(labels, minlength=10) / count
        assert len(shares) == 10
        assert shares.min() > 0.08
    assert data.train_images.max() == 255


# Data of the user's own


@pytest.fixture
def own(tmp_path):
    """Writes own.npz: three classes of 6 x 8 x 3; keyword arguments replace arrays, None leaves one out."""

    def write(**replaced):
        images = np.random.default_rng(0).integers(0, 256, (36, 6, 8, 3), np.uint8)
        labels = np.arange(36) % 3
        content = {
            "x_train": images[:24],
            "y_train": labels[:24],
            "x_test": images[24:],
            "y_test": labels[24:],
        }
        content |= replaced
        np.savez(tmp_path / "own.npz", **{name: a for name, a in content.items() if a is not None})
        return str(tmp_path / "own.npz")

    return write


def test_own_arrays(own):
    data = load_data("npz", own(class_names=np.array(["cat", "dog", "owl"])))
    assert (len(data.train_images), len(data.validation_images), len(data.test_images)) == (22, 2, 12)
    assert (data.image_shape, data.n_classes, data.label_names) == ((6, 8, 3), 3, ("cat", "dog", "owl"))
    assert data.train_labels.dtype == np.uint8
    # Labels as Keras has them, grey images, no test images: a twelfth of each is held out.
    grey = np.zeros((24, 6, 8), np.uint8)
    data = load_data("npz", own(x_train=grey, y_train=np.arange(24)[:, None] % 2, x_test=None, y_test=None))
    assert (len(data.train_images), len(data.validation_images), len(data.test_images)) == (20, 2, 2)
    assert (data.image_shape, data.n_classes, data.label_names) == ((6, 8, 1), 2, ())


def test_own_arrays_without_labels_are_one_class(own, tmp_path, capsys):
    path = own(y_train=None, y_test=None)
    data = load_data("npz", path)
    assert data.n_classes == 1
    assert not data.test_labels.any()
    words = ["--data", "npz", "--data_dir", path, "--run_dir", str(tmp_path / "run")]
    assert main.main(["main.py", *words]) == 2
    assert "add y_train" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


BAD_ARRAYS = {
    "no images": ({"x_train": None}, "no x_train"),
    "floats": ({"x_train": np.zeros((24, 6, 8, 3), np.float32)}, "should be uint8"),
    "four channels": ({"x_train": np.zeros((24, 6, 8, 4), np.uint8)}, "C 1 or 3"),
    "no pixels": ({"x_train": np.zeros((24, 0, 8, 3), np.uint8)}, "should be uint8"),
    "rows": ({"x_train": np.zeros((24, 48), np.uint8)}, "should be uint8"),
    "a number": ({"x_train": np.uint8(3)}, "should be uint8"),
    "other test images": ({"x_test": np.zeros((12, 6, 9, 3), np.uint8)}, "those of x_train (6, 8, 3)"),
    "objects": ({"x_train": np.array([{}, []], object)}, "pickled objects are refused"),
    "too few": ({"x_train": np.zeros((5, 6, 8, 3), np.uint8), "y_train": np.zeros(5, int)}, "too few"),
    "a label less": ({"y_train": np.zeros(23, int)}, "24 images but 23 labels"),
    "a label below 0": ({"y_train": np.arange(24) - 1}, "labels from -1"),
    "labels of floats": ({"y_train": np.zeros(24)}, "should be integers"),
    "one-hot labels": ({"y_train": np.zeros((24, 3), int)}, "should be integers"),
    "test labels alone": ({"x_test": None}, "y_test, but no x_test"),
    "no test labels": ({"y_test": None}, "x_test, but no y_test"),
    "no training labels": ({"y_train": None}, "y_test, but no y_train"),
    "too few names": ({"class_names": np.array(["cat"])}, "class_names should be 3 texts"),
    "names of numbers": ({"class_names": np.arange(3)}, "class_names should be 3 texts"),
}


@pytest.mark.parametrize(("arrays", "mentioned"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_own_arrays_that_cannot_be_used(own, arrays, mentioned):
    assert mentioned in refusal(own(**arrays), "npz")


def test_own_arrays_that_are_no_file_or_too_large(own, tmp_path, monkeypatch):
    assert "needs --data_dir, the .npz file" in refusal("", "npz")
    assert f"{tmp_path} is none" in refusal(tmp_path, "npz")
    (tmp_path / "text.npz").write_text("text")
    assert "cannot be read" in refusal(tmp_path / "text.npz", "npz")
    with (
        zipfile.ZipFile(own(), "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x_more.npy", "w") as file,
    ):
        file.write(bytes(10**6))  # what is not asked for is left alone
    assert load_data("npz", str(tmp_path / "own.npz")).n_classes == 3
    monkeypatch.setattr(own_data, "MAX_BYTES", 5000)
    with np.load(own()) as arrays:
        np.savez_compressed(tmp_path / "own.npz", **arrays)
    assert "unpack to more than 5000 bytes" in refusal(tmp_path / "own.npz", "npz")
    # What lies there as it is does not unpack: it is read from the disk.
    assert load_data("npz", own()).stored


def store_tfds(folder, name, shape, splits, class_names, image_key="image"):
    """A folder as TFDS prepares it: so many random images a split, without a shape of different sizes."""
    features = tfds.features.FeaturesDict(
        {
            image_key: tfds.features.Image(shape=shape or (None, None, 3), dtype=np.uint8),
            "label": tfds.features.ClassLabel(names=class_names),
        }
    )
    rng, stored = np.random.default_rng(0), {}
    for split, count in splits.items():
        sizes = [shape or (10 + i % 3, 14, 3) for i in range(count)]
        images = [rng.integers(0, 256, size, np.uint8) for size in sizes]
        stored[split] = [(i, {image_key: x, "label": i % len(class_names)}) for i, x in enumerate(images)]
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name, version="1.0.0", features=features, split_datasets=stored, data_dir=folder
    )


def test_any_classification_set_of_tfds(tmp_path):
    store_tfds(tmp_path, "shapes", (8, 8, 1), {"train": 24, "test": 6}, ["disc", "a box"])
    data = load_data("tfds:shapes", str(tmp_path))
    assert (data.name, data.image_shape, data.n_classes) == ("tfds:shapes", (8, 8, 1), 2)
    assert data.label_names == ("disc", "a box")
    assert (len(data.train_images), len(data.validation_images), len(data.test_images)) == (22, 2, 6)
    # Images that differ in size, and a validation split in the place of a test split.
    store_tfds(tmp_path, "photos", None, {"train": 24, "validation": 6}, ["a", "b", "c"])
    data = load_data("tfds:photos", str(tmp_path / "photos"), image_size=12)
    assert (data.image_shape, len(data.test_images)) == ((12, 12, 3), 6)
    # Training images alone, and a configuration of a set.
    store_tfds(tmp_path, "lone", (8, 8, 3), {"train": 24}, ["a", "b"])
    (tmp_path / "sets").mkdir()
    (tmp_path / "lone").rename(tmp_path / "sets" / "small")
    for path in [*(tmp_path / "sets").rglob("lone-*")]:
        path.rename(path.with_name(path.name.replace("lone", "sets")))
    data = load_data("tfds:sets/small", str(tmp_path))
    assert (len(data.train_images), len(data.validation_images), len(data.test_images)) == (20, 2, 2)


def test_sets_of_tfds_that_cannot_be_used(tmp_path):
    with pytest.raises(DataNotFound, match="No absent in"):
        load_data("tfds:absent", str(tmp_path))
    store_tfds(tmp_path, "other", (8, 8, 1), {"train": 24}, ["a", "b"], image_key="picture")
    assert "has not an image and a class each, but label, picture" in refusal(tmp_path, "tfds:other")
    store_tfds(tmp_path, "many", (8, 8, 1), {"train": 24}, [f"c{i}" for i in range(300)])
    assert "300 classes, more than 256" in refusal(tmp_path, "tfds:many")
    store_tfds(tmp_path, "broken", (8, 8, 1), {"train": 24}, ["a", "b"])
    (tmp_path / "broken" / "1.0.0" / "features.json").write_text("{")
    assert "cannot be read" in refusal(tmp_path, "tfds:broken")

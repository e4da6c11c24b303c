"""Images that are read from the disk: the same training as with images in memory, whatever the files hold."""

import dataclasses
import itertools
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import chaos
import cv2
import numpy as np
import pytest
from test_data import own, store_tfds  # noqa: F401, a fixture
from test_image_folders import (  # noqa: F401, fixtures
    assert_equal_data,
    celeb_a,
    original_celeb_a,
    write_pictures,
)

import main
from data import loading, preparation, shards
from data.loading import load_data, prepare_data
from data.pipeline import read_batches, training_batches
from utils.errors import UserError


@pytest.fixture(autouse=True)
def small_shards(monkeypatch, tmp_path):
    """Several shards, of 8 x 8 x 3 pixels and more, and a cache of their own."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 2000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def pictures(tmp_path):
    """A folder of 45 pictures in three classes, one of them unreadable."""
    for name in "abc":
        write_pictures(tmp_path / "pictures" / name, 15, height=10, width=12)
    (tmp_path / "pictures" / "b" / "003.png").write_text("no picture")
    return tmp_path / "pictures"


@pytest.fixture
def stored(pictures):
    """The folder of shards of these pictures, 8 x 8."""
    prepare_data("folder", str(pictures), 8)
    return pictures / "aae_folder_8_shards"


def test_a_stored_folder_is_the_held_one(pictures):
    held = load_data("folder", str(pictures), 8)
    data = load_data("folder", str(pictures), 8, stream=True)
    assert data.stored
    assert_equal_data(data.held(), held)
    assert len(list((pictures / "aae_folder_8_shards").glob("*.bin"))) > 3
    # The checksum that was noted is that of the images.
    assert dataclasses.replace(data.held(), known_checksum="").checksum == held.checksum


def test_stored_celeb_a_is_the_held_one(celeb_a):  # noqa: F811
    held = load_data("celeb_a", str(celeb_a), 16)
    assert_equal_data(load_data("celeb_a", str(celeb_a), 16, stream=True).held(), held)


def test_stored_arrays_are_the_held_ones(own):  # noqa: F811
    for replaced in ({}, {"x_test": None, "y_test": None}, {"y_train": None, "y_test": None}):
        path = own(**replaced)
        held = load_data("npz", path)
        assert_equal_data(load_data("npz", path, stream=True).held(), held)
        grey = {name: np.zeros((36, 6, 8), np.uint8)[:n] for name, n in (("x_train", 24), ("x_test", 12))}
        assert load_data("npz", own(**grey), stream=True).image_shape == (6, 8, 1)


def test_a_stored_set_of_tfds_is_the_held_one(tmp_path):
    store_tfds(tmp_path, "shapes", (8, 8, 3), {"train": 24, "test": 6}, ["disc", "a box"])
    held = load_data("tfds:shapes", str(tmp_path))
    assert_equal_data(load_data("tfds:shapes", str(tmp_path), stream=True).held(), held)


def test_what_is_asked_for_is_read(stored):
    data = shards.open_shards(stored)
    held, images = data.held().train_images, data.train_images
    assert images.shape == held.shape
    assert images.nbytes == held.nbytes
    for chosen in (3, slice(2, 9), slice(0), [4, 1, 1], np.array([30, 2]), held[:, 0, 0, 0] > 100):
        np.testing.assert_array_equal(images[chosen], held[chosen])


def test_a_quarter_of_the_free_memory_decides(pictures, monkeypatch, capsys):
    n_bytes = 45 * 8 * 8 * 3
    for free, stored in ((4 * n_bytes, False), (4 * n_bytes - 4, True), (0, False)):
        monkeypatch.setattr(loading, "available_bytes", lambda free=free: free)
        assert load_data("folder", str(pictures), 8).stored == stored
        lines = capsys.readouterr().out.splitlines()
        assert sum("not held in memory" in line for line in lines) == stored
    # What is prepared already and fits is held, but decoded no more.
    (pictures / "aae_folder_8.npz").unlink()
    assert not load_data("folder", str(pictures), 8).stored
    assert not (pictures / "aae_folder_8.npz").exists()


def test_shards_serve_without_their_source(stored, pictures, tmp_path):
    held = load_data("folder", str(pictures), 8)
    shutil.move(stored, tmp_path / "moved")
    shutil.rmtree(pictures)
    data = load_data("prepared", str(tmp_path / "moved"), stream=True)
    assert data.checksum == held.checksum
    assert data.label_names == ("a", "b", "c")
    np.testing.assert_array_equal(data.test_images[:], held.test_images)
    assert not load_data("prepared", str(tmp_path / "moved")).stored


def test_a_killed_preparation_goes_on(pictures, stored, monkeypatch, capsys):
    held = load_data("folder", str(pictures), 8)
    names = sorted(path.name for path in stored.glob("*.bin"))
    shutil.rmtree(stored)
    real, begun = preparation.Shards.write, itertools.count()

    def write(self, shard, images):
        if next(begun) == 2:
            raise KeyboardInterrupt
        return real(self, shard, images)

    monkeypatch.setattr(preparation.Shards, "write", write)
    with pytest.raises(KeyboardInterrupt):
        prepare_data("folder", str(pictures), 8)
    assert len(list(stored.glob("*.bin"))) == 2
    assert not (stored / shards.INDEX).exists()
    written = []
    monkeypatch.setattr(preparation.Shards, "write", lambda *args: written.append(args[1]) or real(*args))
    assert_equal_data(load_data("folder", str(pictures), 8, stream=True).held(), held)
    assert written == list(range(2, len(names)))
    assert sorted(path.name for path in stored.glob("*.bin")) == names
    # One that runs keeps another one out.
    with preparation._locked(stored), pytest.raises(UserError, match="another process"):
        prepare_data("folder", str(pictures), 8)
    # Changed pictures are other data.
    (pictures / "a" / "000.png").unlink()
    assert len(load_data("folder", str(pictures), 8, stream=True).train_images) < len(held.train_images)


@pytest.mark.parametrize("killed", [False, True])
def test_a_training_waits_for_a_preparation(pictures, stored, capsys, monkeypatch, killed):
    """Two workers of a machine, or two runs, begin at once: the second takes what the first has written."""
    held = load_data("folder", str(pictures), 8)
    index = (stored / shards.INDEX).read_bytes()
    (stored / shards.INDEX).unlink()
    checked, real = [], preparation.Shards.readable
    monkeypatch.setattr(
        preparation.Shards, "readable", lambda self, shard: checked.append(shard) or real(self, shard)
    )
    with ThreadPoolExecutor(1) as pool:
        with preparation._locked(stored):
            second = pool.submit(load_data, "folder", str(pictures), 8, stream=True)
            said = ""
            while "another process: waiting for its end" not in said:
                assert not second.done()
                said += capsys.readouterr().out
                time.sleep(0.01)
            assert not (stored / shards.INDEX).exists()
            if not killed:
                (stored / shards.INDEX).write_bytes(index)
        assert_equal_data(second.result(60).held(), held)
    assert bool(checked) == killed  # reads all of them through only to go on with them


def test_a_full_disk_is_said_before(pictures, monkeypatch):
    monkeypatch.setattr(preparation.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(9, 9, 0))
    with pytest.raises(UserError, match=r"GB of the disk are free"):
        prepare_data("folder", str(pictures), 8)


def shard(folder, number=1):
    return folder / f"images_{number:05}.bin"


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(folder):
    first, second = shard(folder, 0).read_bytes(), shard(folder, 1).read_bytes()
    shard(folder, 0).write_bytes(second)
    shard(folder, 1).write_bytes(first)


def replace_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


def rewrite(folder, **changes):
    with np.load(folder / shards.INDEX) as archive:
        arrays = {name: archive[name] for name in archive.files} | changes
    np.savez(folder / shards.INDEX, **arrays)


DAMAGES = {
    "flipped bit": lambda folder: flip(shard(folder)),
    "swapped": swap,
    "truncated": lambda folder: shard(folder).write_bytes(shard(folder).read_bytes()[:-1]),
    "missing": lambda folder: shard(folder).unlink(),
    "pipe": lambda folder: replace_by_pipe(shard(folder)),
    "no index": lambda folder: (folder / shards.INDEX).write_bytes(b""),
    "cut index": lambda folder: (folder / shards.INDEX).write_bytes(
        (folder / shards.INDEX).read_bytes()[:-9]
    ),
    "another key": lambda folder: rewrite(folder, key="x"),
    "another format": lambda folder: rewrite(folder, format=99),
    "numbers out of range": lambda folder: rewrite(folder, test_numbers=np.array([10**9] * 3)),
    "no numbers": lambda folder: rewrite(folder, test_numbers=np.zeros(0, int)),
    "other labels": lambda folder: rewrite(folder, train_labels=np.zeros(3, np.uint8)),
    "labels out of range": lambda folder: rewrite(folder, n_classes=1, label_names=np.array(["a"])),
    "names of numbers": lambda folder: rewrite(folder, label_names=np.arange(3)),
    "objects": lambda folder: rewrite(folder, label_names=np.array([{}, 1, 2], object)),
    "huge images": lambda folder: rewrite(folder, shape=np.array([10**6, 10**6, 3])),
    "negative images": lambda folder: rewrite(folder, shape=np.array([-8, -8, 3])),
    "many images": lambda folder: rewrite(folder, count=10**15),
    "no images": lambda folder: rewrite(folder, count=0),
    "half an image": lambda folder: rewrite(folder, shape=np.array([4, 8, 3])),
    "another checksum": lambda folder: rewrite(folder, checksum="\n\n"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_shards_end_in_one_line_and_are_mended(stored, pictures, damage):
    held = load_data("folder", str(pictures), 8)
    damage(stored)
    with pytest.raises(UserError) as caught:
        load_data("prepared", str(stored))
    assert "\n" not in str(caught.value)
    assert str(stored) in str(caught.value)
    prepare_data("folder", str(pictures), 8)
    assert_equal_data(load_data("folder", str(pictures), 8, stream=True).held(), held)


def test_parts_of_the_batches_read_disjoint_records(stored):
    """What workers do that take every other index of each batch."""
    data = shards.open_shards(stored)
    batches = training_batches(len(data.train_images), 8, seed=3)
    whole = next(read_batches(batches, data.train_images, data.train_labels).as_numpy_iterator())
    parts = []
    for worker in range(2):
        own_part = batches.map(lambda batch, worker=worker: {"images": batch["images"][worker::2]})
        read = read_batches(own_part, data.train_images, data.train_labels)
        parts.append(next(read.as_numpy_iterator()))
    for each, first, second in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(each[::2], first)
        np.testing.assert_array_equal(each[1::2], second)


# It has labelled batches, and no label reader that would take longer to train than all else.
RUN = "--model dimensionality_reduction --data digits --n_hidden 16 --n_epoch 1 --n_z 2 --num_samples 40"


@pytest.fixture(scope="module")
def streamed(tmp_path_factory):
    """A training with its images on the disk, in a folder `run`, and its shards, in a folder `cache`."""
    folder = tmp_path_factory.mktemp("streamed")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        assert main.main(["main.py", *RUN.split(), "--stream", "--run_dir", str(folder / "run")]) == 0
    return folder


def test_what_is_read_is_what_a_model_that_holds_it_gathers(stored, make_model):
    data, model = shards.open_shards(stored), make_model(image_shape=(8, 8, 3), n_classes=3)
    held = data.held()
    model.hold(held.train_images, held.train_labels)
    batches = training_batches(len(data.train_images), 8, seed=3, labelled=np.arange(6)).take(5)
    read = read_batches(batches, data.train_images, data.train_labels)
    for indices, parts in zip(batches, read, strict=True):
        for gathered, part in zip(model._gathered(indices, model._held), parts, strict=True):
            np.testing.assert_array_equal(gathered, part)


@pytest.mark.slow
def test_a_streamed_run_equals_a_held_one(streamed, tmp_path):
    assert main.main(["main.py", *RUN.split(), "--run_dir", str(tmp_path / "held")]) == 0
    assert chaos.differences(tmp_path / "held", streamed / "run") == []


def test_pictures_of_a_streamed_run(streamed):
    assert cv2.imread(str(streamed / "run" / "plots" / "neighbours.png")).std() > 5


def test_a_shard_that_is_damaged_in_mid_run_ends_it_in_one_line(streamed, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(streamed / "cache"))
    monkeypatch.setattr(shards, "SHARD_BYTES", 2**26)  # as when the run was made
    run = shutil.copytree(streamed / "run", tmp_path / "run")
    (path,) = (streamed / "cache" / "aae").glob("*_shards/images_00000.bin")
    content = path.read_bytes()
    flip(path)
    try:
        assert main.main(["main.py", "--resume", "--run_dir", str(run), "--n_epoch", "2"]) == 2
    finally:
        path.write_bytes(content)
    error = capsys.readouterr().err
    assert "is damaged: record" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--prepare --n_z 3", "--n_z has no effect with --prepare"),
        ("--prepare --data prepared", "--prepare"),
        ("--data prepared", "--data_dir"),
    ],
)
def test_what_cannot_be_prepared_is_said(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AAE_DATA_DIR", raising=False)
    assert main.main(["main.py", *words.split()]) == 2
    assert message in capsys.readouterr().err


def test_the_command_line_prepares(pictures, capsys):
    words = ["--prepare", "--data", "folder", "--data_dir", str(pictures), "--image_size", "8"]
    assert main.main(["main.py", *words]) == 0
    output = capsys.readouterr().out
    assert f"--data_dir {pictures / 'aae_folder_8_shards'}" in output
    assert "1 of 45 images" in output

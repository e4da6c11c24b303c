"""Every reader on thousands of damaged inputs: each ends well or in one line, and does nothing else.

Hypothesis chooses the damages, the same ones every time; the slow tests print what became of them.
"""

import collections
import contextlib
import dataclasses
import gzip
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_data import arrays, write_cifar, write_idx, write_npz, write_svhn
from test_image_folders import ATTRIBUTE_LIST, ATTRIBUTE_NAMES, IMAGES, PARTITION_LIST, write_pictures

import main
from data import MAX_PIXELS, loading
from data.image_data import ImageData
from data.image_folder import MAX_THREADS
from data.loading import load_data, prepare_data
from models import MODELS, load_model
from models.loading import CONFIG, WEIGHTS
from training import label_reader
from training.saved_config import read_saved_config
from training.settings import Config
from utils.errors import UserError
from utils.files import write_json
from utils.settings import meaningless

SECONDS, BYTES = 10, 2 * 10**9  # that one input may take, of processor time and of memory
PATIENCE = 60  # seconds until a reader that waits for something is stopped
FAST, SLOW = 19, 200  # inputs per reader


# Whole inputs, one function per reader.


def write_gzipped_idx(folder):
    write_idx(folder, compress=True)


def write_mnist_npz(folder):
    write_npz(folder / "mnist.npz")


def write_records(path, examples):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for example in examples:
            writer.write(example)


def write_tfds(folder):
    """MNIST as TFDS prepares it, as far as it is read."""
    place = folder / "mnist" / "1.0.0"
    place.mkdir(parents=True)
    for split in ("train", "test"):
        examples = []
        for image, label in zip(*arrays(12), strict=True):
            png = tf.io.encode_png(image[..., None]).numpy()
            feature = {
                "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[png])),
                "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            }
            example = tf.train.Example(features=tf.train.Features(feature=feature))
            examples.append(example.SerializeToString())
        write_records(place / f"mnist-{split}.tfrecord-00000-of-00001", examples)
    splits = [{"name": split, "shardLengths": ["12"]} for split in ("train", "test")]
    write_json(place / "dataset_info.json", {"name": "mnist", "splits": splits})


def write_own_tfds(folder):
    """The same as any set, with what is read of its features."""
    write_tfds(folder)
    shape = {"shape": {"dimensions": ["28", "28", "1"]}}
    features = {"image": {"image": shape}, "label": {"classLabel": {"numClasses": "10"}}}
    place = folder / "mnist" / "1.0.0"
    write_json(place / "features.json", {"featuresDict": {"features": features}})
    (place / "label.labels.txt").write_text("".join(f"class_{label}\n" for label in range(10)))


def write_own_npz(folder):
    images, labels = arrays(36)
    np.savez(folder / "own.npz", x_train=images, y_train=labels, class_names=np.array([*"abcdefghij"]))


def write_shards(folder):
    write_own_npz(folder)
    prepare_data("npz", str(folder / "own.npz"), 16)
    (folder / "own.npz").unlink()


def write_folder(folder):
    for name in ("a", "b"):
        for suffix in (".png", ".jpg", ".bmp", ".webp"):
            write_pictures(folder / name, 2, suffix, height=10, width=12)


def write_celeb_a(folder):
    write_pictures(folder / IMAGES, 6, ".jpg", height=10, width=8)
    rows = [f"{index:03}.jpg" + " -1  1" * 20 for index in range(6)]
    (folder / ATTRIBUTE_LIST).write_text("\n".join(["6", " ".join(ATTRIBUTE_NAMES), *rows]) + "\n")
    (folder / PARTITION_LIST).write_text("".join(f"{i:03}.jpg {max(0, i - 3)}\n" for i in range(6)))


def write_cached_folder(folder):
    write_folder(folder)
    load_data("folder", str(folder), 16)


def write_run(folder):
    data = {"name": "digits", "note": "", "image_shape": [28, 28, 1]}
    write_json(folder / "config.json", {"flags": vars(Config(data="digits", seed=4)), "data": data})


def write_flag_files(folder):
    (folder / "inner.flags").write_text("# A comment\n\n--n_z 4\n--PMLR False\n")
    (folder / "some.flags").write_text("--flagfile=inner.flags\n--n_epoch=3\n--noised no\n")


def write_label_reader(folder):
    label_reader.save(label_reader.make_network((8, 8, 1), 3), [folder / "aae_reader.npz"])


def write_model(folder):
    from utils import registry

    shape = {"image_shape": (4, 4, 1), "n_classes": 3, "n_hidden": 4}
    model = registry.load(MODELS, "semi_supervised")(prior="gaussian", n_z=2, **shape)
    model.compile()
    model.save(folder / "model.keras")


# What is done with an input, and what holds if that ends well.


def reads(name, image_size=16, file=""):
    def read(folder):
        data = load_data(name, str(folder / file), image_size)
        assert isinstance(data, ImageData)
        for split in ("train", "validation", "test"):
            images, labels = getattr(data, f"{split}_images"), getattr(data, f"{split}_labels")
            assert images.shape == (len(labels), *data.image_shape)
            assert images.dtype == labels.dtype == np.uint8
            assert not np.any(labels >= (2 if data.has_attributes else data.n_classes))

    return read


def read_run(folder):
    config, data = read_saved_config(folder)
    assert isinstance(data, dict)
    config.validate()
    lines = [line for line in config.flag_lines() if not meaningless(config, line[2:].partition("=")[0])]
    repeated = main.read_config(["main.py", *lines])
    left_out = {f.name: f.default for f in dataclasses.fields(Config) if meaningless(config, f.name)}
    assert repeated == dataclasses.replace(config, run_dir="", resume=False, **left_out)


def read_flags(folder):
    os.chdir(folder)
    config = main.read_config(["main.py", "--flagfile=some.flags"])
    assert config is None or isinstance(config, Config)


def read_label_reader(folder):
    network = label_reader.make_network((8, 8, 1), 3)
    assert label_reader.restore(network, folder / "aae_reader.npz") in (True, False)


def read_model(folder):
    assert load_model(folder).generate(2, label=1).shape[0] == 2


# Damages. Each takes Hypothesis's source of choices, and a file or the folder.

EXTREMES = [0, 1, 127, 255, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 10**12, 2**63 - 1, 2**64 - 1]
WORDS = ["", "\0", "\n", " ", "../../etc/passwd", "/etc/passwd", "~", "NaN", "-Infinity", "1e999", "-1", "0"]
WORDS += ["9" * 5000, "x" * 10**5, "é", "\u2028", "\ud800", "$\\frac", "--n_zz 3", "--flagfile=some.flags"]
WORDS += ["--n_hidden 1000000000", "--data_dir=/\0", "--", "-", "=", "--help", "2147483648", "1.5"]
VALUES = [None, True, -1, 0, 1, 10**9, 10**30, 2.5, float("nan"), float("inf"), [], {}, *WORDS]
VALUES += [[10**9] * 3, [-28, -28, 1], {"class_name": "Lambda", "module": "keras.layers", "config": {}}]


def damage_bytes(data, content):
    """A few bytes cut off, flipped, set to an extreme, doubled, left out, or put in."""
    size = len(content)
    # Headers are at the beginning, directories of archives at the end.
    near = st.one_of(
        st.integers(0, min(40, size)), st.integers(0, size), st.integers(max(0, size - 200), size)
    )
    start, end = sorted((data.draw(near), data.draw(near)))
    chunk = content[start : min(end, start + 1000)]
    width = data.draw(st.sampled_from([1, 2, 4, 8]))
    order = data.draw(st.sampled_from(["little", "big"]))
    extreme = data.draw(st.sampled_from(EXTREMES)) % 256**width
    return data.draw(
        st.sampled_from(
            [
                content[:start],
                content[end:],
                content[:start] + bytes(byte ^ 255 for byte in chunk) + content[start + len(chunk) :],
                content[:start] + extreme.to_bytes(width, order) + content[start + width :],
                content[:start] + chunk + content[start:],
                content[:start] + content[start + len(chunk) :],
                content[:start] + data.draw(st.binary(max_size=20)) + content[start:],
            ]
        )
    )


def damage_text(data, content):
    """A line or word of a text left out, doubled, moved, or replaced by a strange one."""
    separator = data.draw(st.sampled_from(["\n", " ", "="]))
    parts = content.decode("utf-8", "surrogateescape").split(separator)
    at, other = (data.draw(st.integers(0, len(parts) - 1)) for _ in range(2))
    word = data.draw(st.sampled_from(WORDS))
    parts = data.draw(
        st.sampled_from(
            [
                parts[:at] + parts[at + 1 :],
                parts[:at] + [parts[at]] * 3 + parts[at + 1 :],
                [*parts[:at], parts[other], *parts[at + 1 :]],
                [*parts[:at], word, *parts[at + 1 :]],
                [*parts[:at], word, *parts[at:]],
            ]
        )
    )
    return separator.join(parts).encode("utf-8", "surrogatepass")


def damage_json(data, content):
    """A value of a JSON text left out, renamed, nested deeply, or replaced by a strange one."""
    try:
        root = json.loads(content)
    except (ValueError, RecursionError):  # what another damage has already spoilt
        return damage_bytes(data, content)
    places = []

    def collect(node):
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                collect(node[key])

    collect({"": root})
    node, key = places[data.draw(st.integers(0, len(places) - 1))]
    root = places[0][0]
    how = data.draw(st.sampled_from(["replace", "replace", "delete", "nest", "rename", "swap"]))
    if how == "delete":
        del node[key]
    elif how == "rename" and isinstance(node, dict):
        node[data.draw(st.sampled_from(WORDS))] = node.pop(key)
    elif how == "swap":
        other, other_key = places[data.draw(st.integers(0, len(places) - 1))]
        node[key] = json.loads(json.dumps(other[other_key]))
    elif how == "nest":
        node[key] = "deep"
        return json.dumps(root.get("")).replace('"deep"', "[" * 10**5 + "]" * 10**5).encode()
    else:
        node[key] = data.draw(st.sampled_from(VALUES))
    return json.dumps(root.get("")).encode()


def damage_places(data, folder):
    """Files removed, exchanged, repacked, or replaced by folders, pipes and links."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    path, other = data.draw(st.sampled_from(paths)), data.draw(st.sampled_from(paths))
    content = path.read_bytes()
    how = data.draw(st.sampled_from(["other", "gzip", "folder", "pipe", "loop", "link", "gone", "device"]))
    path.unlink()
    if how == "other" and other != path:
        path.write_bytes(other.read_bytes())
    elif how == "gzip":
        path.write_bytes(gzip.compress(content))
    elif how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "loop":
        path.symlink_to(path.name)
    elif how == "link":
        path.symlink_to("/etc/passwd")
    elif how == "device":
        path.symlink_to("/dev/zero")


def in_file(damage, pattern="*"):
    """The damage of the content of one of the files of a folder."""

    def damage_file(data, folder):
        path = data.draw(st.sampled_from(sorted(p for p in folder.rglob(pattern) if p.is_file())))
        content = path.read_bytes()
        for _ in range(data.draw(st.integers(1, 3))):
            content = damage(data, content)
        path.write_bytes(content)

    return damage_file


def in_gzip(data, content):
    """Damage inside a gzipped file, whose checksum is right again."""
    with contextlib.suppress(OSError, EOFError, zlib.error):
        content = gzip.decompress(content)
    return gzip.compress(damage_bytes(data, content), 1)


def in_zip(damage, pattern=""):
    """The damage of a member of an archive, whose checksums are right again; or members are rearranged."""

    def damage_member(data, content):
        try:
            archive = zipfile.ZipFile(io.BytesIO(content))
            members = [(name, archive.read(name)) for name in archive.namelist()]
        except Exception:  # an archive that another damage has already spoilt
            return content
        at = data.draw(st.sampled_from([i for i, (name, _) in enumerate(members) if pattern in name] or [0]))
        how = data.draw(st.sampled_from(["damage"] * 6 + ["gone", "double", "renamed", "added"]))
        name, member = members[at]
        if how == "damage":
            members[at] = (name, damage(data, member))
        elif how == "gone":
            del members[at]
        elif how == "double":
            members.append(members[at])
        else:
            strange = data.draw(st.sampled_from(["../evil", "/tmp/evil", "assets/evil", "x" * 5000, "é"]))
            members[at : at + (how == "renamed")] = [(strange, member)]
        method = data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA]))
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", method) as archive:
            for name, member in members:
                with contextlib.suppress(UserWarning):  # of names that are there twice
                    archive.writestr(name, member)
        return packed.getvalue()

    return damage_member


def in_record(data, folder):
    """Damage inside a record of a TFRecord file, whose checksums are right again."""
    path = data.draw(st.sampled_from(sorted(folder.rglob("*.tfrecord-*"))))
    try:
        records = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    except tf.errors.DataLossError:
        return
    at = data.draw(st.integers(0, len(records) - 1))
    records[at] = damage_bytes(data, records[at])
    write_records(path, records)


def in_png(data, content):
    """Damage inside a chunk of a PNG file, whose checksum is right again."""
    if not content.startswith(b"\x89PNG") or content[12:16] != b"IHDR":
        return damage_bytes(data, content)
    header = (content[16:29] and damage_bytes(data, content[16:29])).ljust(13, b"\1")[:13]
    return content[:16] + header + zlib.crc32(b"IHDR" + header).to_bytes(4, "big") + content[33:]


def in_h5(data, content):
    """Arrays and groups of an HDF5 file removed, resized, retyped, or replaced by links."""
    file = io.BytesIO(content)
    try:
        with h5py.File(file, "r+") as h5:
            names = []
            h5.visit(names.append)
            name = data.draw(st.sampled_from(names))
            how = data.draw(st.sampled_from(["gone", "huge", "text", "soft", "external", "hard", "other"]))
            del h5[name]
            if how == "huge":
                h5.create_dataset(name, (10**12,), "f4", chunks=(1000,), compression="gzip")
            elif how == "text":
                h5[name] = ["x"] * 3
            elif how == "soft":
                h5[name] = h5py.SoftLink("/" + data.draw(st.sampled_from(names)))
            elif how == "external":
                h5[name] = h5py.ExternalLink("/etc/passwd", "/")
            elif how == "hard":
                h5[name] = h5["/"]
            elif how == "other":
                h5[name] = np.zeros((3, 3), data.draw(st.sampled_from(["f4", "f8", "i1", "c8", "S0"])))
    except (OSError, KeyError, RuntimeError, ValueError):  # what another damage has already spoilt
        return damage_bytes(data, content)
    return file.getvalue()


Reader = collections.namedtuple("Reader", "write read damages")
ANYWHERE = [in_file(damage_bytes), damage_places]
ARCHIVE = [in_file(damage_bytes, "*.npz"), in_file(in_zip(damage_bytes), "*.npz")]
LIST = [in_file(damage_text, "*.txt"), in_file(damage_bytes, "*.txt")]
MODEL = [in_zip(damage_json, CONFIG), in_zip(in_h5, WEIGHTS), in_zip(damage_bytes, WEIGHTS)]
READERS = {
    "idx": Reader(write_idx, reads("mnist"), ANYWHERE),
    "gzipped idx": Reader(write_gzipped_idx, reads("mnist"), [*ANYWHERE, in_file(in_gzip)]),
    "npz": Reader(write_mnist_npz, reads("mnist"), [*ARCHIVE, damage_places]),
    "cifar": Reader(write_cifar, reads("cifar10"), ANYWHERE),
    "svhn": Reader(write_svhn, reads("svhn"), ANYWHERE),
    "tfds": Reader(write_tfds, reads("mnist"), [*ANYWHERE, in_file(damage_json, "*.json"), in_record]),
    "own npz": Reader(write_own_npz, reads("npz", file="own.npz"), [*ARCHIVE, damage_places]),
    "shards": Reader(
        write_shards,
        reads("prepared", file="aae_npz_own_shards"),
        [*ARCHIVE, in_file(damage_bytes, "*.bin"), damage_places],
    ),
    "own tfds": Reader(
        write_own_tfds, reads("tfds:mnist"), [*ANYWHERE, in_file(damage_json, "*.json"), in_record]
    ),
    "folder": Reader(write_folder, reads("folder"), [*ANYWHERE, in_file(in_png, "*.png")]),
    "celeb_a": Reader(write_celeb_a, reads("celeb_a"), [*ANYWHERE, *LIST]),
    "cache": Reader(write_cached_folder, reads("folder"), [*ARCHIVE, damage_places]),
    "label reader": Reader(write_label_reader, read_label_reader, ARCHIVE),
    "config": Reader(write_run, read_run, [*ANYWHERE, in_file(damage_json), in_file(damage_text)]),
    "flags": Reader(write_flag_files, read_flags, [*ANYWHERE, in_file(damage_text), in_file(damage_text)]),
    "keras": Reader(write_model, read_model, [*ANYWHERE, *map(in_file, MODEL)]),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a whole input of a reader, by the reader's name; it is read once, without an error."""
    folders = {}

    def make(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp("whole")
            READERS[name].write(folders[name])
            copy = tmp_path_factory.mktemp("copy")
            READERS[name].read(shutil.copytree(folders[name], copy, dirs_exist_ok=True))
        return folders[name]

    return make


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # readers of flag files change it
    monkeypatch.delenv("AAE_DATA_DIR", raising=False)
    monkeypatch.setattr(loading, "_reachable", lambda host: False)


class Overdue(BaseException):
    """Of no type that a reader could catch."""


# What Python reports through `sys.addaudithook` while a reader is watched, if it should not happen.
WATCHED = {"folder": None, "events": []}
NEVER = {"pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork"}
NEVER |= {"socket.connect", "socket.getaddrinfo", "os.symlink", "os.link", "os.chmod", "os.truncate"}
CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "tempfile.mkdtemp"}


def audit(event, arguments):
    if WATCHED is None or WATCHED["folder"] is None:  # None as the interpreter ends
        return
    if event == "open":
        path, _, flags = arguments
        if path == os.devnull:
            return
        changes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    else:
        path, changes = arguments[0] if arguments else None, event in CHANGES
    if event in NEVER or (changes and not _is_cache(path)):
        WATCHED["events"].append((event, arguments))


def _is_cache(path):
    """Whether a file is the cache of decoded images, or its temporary form."""
    inside = isinstance(path, str | Path) and str(path).startswith(WATCHED["folder"] + os.sep)
    return inside and Path(path).name.lstrip(".").startswith("aae_") and Path(path).suffix == ".npz"


sys.addaudithook(audit)


@contextlib.contextmanager
def watched(folder):
    """Raises `Overdue` after PATIENCE; asserts that only cache files have been written, and nothing run."""

    def stop(*args):
        raise Overdue(f"not done after {PATIENCE} s")

    WATCHED.update(folder=str(folder), events=[])
    handler = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        WATCHED["folder"] = None
    assert not WATCHED["events"]


def reset_peak_memory():
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory():
    """The most memory in bytes that this process has had since `reset_peak_memory`."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    return int(line.split()[1]) * 1024


def fuzz(count, whole_folder, damages, use):
    """Calls `use(folder)` on `count` damaged copies of a folder."""

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def check(data):
        with tempfile.TemporaryDirectory() as folder:
            folder = shutil.copytree(whole_folder, Path(folder) / "input")
            data.draw(st.sampled_from(damages))(data, folder)
            use(folder)

    check()


def fuzz_reader(name, count, whole):
    reader, results, slowest = READERS[name], collections.Counter(), 0
    folder = whole(name)
    reset_peak_memory()

    def use(folder):
        nonlocal slowest
        start = time.process_time()
        # `load_model`, which is not only called by this program, has an error of its own for no model.
        refusals = (UserError, FileNotFoundError) if name == "keras" else UserError
        refusal = None
        with watched(folder):
            try:
                reader.read(folder)
            except refusals as error:
                refusal = str(error)
        slowest = max(slowest, time.process_time() - start)
        assert refusal is None or (refusal and "\n" not in refusal)
        results["read" if refusal is None else "refused"] += 1

    fuzz(count, folder, reader.damages, use)
    assert results.total() >= count
    assert slowest < SECONDS
    assert peak_memory() < BYTES
    return f"{name}: {dict(results)}, slowest {slowest:.2f} s, peak {peak_memory() / 1e6:.0f} MB"


@pytest.mark.parametrize("name", READERS)
def test_damaged_inputs_end_well_or_in_one_line(name, whole):
    fuzz_reader(name, FAST, whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_many_damaged_inputs_end_well_or_in_one_line(name, whole, capsys):
    summary = fuzz_reader(name, SLOW, whole)
    with capsys.disabled():
        print(f"\n{summary}", end=" ")


# The same through the program: the folder of each is its data, its run, or its flag file.
DATA = ["--data_dir", "{0}", "--run_dir", "{0}/../run", "--model", "unsupervised"]
WORDS_OF = {
    "idx": [*DATA, "--data", "mnist"],
    "gzipped idx": [*DATA, "--data", "mnist"],
    "npz": [*DATA, "--data", "mnist"],
    "cifar": [*DATA, "--data", "cifar10"],
    "folder": [*DATA, "--data", "folder", "--image_size", "16"],
    "celeb_a": [*DATA, "--data", "celeb_a", "--image_size", "16"],
    "config": ["--resume", "--run_dir", "{0}"],
    "flags": ["--flagfile=some.flags"],
}


def run_program(words, folder):
    """Standard error, exit status, processor time (s) and peak memory (bytes) of the program.

    What ends well would train, so the number of images per update is one that no data set has.
    """
    words = [word.format(folder) for word in words] + ["--batch_size", "1000000"]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as error:
        process = subprocess.Popen(
            [sys.executable, ROOT / "main.py", *words],
            stdout=output,
            stderr=error,
            cwd=folder,
            env={**os.environ, "HOME": str(folder), "AAE_DATA_DIR": "", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        killer = signal.signal(signal.SIGALRM, lambda *args: process.kill())
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, killer)
        process.returncode = os.waitstatus_to_exitcode(status)
        error.seek(0)
        seconds = usage.ru_utime + usage.ru_stime
        return error.read().decode(), process.returncode, seconds, usage.ru_maxrss * 1024


def fuzz_program(name, count, whole):
    def use(folder):
        before = set(folder.rglob("*"))
        error, status, seconds, memory = run_program(WORDS_OF[name], folder)
        assert seconds < SECONDS
        assert memory < BYTES
        if status == 0:  # a flag file that asks for help
            assert name == "flags"
            return
        assert status == 2, error
        assert error.startswith("main.py: error: ")
        assert error.count("\n") == 1
        new = {path.name for path in set(folder.rglob("*")) - before}
        assert all(path.startswith("aae_") for path in new)
        assert [path.name for path in folder.parent.iterdir()] == ["input"]

    fuzz(count, whole(name), READERS[name].damages, use)


@pytest.mark.parametrize("name", WORDS_OF)
def test_the_program_refuses_damaged_inputs_in_one_line(name, whole):
    fuzz_program(name, 1, whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORDS_OF)
def test_the_program_refuses_many_damaged_inputs_in_one_line(name, whole):
    fuzz_program(name, 6, whole)


@pytest.mark.slow
def test_the_largest_pictures_fit_into_the_memory(tmp_path):
    """As many as are decoded at once, of as many pixels as are allowed, and one row more."""
    side = int(MAX_PIXELS**0.5)
    folder = tmp_path / "input"
    write_folder(folder)
    for name, height in {"allowed": side, "refused": side + 7}.items():
        content = cv2.imencode(".jpg", np.zeros((height, side), np.uint8))[1].tobytes()
        for index in range(2 * MAX_THREADS):
            (folder / "a" / f"{name}{index}.jpg").write_bytes(content)
    error, status, _, memory = run_program(WORDS_OF["folder"], folder)
    assert status == 2
    assert "--batch_size" in error
    assert memory < BYTES
    # Only those that are allowed have been decoded.
    with np.load(folder / "aae_folder_16.npz") as cache:
        assert len(cache["images"]) == 16 + 2 * MAX_THREADS

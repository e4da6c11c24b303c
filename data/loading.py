"""Finds a data set on this machine, or gets it."""

import contextlib
import contextvars
import importlib.util
import math
import os
import shlex
import socket
import tempfile
import threading
from pathlib import Path

import numpy as np

from data import DATASETS, LABEL_NAMES, RESIZED, readers
from data.image_data import SPLITS, ImageData, stratified_choice
from data.preparation import prepare
from data.shards import find_prepared
from data.source import SHARE, ImageSource, available_bytes
from utils import registry
from utils.errors import UserError, first_line

DOWNLOAD_HOSTS = {
    "mnist": "storage.googleapis.com",
    "fashion_mnist": "fashion-mnist.s3-website.eu-central-1.amazonaws.com",
    "cifar10": "www.cs.toronto.edu",
}
PROBE_SECONDS = 3
_MAY_DOWNLOAD = contextvars.ContextVar("may_download", default=True)
SUBSTITUTE_NOTE = "SUBSTITUTE DATA: scikit-learn's 1,797 digits, because MNIST was not found"


def load_data(name, data_dir="", image_size=32, stream=False):
    """Loads a data set by its name in `DATASETS`, or as tfds:NAME.

    Images that would take more than a quarter of the free memory are not held, but read from shards.

    Args:
        data_dir: folder to search, or the file of npz; "" for the usual places.
        image_size: pixels along each side, of the data sets in `RESIZED`.
        stream: whether to read the images from shards in any case.

    Raises:
        UserError: if the data cannot be found or read.
    """
    kind, _, which = name.partition(":")
    if kind == "npz" and not os.path.isfile(data_dir):
        raise UserError(f"--data npz needs --data_dir, the .npz file{data_dir and f'; {data_dir} is none'}.")
    if kind != "npz" and data_dir and not os.path.isdir(data_dir):
        raise UserError(f"--data_dir {data_dir} is not a folder.")
    if name == "folder" and not data_dir:
        raise UserError("--data folder needs --data_dir, the folder with the images.")
    if data_dir:
        folders = [Path(data_dir)]
    else:
        home = Path.home()
        folders = [Path("datasets"), home / ".keras" / "datasets", home / "tensorflow_datasets"]
    size = {"image_size": image_size} if kind in RESIZED else {}
    try:
        found = registry.load(DATASETS, kind)(folders, **size, **({"name": which} if which else {}))
        return _held_or_stored(found, stream)
    except OSError as error:  # e.g. a folder that may not be entered
        raise UserError(f"The data cannot be read: {error}.") from None


def prepare_data(name, data_dir, image_size):
    """Writes the shards of a data set, or mends them, and says where they are; arguments of `load_data`."""
    found = load_data(name, data_dir, image_size, stream=None)
    if isinstance(found, ImageData) and found.stored:
        raise UserError(f"--prepare needs the files that {data_dir} was made from: it holds shards already.")
    data = prepare(found if isinstance(found, ImageSource) else ImageSource.of_arrays(found))
    counts = ", ".join(f"{len(getattr(data, f'{split}_images')):,} {split}" for split in SPLITS)
    folder = data.train_images.shards.folder
    print(f"{counts} images of {data.source}: --data prepared --data_dir {shlex.quote(str(folder))}")


def _held_or_stored(found, stream):
    """The `ImageData` of what a data set's function has returned; says so where the images are not held."""
    if stream is None or not (stream or isinstance(found, ImageSource) or found.stored):
        return found
    limit, why = available_bytes() / SHARE or math.inf, "more than a quarter of the free memory"
    if isinstance(found, ImageSource) and found.most < limit:
        limit, why = found.most, f"more than the {found.most / 1e9:.0f} GB that are held at most"
    stored = stream or found.n_bytes > limit
    if isinstance(found, ImageData):
        data = found if found.stored else _prepared(ImageSource.of_arrays(found))
    else:
        data = find_prepared(found)
        if data is None and not stored:
            return found.held()
        data = data or prepare(found, wait=True)
    if not stored:
        return data.held()
    print(
        f"The images, {found.n_bytes / 1e9:.2f} GB, are not held in memory, but read from "
        f"{data.train_images.shards.folder}: {'--stream' if stream else why}.",
        flush=True,
    )
    return data


def _prepared(source):
    return find_prepared(source) or prepare(source, wait=True)


def load_auto(folders):
    """MNIST if it is here or can be downloaded, otherwise the embedded digits, with a note."""
    try:
        return load_mnist(folders)
    except DataNotFound as error:
        print(f"{'!' * 78}\n{error}\n{SUBSTITUTE_NOTE}.\n{'!' * 78}", flush=True)
        return load_digits(folders, note=SUBSTITUTE_NOTE)


def load_mnist(folders):
    """MNIST from IDX files, mnist.npz, a prepared TFDS folder, or the TFDS download."""
    return _load_official("mnist", folders, _find_mnist)


def load_fashion_mnist(folders):
    """Fashion-MNIST from IDX files in a folder with "fashion" in its name, or from TFDS."""
    return _load_official("fashion_mnist", folders, _find_fashion_mnist)


def load_cifar10(folders):
    """CIFAR-10 from its binary files (as many training batches as there are), or from TFDS."""
    return _load_official("cifar10", folders, _find_cifar10)


def load_digits(folders, note=""):
    """The 1,797 handwritten 8 x 8 digits inside scikit-learn, enlarged to 28 x 28; a fifth for testing."""
    # Only its file: importing scikit-learn, and SciPy with it, takes longer than all else that is done here.
    package = Path(importlib.util.find_spec("sklearn").origin).parent
    table = np.loadtxt(package / "datasets" / "data" / "digits.csv.gz", np.uint8, delimiter=",")
    small = (table[:, :-1].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    images, labels = readers.enlarged(small, 28)[..., None], table[:, -1]
    test = stratified_choice(labels, len(labels) // 5)
    return ImageData.from_official_split(
        "digits",
        "scikit-learn's embedded digits, 8 x 8 enlarged to 28 x 28",
        (images[~test], labels[~test]),
        (images[test], labels[test]),
        note=note,
    )


@contextlib.contextmanager
def without_downloads():
    """Within it, data that is not on this machine is not found."""
    token = _MAY_DOWNLOAD.set(False)
    try:
        yield
    finally:
        _MAY_DOWNLOAD.reset(token)


class DataNotFound(UserError):
    """The data is neither here nor to be downloaded."""


def _load_official(name, folders, find):
    names = LABEL_NAMES.get(name, ())
    for folder in folders:
        splits = find(folder) or _find_tfds(name, folder)
        if splits:
            source, train, test = splits
            return ImageData.from_official_split(
                name, source, train, test, folder=str(folder), label_names=names
            )
    place = download_tfds(name, folders, DOWNLOAD_HOSTS[name])
    source = f"TFDS download into {folders[0]}"
    return ImageData.from_official_split(
        name, source, *readers.read_tfds(place, name), folder=str(folders[0]), label_names=names
    )


def _find_mnist(folder):
    for place in (folder / "mnist", folder):
        if _is_fashion(place):
            continue
        files = readers.find_idx_files(place)
        if files:
            return _read_idx_folder(place, files)
        if (place / "mnist.npz").is_file():
            return str(place / "mnist.npz"), *readers.read_npz(place / "mnist.npz")
    return None


def _find_fashion_mnist(folder):
    # Its files have the same names as MNIST's: only the folder tells them apart.
    for place in (folder / "fashion_mnist", folder / "fashion-mnist", folder):
        files = readers.find_idx_files(place) if _is_fashion(place) else {}
        if files:
            return _read_idx_folder(place, files)
    return None


def _is_fashion(folder):
    folder = folder.resolve()
    # torchvision leaves FashionMNIST/raw.
    name = folder.parent.name if folder.name == "raw" else folder.name
    return "fashion" in name.lower()


def _read_idx_folder(place, files):
    return (
        str(place),
        readers.read_idx_split(files["train-images"], files["train-labels"]),
        readers.read_idx_split(files["test-images"], files["test-labels"]),
    )


def _find_cifar10(folder):
    binaries = "cifar-10-batches-bin"
    for place in (folder, folder / binaries, folder / "cifar10", folder / "cifar10" / binaries):
        train = sorted(place.glob("data_batch_[1-5].bin"))
        test = place / "test_batch.bin"
        if bool(train) != test.is_file():
            missing = "test_batch.bin" if train else "data_batch_*.bin"
            raise UserError(f"{place} holds only a part of CIFAR-10: {missing} missing.")
        if train:
            return str(place), readers.read_cifar_files(train), readers.read_cifar_files([test])
    return None


def _find_tfds(name, folder):
    prepared = tfds_folder(name, folder)
    return (f"TFDS folder {prepared}", *readers.read_tfds(prepared, name)) if prepared else None


def tfds_folder(name, folder):
    """The newest folder in which TFDS has prepared a data set, NAME or NAME/CONFIGURATION, or None."""
    # folder/<name>/<version>/, one of them possibly the folder that was passed.
    for pattern in (f"{name}/*/dataset_info.json", "*/dataset_info.json", "dataset_info.json"):
        for info in sorted(folder.glob(pattern), reverse=True):
            place = info.parent.resolve()
            if f"{place}/".endswith(f"/{name}/") or f"{place.parent}/".endswith(f"/{name}/"):
                return info.parent
    return None


def _reachable(host):
    """Whether a connection to a host can be made, found out within PROBE_SECONDS.

    In a thread, because the look-up of a name can hang beyond any timeout of the socket.
    """
    answers = []

    def connect():
        try:
            socket.create_connection((host, 443), timeout=PROBE_SECONDS).close()
            answers.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(answers)


def download_tfds(name, folders, host="storage.googleapis.com"):
    """Has TFDS download and prepare a data set in the first of the folders; the folder of the result.

    TFDS compares each file with the checksum that it knows, prepares the data under a temporary name, and
    renames what is whole. It would trust files of earlier downloads unseen, so it is given a new folder.

    Args:
        host: where some of it comes from.

    Raises:
        DataNotFound: if the host cannot be reached, or the download fails.
    """
    if not _MAY_DOWNLOAD.get():
        raise DataNotFound(f"No {name} in {', '.join(map(str, folders))}: pass --data_dir with its files.")
    if not _reachable(host):
        raise DataNotFound(
            f"No {name} in {', '.join(map(str, folders))}, and {host} cannot be reached to download "
            f"it: pass --data_dir with its files, or --data digits."
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow_datasets as tfds

    folder = folders[0]
    print(f"Downloading {name} into {folder} ...", flush=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        builder = tfds.builder(name, data_dir=folder, try_gcs=False)
        with tempfile.TemporaryDirectory(prefix=".download_", dir=folder) as downloads:
            builder.download_and_prepare(
                download_dir=downloads,
                download_config=tfds.download.DownloadConfig(force_checksums_validation=True),
            )
    except Exception as error:  # whatever TFDS and the network raise
        raise DataNotFound(f"The download of {name} failed: {first_line(error)}") from None
    return Path(builder.data_path)

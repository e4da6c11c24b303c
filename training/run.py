"""The run directory, prepared before TensorFlow is imported so that mistakes are answered at once."""

import contextlib
import dataclasses
import fcntl
import os
import re
import shlex
import time
from importlib import metadata
from pathlib import Path

import numpy as np

from data import ATTRIBUTE_DATASETS, RESIZED
from data.image_data import ImageData, balanced_choice
from data.loading import SUBSTITUTE_NOTE, load_data, prepare_data
from models.model_file import data_differences
from training.checkpoints import Checkpoint, choose_checkpoint, epochs_between, saved_checkpoints
from training.cluster import cluster_of
from training.history import read_history
from training.meeting import Workers
from training.memory import refuse_what_cannot_fit
from training.recipes import with_data
from training.refusals import refuse_attributes, refuse_image_shape, refuse_uneven
from training.saved_config import read_saved_config
from training.settings import CHANGEABLE, Config
from utils import processor
from utils.errors import UserError, first_line
from utils.files import remove_temporaries, write_json, write_text

LOCK = ".lock"
NO_BFLOAT16 = (
    "this processor has no bfloat16 instructions: --precision bfloat16 takes 1.2 to 1.5 times as long as "
    "float32, convolutions 5 to 9 times as long. --precision auto takes what is faster."
)


@dataclasses.dataclass(frozen=True)
class Run:
    """A configuration, its data, and the directory where everything lands."""

    config: Config
    data: ImageData
    directory: Path
    labelled: np.ndarray | None = None  # indices of the labelled training images, int (L,)
    begin: Checkpoint = dataclasses.field(default_factory=Checkpoint)  # where the training begins
    workers: Workers | None = None  # all that train together, where there are several
    # Nobody else can use the directory until this is closed.
    lock: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)

    @property
    def is_chief(self):
        """Whether this process writes what the run leaves."""
        return self.workers is None or self.workers.is_chief

    @property
    def is_begun(self):
        """Whether the training goes on from a checkpoint."""
        return self.train_steps(self.begin) > 0

    @property
    def plots(self):
        return self.directory / "plots"

    @property
    def checkpoints(self):
        return self.directory / "checkpoints"

    @property
    def shown_labels(self):
        """Labels of the training images, (N,) or (N, K): K where D sees that an image has none."""
        labels = self.data.train_labels
        if self.labelled is None or self.config.learns_labels:
            return labels
        shown = np.full(len(labels), self.data.n_classes, np.int32)
        shown[self.labelled] = labels[self.labelled]
        return shown

    @property
    def steps_per_epoch(self):
        return len(self.data.train_images) // self.config.batch_size

    @property
    def epochs_between_checkpoints(self):
        """See `training.checkpoints.epochs_between`."""
        return epochs_between(self.steps_per_epoch)

    def train_steps(self, checkpoint):
        """Number of train steps from the beginning to a checkpoint."""
        return checkpoint.epoch * self.steps_per_epoch + checkpoint.step

    @property
    def last_good(self):
        """Which checkpoint there is to go on with after a failure, as a sentence."""
        saved = saved_checkpoints(self.checkpoints) if self.checkpoints.is_dir() else []
        if not saved:
            return "There is no checkpoint yet."
        return f"The last checkpoint is {saved[-1].name}."

    @property
    def resume_command(self):
        return f"python main.py --resume --run_dir {shlex.quote(str(self.directory))}"

    def statement(self):
        """What all workers must have in common, and where the results land."""
        flags = dataclasses.asdict(self.config)
        own = ("run_dir", "data_dir", "export", "worker_wait")
        return {
            **self.describe(),
            "flags": {name: value for name, value in flags.items() if name not in own},
            "checkpoint": self.begin.name,
            "run_dir": str(self.directory),
        }

    def describe(self):
        """What is trained on what with what: flags that cannot change, data, versions, kernels, workers."""
        packages = ("tensorflow", "keras", "numpy")
        flags = dataclasses.asdict(self.config).items()
        return {
            "flags": {name: value for name, value in flags if name not in CHANGEABLE},
            "data": self.data.describe(),
            "versions": {name: metadata.version(name) for name in packages},
            "kernels": processor.kernels(),
            "workers": {"workers": str(self.workers.cluster.size if self.workers else 1)},
        }


def prepare_shards(config):
    """--prepare: writes the shards of the data of a `Config`."""
    prepare_data(config.data, config.data_dir, config.image_size)


def prepare_run(config):
    """Loads the data and sets up the run directory.

    Raises:
        UserError: if the data or the directory cannot be used; nothing has been written then.
    """
    cluster = cluster_of(config.strategy)
    if cluster:
        refuse_uneven(config, cluster.size)  # before minutes of decoding; a batch size of 0 divides
    if config.data in ATTRIBUTE_DATASETS:
        refuse_attributes(config)  # before minutes of decoding
    if config.data in RESIZED:
        refuse_image_shape(config, (config.image_size, config.image_size))  # likewise
    data = load_data(config.data, config.data_dir, config.image_size, config.stream)
    if data.has_attributes:
        refuse_attributes(config)
    if data.name == "npz" and data.n_classes == 1 and config.model != "unsupervised":
        raise UserError(
            f"--model {config.model} needs labels of two classes or more: add y_train to {data.source}, or "
            "choose --model unsupervised."
        )
    refuse_image_shape(config, data.image_shape)
    refuse_what_cannot_fit(config, data.image_shape, data.n_classes)
    if config.resume:
        data = _same_data(Path(config.run_dir), data)
    config = with_data(config, len(data.train_images))
    if cluster:
        refuse_uneven(config, cluster.size)
    if config.batch_size > len(data.train_images):
        raise UserError(
            f"--batch_size {config.batch_size} is larger than the {len(data.train_images)} "
            f"training images of {data.name}."
        )
    labelled = _choose_labelled(config, data) if config.chooses_labelled else None
    # What `auto` found here, so that flags.txt repeats the run where it would find something else.
    precision = processor.precision(config.precision)
    config = dataclasses.replace(config, data=data.name, precision=precision)
    if precision == "bfloat16" and not (processor.multiplies_bfloat16() or processor.has_gpu()):
        print("warning: " + NO_BFLOAT16, flush=True)
    directory = Path(config.run_dir or _default_directory(config))
    run = Run(config, data, directory, labelled, workers=Workers(cluster) if cluster else None)
    if run.is_chief and not config.resume and directory.exists() and not _is_unused(directory):
        raise UserError(f"{directory} is not empty: choose another --run_dir, or add --resume.")
    try:
        if not run.is_chief:
            return _joined(_with_checkpoint(run) if config.resume else run)
        with contextlib.ExitStack() as lock:
            if cluster and not directory.exists():
                lock.callback(_remove_unused, directory)
            directory.mkdir(parents=True, exist_ok=True)
            lock.callback(os.close, locked(directory))
            remove_temporaries(directory)
            if config.resume:
                (directory / "checkpoints").mkdir(exist_ok=True)
                run = _with_checkpoint(run)
            run = _joined(run)
            write_json(
                directory / "config.json",
                {
                    **run.describe(),
                    "flags": dataclasses.asdict(config),
                    "labelled_indices": None if labelled is None else labelled.tolist(),
                },
            )
            write_text(directory / "flags.txt", "\n".join(config.flag_lines()) + "\n")
            for folder in (run.plots, run.checkpoints):
                folder.mkdir(exist_ok=True)
            return dataclasses.replace(run, lock=lock.pop_all())
    except OSError as error:
        raise UserError(f"The run directory {directory} cannot be written: {error}.") from None


def _joined(run):
    """The run, once all workers are there and train the same; it lands where the chief says."""
    if run.workers is None:
        return run
    directory = run.workers.meet(run.statement(), run.config.worker_wait)
    return dataclasses.replace(run, directory=Path(directory))


def _remove_unused(directory):
    """Removes a new run directory in which nothing has been written."""
    with contextlib.suppress(OSError):
        if [path.name for path in directory.iterdir()] == [LOCK]:
            (directory / LOCK).unlink()
            directory.rmdir()


def _is_unused(directory):
    """Whether a directory is empty, but for what a run leaves that was killed before it began."""
    leftover = rf"{re.escape(LOCK)}|\.config\..*\.tmp\.json"
    return directory.is_dir() and all(re.fullmatch(leftover, path.name) for path in directory.iterdir())


def locked(directory):
    """The descriptor of a run directory's locked file; the lock ends with it, or with the process.

    Raises:
        UserError: if another process has the lock.
    """
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"{directory} is in use by another process: wait for its end, or stop it.") from None
    return descriptor


def _with_checkpoint(run):
    """The run with the place from which it goes on.

    Raises:
        UserError: if it is longer than it shall be, or there is no checkpoint that it can go on from.
    """
    begin = choose_checkpoint(run.checkpoints, run.describe()) if run.checkpoints.is_dir() else None
    if begin is None:
        print(f"{run.directory} has no checkpoint yet: the training begins anew.", flush=True)
        return run
    # A run may also have ended between its last epoch and its pictures, so equality is fine.
    if (run.config.n_epoch, 0) < (begin.epoch, begin.step):
        raise UserError(f"The run is at {begin}, so --n_epoch cannot be {run.config.n_epoch}.")
    _check_history(run.directory / "history.csv", begin.epoch)
    return dataclasses.replace(run, begin=begin)


def _check_history(path, n_epochs):
    """Raises a UserError if a history.csv does not begin with that many epochs."""
    try:
        epochs = [row["epoch"] for row in read_history(path)][:n_epochs] if n_epochs else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}, without which the run cannot go on: {first_line(error)}.") from None
    if epochs != list(range(1, n_epochs + 1)):
        raise UserError(f"{path} lacks some of the epochs 1 to {n_epochs}, so the run cannot go on.")


def _choose_labelled(config, data):
    if not data.n_classes <= config.num_samples <= len(data.train_images):
        raise UserError(
            f"--num_samples must be from {data.n_classes}, one per class, to {len(data.train_images)}, all "
            f"training images of {data.name}; got {config.num_samples}."
        )
    return balanced_choice(data.train_labels, config.num_samples, config.seed)


def _default_directory(config):
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = f"{config.model}-{config.prior}-z{config.n_z}-{config.data}-{stamp}"
    return "runs/" + re.sub(r"[^\w-]", "_", name)  # tfds:NAME/CONFIGURATION is no name of a folder


def _same_data(directory, data):
    """The data, with the note that the run began with, if it is the data of the run to resume."""
    _, saved = read_saved_config(directory)
    if differences := data_differences(saved, data.describe()):
        raise UserError(f"The run in {directory} is on other data: {', '.join(differences)}.")
    # The only note there is: pictures show no text that somebody wrote into the file.
    return dataclasses.replace(data, note=SUBSTITUTE_NOTE if saved.get("note") == SUBSTITUTE_NOTE else "")

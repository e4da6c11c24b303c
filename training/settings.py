"""The settings of a run: those of its model, of its data, of the training and of what it leaves."""

import dataclasses
import re

from data import DATASETS, RESIZED, TFDS_NAME
from models import CLUSTERING, LABELLED_DECODERS, MODELS
from models.settings import OWN_CLASS, WITH_LABEL_HEAD, ModelSettings
from training.recipes import LR_MID_EPOCH, RECIPES
from training.refusals import require_path
from training.schedules import SCHEDULES, learning_rates
from training.use_settings import USES, UseSettings
from utils.errors import UserError
from utils.settings import check, setting

SGD = {"optimizer": ("sgd",)}
STEP = {"lr_schedule": ("step",)}
PLATEAU = {"lr_schedule": ("plateau",)}


@dataclasses.dataclass(frozen=True)
class Config(ModelSettings, UseSettings):
    """Everything that a run depends on. `main.py` makes one flag of each field."""

    model: str = setting("supervised", "What to train.", "first", choices=MODELS, **OWN_CLASS)
    data: str = setting(
        "auto",
        "Data set; auto takes MNIST if it can, else the embedded digits.",
        "first",
        choices=DATASETS,
        pattern=TFDS_NAME,
        example="tfds:NAME for any image classification set of TFDS",
    )
    n_epoch: int = setting(  # checkpoints number their epochs with five digits
        100, "Epochs to train.", "first", at_least=1, at_most=99_999, changeable=True
    )
    PMLR: bool = setting(
        False,
        "Draw the manifold that the decoder has learnt; one per label where it sees labels.",
        "first",
        changeable=True,
    )
    num_samples: int = setting(
        5000,
        "Number of labelled images: balanced over the classes, from the training split.",
        "first",
        at_least=1,
        only={"model": ("semi_supervised", "dimensionality_reduction", "supervised"), "n_clusters": (0,)},
    )
    recipe: str = setting(
        "seed",
        "How to train: seed (Adam, mean squared error), paper (SGD, half the summed squared error), or short "
        "(the paper's in 50 epochs, with shifted images); sets the defaults of other flags.",
        "first",
        choices=RECIPES,
    )
    run_dir: str = setting("", "Folder for the results; by default a new one in runs/.", "first")
    resume: bool = setting(False, "Go on from the last checkpoint of run_dir.", "first", changeable=True)

    data_dir: str = setting(
        "",
        "Folder with the data files, or the .npz file. By default $AAE_DATA_DIR, then datasets/, "
        "~/.keras/datasets and ~/tensorflow_datasets are searched.",
        "data",
        changeable=True,
    )
    image_size: int = setting(
        32,
        "Side of the square images, in pixels; of TFDS, where the images differ in size.",
        "data",
        at_least=8,
        at_most=512,
        only={"data": tuple(sorted(RESIZED))},
    )
    stream: bool = setting(False, "Read the images from shards, even if they fit.", "data", changeable=True)
    prepare: bool = setting(False, "Train nothing, but write or mend the shards.", "data", changeable=True)

    batch_size: int = setting(
        0,
        "Images per update, of all devices together; 0: 128, or 32 where it makes under 100 steps an epoch.",
        "training",
        at_least=0,
    )
    optimizer: str = setting("adam", "Of every phase.", "training", choices=["adam", "sgd"])
    momentum: float = setting(
        0.9, "Of the autoencoder, the cross entropy and the cycle.", "training", at_least=0, below=1, only=SGD
    )
    gan_momentum: float = setting(0.1, "Of D and G.", "training", at_least=0, below=1, only=SGD)
    lr_start: float = setting(1e-3, "Learning rate of the autoencoder at first.", "training", above=0)
    lr_schedule: str = setting(
        "step",
        "step, by lr_mid and lr_end; or plateau: divide by 5 when the validation error stops falling.",
        "training",
        choices=SCHEDULES,
    )
    lr_mid: float = setting(1e-4, "Learning rate after lr_mid_epoch epochs.", "training", above=0, only=STEP)
    lr_mid_epoch: int = setting(
        LR_MID_EPOCH, "Epochs with lr_start; 0, on the roll: 6,400 steps.", "training", at_least=0, only=STEP
    )
    lr_end: float = setting(1e-4, "Learning rate after lr_end_epoch epochs.", "training", above=0, only=STEP)
    lr_end_epoch: int = setting(100, "Epochs with lr_start and lr_mid.", "training", only=STEP)
    clean_epoch: int = setting(
        0,
        "Epochs with noise on the input and dropout; 0 for all; by default, if supervised, lr_mid_epoch, or "
        "all but 10 where labels have parts of the prior.",
        "training",
        at_least=0,
        changeable=True,
    )
    lr_patience: int = setting(
        5, "Epochs of no better validation error before the rate falls.", "training", at_least=1, only=PLATEAU
    )
    lr_floor: float = setting(1e-6, "Smallest learning rate.", "training", above=0, only=PLATEAU)
    d_rate: float = setting(
        0.2, "Rate of D, as a share of the autoencoder's; 0.8 if conditional, gaussian.", "training", above=0
    )
    d_rate_falls: bool = setting(
        True, "Whether D's learning rate falls when the others' do, or D keeps its first one.", "training"
    )
    g_rate: float = setting(
        0.2,
        "Rate of G, likewise; with a gaussian prior 0.6 if conditional, else 0.2 if it is not 2-D; else 1.",
        "training",
        above=0,
    )
    ce_rate: float = setting(
        1.0,
        "Learning rate of the labels' cross entropy, likewise.",
        "training",
        above=0,
        only={"model": ("semi_supervised", "dimensionality_reduction"), "n_clusters": (0,)},
    )
    cycle_rate: float = setting(
        1.0,
        "Learning rate of the cycle, likewise.",
        "training",
        above=0,
        only={**WITH_LABEL_HEAD, "cycle": (True,)},
    )
    consistency_rate: float = setting(
        1.0,
        "Learning rate of the consistency, likewise.",
        "training",
        above=0,
        only={**WITH_LABEL_HEAD, "consistency": (True,)},
    )

    PARR: bool = setting(
        False,
        "Draw every label in one style. It is drawn in any case: plots/styles.png.",
        "output",
        changeable=True,
    )
    animate: bool = setting(
        False, "Draw the axes of the code, and the labels, as animations.", "output", changeable=True
    )
    traversal_axes: str = setting(
        "",
        "Axes to animate; by default all.",
        "output",
        pattern=r"([1-9]\d{0,4}(,[1-9]\d{0,4})*)?",
        example="numbers such as 1,2",
        only={"animate": (True,)},
        changeable=True,
    )
    traversal_samples: int = setting(
        3,
        "Values of each other axis in these animations.",
        "output",
        at_least=1,
        at_most=9,
        only={"animate": (True,)},
        changeable=True,
    )
    likelihood: bool = setting(
        False, "Measure the test images' log-likelihood by Parzen windows.", "output", changeable=True
    )
    likelihood_samples: int = setting(
        10_000,
        "Samples of the model that the windows lie on.",
        "output",
        at_least=1,
        at_most=10**8,
        only={"likelihood": (True,)},
        changeable=True,
    )
    checkpoint_every: str = setting(
        "",
        'Save checkpoints within epochs too, e.g. every "500 steps" or "10 minutes".',
        "output",
        changeable=True,
    )
    jit_compile: str = setting(
        "auto",
        "Compile the train step with XLA; auto does so on one GPU.",
        "advanced",
        choices=["auto", "on", "off"],
    )

    strategy: str = setting(
        "auto",
        "none: one device; mirrored: all GPUs of this machine; multi_worker: the machines of TF_CONFIG; auto "
        "takes multi_worker with TF_CONFIG, else mirrored with several GPUs.",
        "advanced",
        choices=["auto", "none", "mirrored", "multi_worker"],
        changeable=True,
        before="none",
    )
    worker_wait: int = setting(
        300,
        "Seconds to wait for the other workers at the start.",
        "advanced",
        at_least=1,
        at_most=86_400,
        only={"strategy": ("auto", "multi_worker")},
        changeable=True,
    )

    def validate(self):
        check(self)
        super().validate()
        if self.lr_end_epoch < self.lr_mid_epoch:
            raise UserError(
                f"--lr_end_epoch must be at least --lr_mid_epoch, {self.lr_mid_epoch}, "
                f"got {self.lr_end_epoch}."
            )
        if self.checkpoint_every and not self.checkpoint_interval:
            raise UserError(
                '--checkpoint_every takes a number of steps or minutes, such as "500 steps" or "10 minutes", '
                f"got {self.checkpoint_every}."
            )
        if any(axis >= self.n_z for axis in self.animated_axes()):
            raise UserError(f"--traversal_axes must be from 1 to {self.n_z}, got {self.traversal_axes}.")
        if self.jit_compile == "on" and self.strategy in ("mirrored", "multi_worker"):
            raise UserError(f"--jit_compile on does not go with --strategy {self.strategy}.")
        if self.data == "tfds":
            raise UserError("--data tfds needs a name: tfds:NAME, such as tfds:kmnist.")
        if self.balance and self.optimizer != "adam":
            raise UserError("--balance needs --optimizer adam.")
        for name in ("data_dir", "run_dir"):
            require_path(name, getattr(self, name))
        if self.PMLR and self.n_z != 2:
            raise UserError(f"--PMLR draws a plane: it needs --n_z 2, got {self.n_z}.")
        if self.n_clusters == 1 or (self.model == "clustering" and not self.n_clusters):
            raise UserError(f"--n_clusters must be at least 2, got {self.n_clusters}.")
        if self.PARR and self.model not in LABELLED_DECODERS:
            raise UserError(f"--PARR needs a decoder that sees the label; {self.model} has none.")

    @property
    def finds_clusters(self):
        """Whether the model's labels are clusters."""
        return self.model in CLUSTERING and self.n_clusters > 0

    @property
    def learns_labels(self):
        """Whether a phase of the training is the cross entropy of labelled images."""
        return self.model in ("semi_supervised", "dimensionality_reduction") and not self.finds_clusters

    @property
    def chooses_labelled(self):
        """Whether the labels of num_samples images alone are shown."""
        return self.learns_labels or (self.model == "supervised" and self.unlabelled)

    def n_labels(self, n_classes):
        """Number of values of the model's label: of its clusters, or of the data's classes."""
        return self.n_clusters if self.finds_clusters else n_classes

    @property
    def model_settings(self):
        """The part of these settings that the model is made with, a dict by name."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(ModelSettings)}

    @property
    def checkpoint_interval(self):
        """--checkpoint_every as a pair such as (500, "step") or (10, "minute"), or None."""
        match = re.fullmatch(r"([1-9]\d*) ?(step|minute)s?", self.checkpoint_every.strip())
        return (int(match[1]), match[2]) if match else None

    def animated_axes(self):
        """The axes of --traversal_axes, from 0; () for all."""
        return tuple(int(axis) - 1 for axis in self.traversal_axes.split(",") if axis)

    def learning_rates(self, epoch, validation_errors=()):
        """Learning rate of each phase of the model in an epoch, see `training.schedules.learning_rates`."""
        return learning_rates(self, epoch, validation_errors)

    def flag_lines(self):
        """The flags that repeat this run elsewhere, one per line: a flag file for `--flagfile`."""
        values = dataclasses.asdict(self)
        for name in OF_ONE_PROCESS:
            del values[name]
        return [f"--{name}={value}" for name, value in values.items()]


# What says where a process works and what for, and nothing about the run.
OF_ONE_PROCESS = ("run_dir", "resume", "prepare", *USES)
# What may change when a run is resumed: its length and its end, its pictures and places.
CHANGEABLE = {f.name for f in dataclasses.fields(Config) if f.metadata["changeable"]} | {"run_dir"}
DECIDE_NOTHING = CHANGEABLE - {"n_epoch", "clean_epoch"}  # no figure, that is

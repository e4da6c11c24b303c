"""The configuration of a run: every flag once, with its default, its meaning and its limits."""

import dataclasses
import json
import os
import re
from pathlib import Path

from data import DATASETS
from models import LABELLED_DECODERS, MODELS
from priors import PLANAR_PRIORS, PRIORS
from utils import registry
from utils.errors import UserError
from utils.files import read_limited

MAX_CONFIG_BYTES = 2**24  # most of a config.json are the indices of labelled images

PLATEAU_DIVISOR = 5  # second seed

# Values that a recipe sets where the command line does not. "seed" is made of the flags' own defaults.
RECIPES = {
    "seed": {},
    "paper": {
        "batch_size": 100,
        "keep_prob": 1.0,
        "optimizer": "sgd",
        "momentum": 0.9,
        "gan_momentum": 0.1,
        "reconstruction": "half_sum",
        "lr_start": 1e-2,
        "lr_mid": 1e-3,
        "lr_mid_epoch": 50,
        "lr_end": 1e-4,
        "lr_end_epoch": 1000,
        "d_rate": 10.0,
        "g_rate": 10.0,
        "ce_rate": 10.0,
        "cycle_rate": 3.0,
        "d_noise": 0.0,
        "init_std": 0.01,
    },
}
# The paper's training in 50 epochs instead of 5000: docs/semi_supervised.md has the ablation.
RECIPES["short"] = RECIPES["paper"] | {"shift": 2, "n_epoch": 50, "lr_mid_epoch": 25, "lr_end_epoch": 46}


# Flags that may change when a run is resumed: its length, its pictures and places.
CHANGEABLE = {"n_epoch", "data_dir", "run_dir", "checkpoint_every", "resume"}
CHANGEABLE |= {"PMLR", "PARR", "animate", "traversal_axes", "traversal_samples"}


def _flag(default, help, choices=(), aliases=(), before=None):
    """A field; `before` is what runs did that were written before the flag existed, if not its default."""
    metadata = {"help": help, "choices": list(choices), "aliases": aliases, "before": before}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a run depends on. `main.py` makes one flag of each field."""

    model: str = _flag("supervised", "What to train.", choices=MODELS)
    prior: str = _flag("gaussian", "Distribution that the codes are pushed onto.", choices=PRIORS)
    n_z: int = _flag(20, "Size of the code; even for priors on the plane.")
    PMLR: bool = _flag(False, "Draw the manifold that the decoder has learnt (n_z 2).")
    PARR: bool = _flag(False, "Draw every label in one style (semi_supervised).")
    animate: bool = _flag(False, "Draw the axes of the code, and the labels, as animations.")
    traversal_axes: str = _flag("", "Axes to animate, such as 1,2; by default all.")
    traversal_samples: int = _flag(5, "Values of each other axis in these animations.")
    data: str = _flag(
        "auto", "Data set; auto takes MNIST if it can, else the embedded digits.", choices=DATASETS
    )
    data_dir: str = _flag(
        "",
        "Folder with the data files. By default $AAE_DATA_DIR, then datasets/, ~/.keras/datasets "
        "and ~/tensorflow_datasets are searched.",
    )
    image_size: int = _flag(32, "Side of the square images of celeb_a and folder, in pixels.")
    network: str = _flag("dense", "Kind of encoder and decoder.", choices=["dense", "conv"])
    n_hidden: int = _flag(
        1000, "Units per hidden layer, if dense.", aliases=("super_n_hidden", "semi_n_hidden")
    )
    conv_widths: str = _flag(
        "16,32,64", "Channels per hidden layer, if conv; each after the first halves the side."
    )
    d_hidden: int = _flag(0, "Units per hidden layer of D; 0 for as many as --n_hidden.")
    activation: str = _flag("relu", "Of all hidden layers.", choices=["relu", "leaky_relu"])
    output: str = _flag(
        "sigmoid", "Of the decoder; with tanh, pixels run from -1 to 1.", choices=["sigmoid", "tanh"]
    )
    batch_norm: bool = _flag(False, "Batch norm in encoder and decoder.")
    recipe: str = _flag(
        "seed",
        "How to train: seed (Adam, mean squared error), paper (SGD, half the summed squared error), or short "
        "(the paper's in 50 epochs, with shifted images); sets the defaults of other flags.",
        choices=RECIPES,
    )
    n_epoch: int = _flag(100, "Epochs to train.")
    batch_size: int = _flag(128, "Images per update.")
    keep_prob: float = _flag(0.9, "Share of hidden units that dropout keeps, in (0, 1].")
    optimizer: str = _flag("adam", "Of every phase.", choices=["adam", "sgd"])
    momentum: float = _flag(0.9, "Of the autoencoder and the labels' cross entropy, with sgd.")
    gan_momentum: float = _flag(0.1, "Of D and G, with sgd.")
    reconstruction: str = _flag(
        "mean",
        "Squared error: its mean over the pixels, or half its sum over them.",
        choices=["mean", "half_sum"],
    )
    lr_schedule: str = _flag(
        "step",
        "step, by --lr_mid and --lr_end; or plateau: divide by 5 when the validation error stops falling.",
        choices=["step", "plateau"],
    )
    lr_patience: int = _flag(5, "Epochs without a better validation error before the rate falls (plateau).")
    lr_floor: float = _flag(1e-6, "Smallest learning rate (plateau).")
    lr_start: float = _flag(1e-3, "Learning rate of the autoencoder at first.")
    lr_mid: float = _flag(1e-4, "Learning rate after --lr_mid_epoch epochs.")
    lr_mid_epoch: int = _flag(50, "Epochs with --lr_start.")
    lr_end: float = _flag(1e-4, "Learning rate after --lr_end_epoch epochs.")
    lr_end_epoch: int = _flag(100, "Epochs with --lr_start and --lr_mid.")
    d_rate: float = _flag(0.2, "Learning rate of D, as a share of the autoencoder's.")
    g_rate: float = _flag(
        0.2, "Learning rate of G, likewise; by default 0.2 with a gaussian prior that is not 2-D, else 1."
    )
    ce_rate: float = _flag(1.0, "Learning rate of the labels' cross entropy, likewise (semi_supervised).")
    d_noise: float = _flag(0.15, "Standard deviation of the noise on every code that D sees.")
    joint_discriminator: bool = _flag(
        True,
        "One D of style and label together, which makes them independent, instead of one of each "
        "(semi_supervised).",
        before=False,
    )
    cycle_rate: float = _flag(
        1.0,
        "Learning rate of the cycle, in which the encoder must read the label in what is decoded from it, as "
        "a share of the autoencoder's; 0 for no cycle (semi_supervised).",
        before=0.0,
    )
    balance: bool = _flag(False, "Let D and G each wait while the other is far behind.")
    init_std: float = _flag(0.0, "Standard deviation of the initial weights; 0 for Glorot's.")
    noised: bool = _flag(True, "Add normal noise to the input in training.")
    noise_std: float = _flag(0.3, "Standard deviation of that noise, on pixels in [0, 1].")
    shift: int = _flag(0, "Move each training image by up to so many pixels at random.")
    num_samples: int = _flag(5000, "Number of labelled images (semi_supervised).")
    precision: str = _flag(
        "float32",
        "Of the products in the hidden layers and of those that give images; everything else is float32.",
        choices=["float32", "bfloat16"],
    )
    jit_compile: str = _flag(
        "auto", "Compile the train step with XLA; auto does so on one GPU.", choices=["auto", "on", "off"]
    )
    seed: int = _flag(0, "Every random draw depends on it.")
    run_dir: str = _flag("", "Folder for the results; by default a new one in runs/.")
    resume: bool = _flag(False, "Go on from the last checkpoint of --run_dir.")
    checkpoint_every: str = _flag(
        "", 'Save checkpoints within epochs too, e.g. every "500 steps" or "10 minutes".'
    )

    def validate(self):
        """Refuses what cannot work.

        Raises:
            UserError: one line about the first problem found.
        """
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), field.metadata["choices"]
            if choices and value not in choices:
                raise UserError(registry.unknown_choice(field.name, value, choices))
        at_least_1 = ("n_z", "n_hidden", "n_epoch", "batch_size", "num_samples", "lr_mid_epoch")
        for name in (*at_least_1, "lr_patience"):
            _require(getattr(self, name) >= 1, f"--{name} must be at least 1.", self, name)
        # 2^16 units are 17 GB of weights per layer; checkpoints number their epochs with five digits.
        for name, limit in {"n_z": 2**16, "n_hidden": 2**16, "d_hidden": 2**16, "n_epoch": 99_999}.items():
            _require(getattr(self, name) <= limit, f"--{name} must be at most {limit}.", self, name)
        for name in ("lr_start", "lr_mid", "lr_end", "lr_floor", "d_rate", "g_rate", "ce_rate"):
            rate = getattr(self, name)
            _require(0 < rate < float("inf"), f"--{name} must be positive.", self, name)
        _require(8 <= self.image_size <= 512, "--image_size must be from 8 to 512.", self, "image_size")
        _require(0 < self.keep_prob <= 1, "--keep_prob must be above 0, at most 1.", self, "keep_prob")
        _require(self.d_hidden >= 0, "--d_hidden must not be negative.", self, "d_hidden")
        _require(0 <= self.shift <= 8, "--shift must be from 0 to 8.", self, "shift")
        for name in ("noise_std", "d_noise", "init_std", "cycle_rate"):
            value = getattr(self, name)
            _require(0 <= value < float("inf"), f"--{name} must not be negative.", self, name)
        for name in ("momentum", "gan_momentum"):
            _require(0 <= getattr(self, name) < 1, f"--{name} must be at least 0, below 1.", self, name)
        _require(
            self.lr_end_epoch >= self.lr_mid_epoch,
            f"--lr_end_epoch must be at least --lr_mid_epoch, {self.lr_mid_epoch}.",
            self,
            "lr_end_epoch",
        )
        _require(
            not self.checkpoint_every or self.checkpoint_interval,
            '--checkpoint_every takes a number of steps or minutes, such as "500 steps" or "10 minutes".',
            self,
            "checkpoint_every",
        )
        _require(0 <= self.seed < 2**31, "--seed must be from 0 to 2147483647.", self, "seed")
        if not re.fullmatch(r"[1-9]\d{0,3}(,[1-9]\d{0,3}){0,7}", self.conv_widths):
            raise UserError(f"--conv_widths must be up to 8 numbers below 10000, got {self.conv_widths!r}.")
        if not re.fullmatch(r"([1-9]\d{0,4}(,[1-9]\d{0,4})*)?", self.traversal_axes):
            raise UserError(f"--traversal_axes must be numbers such as 1,2, got {self.traversal_axes!r}.")
        if any(axis >= self.n_z for axis in self.animated_axes()):
            raise UserError(f"--traversal_axes must be from 1 to {self.n_z}, got {self.traversal_axes}.")
        _require(
            1 <= self.traversal_samples <= 9,
            "--traversal_samples must be from 1 to 9.",
            self,
            "traversal_samples",
        )
        if self.balance and self.optimizer != "adam":
            raise UserError("--balance needs --optimizer adam.")
        for name in ("data_dir", "run_dir"):
            _require_path(name, getattr(self, name))
        if self.prior in PLANAR_PRIORS and self.n_z % 2:
            raise UserError(f"--prior {self.prior} needs an even --n_z, got {self.n_z}.")
        if self.PMLR and self.n_z != 2:
            raise UserError(f"--PMLR draws a plane: it needs --n_z 2, got {self.n_z}.")
        if self.PARR and self.model not in LABELLED_DECODERS:
            raise UserError(f"--PARR needs a decoder that sees the label; {self.model} has none.")

    @property
    def checkpoint_interval(self):
        """--checkpoint_every as a pair such as (500, "step") or (10, "minute"), or None."""
        match = re.fullmatch(r"([1-9]\d*) ?(step|minute)s?", self.checkpoint_every.strip())
        return (int(match[1]), match[2]) if match else None

    def check_image_shape(self, shape):
        """Refuses images (H, W, C) whose sides the convolutions cannot halve often enough.

        Raises:
            UserError: in one line.
        """
        parts = 2 ** self.conv_widths.count(",")
        if self.network == "conv" and any(side % parts for side in shape[:2]):
            raise UserError(
                f"--network conv with --conv_widths {self.conv_widths} needs images whose sides are "
                f"multiples of {parts}; these have {shape[0]} x {shape[1]} pixels."
            )

    def animated_axes(self):
        """The axes of --traversal_axes, from 0; () for all."""
        return tuple(int(axis) - 1 for axis in self.traversal_axes.split(",") if axis)

    def learning_rates(self, epoch, validation_errors=()):
        """Learning rate of each phase of the model in an epoch (from 0).

        Args:
            validation_errors: of the epochs before, which the plateau schedule looks at.
        """
        if self.lr_schedule == "plateau":
            drops = count_plateaus(validation_errors, self.lr_patience)
            rate = max(self.lr_start / PLATEAU_DIVISOR**drops, min(self.lr_floor, self.lr_start))
        elif epoch < self.lr_mid_epoch:
            rate = self.lr_start
        else:
            rate = self.lr_mid if epoch < self.lr_end_epoch else self.lr_end
        rates = {"ae": rate, "d": rate * self.d_rate, "g": rate * self.g_rate}
        if self.model == "semi_supervised":
            rates["ce"] = rate * self.ce_rate
            if self.cycle_rate:
                rates["cycle"] = rate * self.cycle_rate
        return rates

    def flag_lines(self):
        """The flags that repeat this run elsewhere, one per line: a flag file for `--flagfile`."""
        values = dataclasses.asdict(self)
        del values["run_dir"], values["resume"]
        return [f"--{name}={value}" for name, value in values.items()]


def dependent_defaults(given):
    """Defaults of flags that follow from the flags given: those of the recipe, and G's rate.

    With a label-free prior over a larger code, G at the full rate outruns D, which learns at a fifth of
    it: D stays undecided while the codes are far from the prior, and G's Adam turns its noise into full
    steps that undo the autoencoder's. On the plane and where labels are sorted, G needs the full rate:
    at a fifth, D wins.
    """
    on_plane = given["prior"] in PLANAR_PRIORS or given["n_z"] == 2
    g_rate = 1.0 if on_plane or given["model"] == "semi_supervised" else 0.2
    return {"g_rate": g_rate, **RECIPES.get(given["recipe"], {})}


def count_plateaus(errors, patience):
    """How often `patience` epochs in a row brought no error below 0.999 of the smallest one before them."""
    best, waited, plateaus = float("inf"), 0, 0
    for error in errors:
        waited += 1
        if error < 0.999 * best:
            best, waited = error, 0
        if waited == patience:
            waited, plateaus = 0, plateaus + 1
    return plateaus


def _require(condition, message, config, name):
    if not condition:
        raise UserError(f"{message[:-1]}, got {getattr(config, name)}.")


def _require_path(name, value):
    # flags.txt could not hold the others: line breaks, other control characters, bytes that are no text.
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", value):
        raise UserError(f"--{name} {value!r} has characters that a path here cannot have.")
    if len(os.fsencode(value)) > 4000 or any(len(os.fsencode(part)) > 255 for part in Path(value).parts):
        raise UserError(f"--{name} is too long for a path: {value}")


def canonical_name(name):
    """The registry's spelling of a name: MNIST -> mnist, CIFAR_10 -> cifar10, CelebA -> celeb_a."""
    name = re.sub(r"_(?=\d)", "", name.lower().replace("-", "_"))
    return {"celeba": "celeb_a"}.get(name, name)


def read_saved_config(run_dir):
    """The Config and the data description saved in a run directory.

    Raises:
        UserError: if there is none, or it is not one, or a newer version wrote it, or the directory holds
            links, through which the run would write elsewhere.
    """
    path = run_dir / "config.json"
    try:
        saved = json.loads(read_limited(path, MAX_CONFIG_BYTES))
        if not isinstance(saved["data"], dict):
            raise TypeError("data is no object")
        config = config_of(saved["flags"], path)
    except FileNotFoundError:
        raise UserError(f"{run_dir} holds no run to resume: config.json is missing.") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path} is not a configuration of this program: {error}") from None
    for folder, folders, files in os.walk(run_dir):
        for entry in (os.path.join(folder, name) for name in folders + files):
            if os.path.islink(entry):
                raise UserError(f"{entry} is a symbolic link: runs with links are not resumed.")
    return config, saved["data"]


def config_of(flags, path):
    """The Config of saved flags; those that are younger than the file have what was done before them.

    Args:
        flags: values by name.
        path: of the file that holds them, for messages.

    Raises:
        UserError: if there are flags that this version does not know, or values of another type.
    """
    fields = {field.name: type(field.default) for field in dataclasses.fields(Config)}
    if not isinstance(flags, dict):
        raise UserError(f"{path} is not a configuration of this program: its flags are no object.")
    if unknown := [f"--{name}" for name in flags if name not in fields]:
        raise UserError(
            f"{path} was written by a newer version of this program: {', '.join(unknown)} is unknown here."
        )
    for name, value in flags.items():
        if type(value) is not fields[name]:
            kind = fields[name].__name__
            raise UserError(
                f"{path} is not a configuration of this program: {name} is {value!r}, not of type {kind}."
            )
    before = {field.name: field.metadata["before"] for field in dataclasses.fields(Config)}
    older = {name: value for name, value in before.items() if value is not None and name not in flags}
    return Config(**older | flags)

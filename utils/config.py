"""The configuration of a run: every flag once, with its default, its meaning and its limits."""

import dataclasses
import json
import re

from data import DATASETS
from models import LABELLED_DECODERS, MODELS
from priors import PLANAR_PRIORS, PRIORS
from utils import registry
from utils.errors import UserError

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
        "d_noise": 0.0,
        "init_std": 0.01,
    },
}


# Flags that may change when a run is resumed: its length, its pictures and places.
CHANGEABLE = {"n_epoch", "PMLR", "PARR", "data_dir", "run_dir", "checkpoint_every", "resume"}


def _flag(default, help, choices=(), aliases=()):
    metadata = {"help": help, "choices": list(choices), "aliases": aliases}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a run depends on. `main.py` makes one flag of each field."""

    model: str = _flag("supervised", "What to train.", choices=MODELS)
    prior: str = _flag("gaussian", "Distribution that the codes are pushed onto.", choices=PRIORS)
    n_z: int = _flag(20, "Size of the code; even for priors on the plane.")
    PMLR: bool = _flag(False, "Draw the manifold that the decoder has learnt (n_z 2).")
    PARR: bool = _flag(False, "Draw every label in one style (semi_supervised).")
    data: str = _flag(
        "auto", "Data set; auto takes MNIST if it can, else the embedded digits.", choices=DATASETS
    )
    data_dir: str = _flag(
        "",
        "Folder with the data files. By default $AAE_DATA_DIR, then datasets/, ~/.keras/datasets "
        "and ~/tensorflow_datasets are searched.",
    )
    image_size: int = _flag(32, "Side of the square images of celeb_a and folder, in pixels.")
    n_hidden: int = _flag(1000, "Units per hidden layer.", aliases=("super_n_hidden", "semi_n_hidden"))
    recipe: str = _flag(
        "seed",
        "How to train: seed (Adam, mean squared error) or paper (SGD, half the summed squared error); "
        "sets the defaults of other flags.",
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
    init_std: float = _flag(0.0, "Standard deviation of the initial weights; 0 for Glorot's.")
    noised: bool = _flag(True, "Add N(0, 0.3) noise to the input in training.")
    num_samples: int = _flag(5000, "Number of labelled images (semi_supervised).")
    precision: str = _flag(
        "float32",
        "Of the products in the hidden layers; everything else is float32.",
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
        for name in ("n_z", "n_hidden", "n_epoch", "batch_size", "num_samples", "lr_mid_epoch"):
            _require(getattr(self, name) >= 1, f"--{name} must be at least 1.", self, name)
        for name in ("lr_start", "lr_mid", "lr_end", "d_rate", "g_rate", "ce_rate"):
            rate = getattr(self, name)
            _require(0 < rate < float("inf"), f"--{name} must be positive.", self, name)
        _require(8 <= self.image_size <= 512, "--image_size must be from 8 to 512.", self, "image_size")
        _require(0 < self.keep_prob <= 1, "--keep_prob must be above 0, at most 1.", self, "keep_prob")
        for name in ("d_noise", "init_std"):
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

    def learning_rates(self, epoch):
        """Learning rate of each phase of the model in an epoch (from 0)."""
        if epoch < self.lr_mid_epoch:
            rate = self.lr_start
        else:
            rate = self.lr_mid if epoch < self.lr_end_epoch else self.lr_end
        rates = {"ae": rate, "d": rate * self.d_rate, "g": rate * self.g_rate}
        if self.model == "semi_supervised":
            rates["ce"] = rate * self.ce_rate
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


def _require(condition, message, config, name):
    if not condition:
        raise UserError(f"{message[:-1]}, got {getattr(config, name)}.")


def canonical_name(name):
    """The registry's spelling of a name: MNIST -> mnist, CIFAR_10 -> cifar10, CelebA -> celeb_a."""
    name = re.sub(r"_(?=\d)", "", name.lower().replace("-", "_"))
    return {"celeba": "celeb_a"}.get(name, name)


def read_saved_config(run_dir):
    """The Config and the data description saved in a run directory.

    Raises:
        UserError: if there is none, or it is not one, or a newer version wrote it.
    """
    path = run_dir / "config.json"
    try:
        saved = json.loads(path.read_text())
        if not isinstance(saved["data"], dict):
            raise TypeError("data is no object")
        return config_of(saved["flags"], path), saved["data"]
    except FileNotFoundError:
        raise UserError(f"{run_dir} holds no run to resume: config.json is missing.") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not a configuration of this program: {error}") from None


def config_of(flags, path):
    """The Config of saved flags; those that are younger than the file have their defaults.

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
    return Config(**flags)

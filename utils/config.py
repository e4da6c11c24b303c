"""The configuration of a run: every flag once, with its default, its meaning and its limits."""

import dataclasses
import json
import re

from data import DATASETS
from models import MODELS
from priors import PLANAR_PRIORS, PRIORS
from utils import registry
from utils.errors import UserError


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
    n_hidden: int = _flag(1000, "Units per hidden layer.", aliases=("super_n_hidden", "semi_n_hidden"))
    n_epoch: int = _flag(100, "Epochs to train.")
    batch_size: int = _flag(128, "Images per update.")
    keep_prob: float = _flag(0.9, "Share of hidden units that dropout keeps, in (0, 1].")
    lr_start: float = _flag(1e-3, "Learning rate of the autoencoder in epochs 1 to 50.")
    lr_mid: float = _flag(1e-4, "Learning rate in epochs 51 to 100.")
    lr_end: float = _flag(1e-4, "Learning rate after epoch 100.")
    d_rate: float = _flag(0.2, "Learning rate of D, as a share of the autoencoder's.")
    g_rate: float = _flag(
        0.2, "Learning rate of G, as a share of the autoencoder's; 1 for priors with labels."
    )
    d_noise: float = _flag(0.15, "Standard deviation of the noise on every code that D sees.")
    noised: bool = _flag(True, "Add N(0, 0.3) noise to the input in training.")
    num_samples: int = _flag(5000, "Number of labelled images (semi_supervised).")
    seed: int = _flag(0, "Every random draw depends on it.")
    run_dir: str = _flag("", "Folder for the results; by default a new one in runs/.")
    resume: bool = _flag(False, "Go on from the last checkpoint of --run_dir.")

    def validate(self):
        """Refuses what cannot work.

        Raises:
            UserError: one line about the first problem found.
        """
        for field in dataclasses.fields(self):
            value, choices = getattr(self, field.name), field.metadata["choices"]
            if choices and value not in choices:
                raise UserError(registry.unknown_choice(field.name, value, choices))
        for name in ("n_z", "n_hidden", "n_epoch", "batch_size", "num_samples"):
            _require(getattr(self, name) >= 1, f"--{name} must be at least 1.", self, name)
        for name in ("lr_start", "lr_mid", "lr_end", "d_rate", "g_rate"):
            rate = getattr(self, name)
            _require(0 < rate < float("inf"), f"--{name} must be positive.", self, name)
        _require(0 < self.keep_prob <= 1, "--keep_prob must be above 0, at most 1.", self, "keep_prob")
        _require(0 <= self.d_noise < float("inf"), "--d_noise must not be negative.", self, "d_noise")
        _require(0 <= self.seed < 2**31, "--seed must be from 0 to 2147483647.", self, "seed")
        if self.prior in PLANAR_PRIORS and self.n_z % 2:
            raise UserError(f"--prior {self.prior} needs an even --n_z, got {self.n_z}.")
        if self.PMLR and self.n_z != 2:
            raise UserError(f"--PMLR draws a plane: it needs --n_z 2, got {self.n_z}.")
        if self.PARR:
            raise UserError(f"--PARR needs a decoder that sees the label; {self.model} has none.")

    def learning_rates(self, epoch):
        """Learning rate of each phase (AE, D, G) in an epoch (from 0): the first seed's steps."""
        rate = self.lr_start if epoch < 50 else self.lr_mid if epoch < 100 else self.lr_end
        return {"ae": rate, "d": rate * self.d_rate, "g": rate * self.g_rate}

    def flag_lines(self):
        """The flags that repeat this run elsewhere, one per line: a flag file for `--flagfile`."""
        values = dataclasses.asdict(self)
        del values["run_dir"], values["resume"]
        return [f"--{name}={value}" for name, value in values.items()]


def dependent_defaults(prior, n_z):
    """Defaults of flags that follow from other flags.

    Where the prior has no labels, G at the full rate outruns D, which learns at a fifth of it: D stays
    undecided while the codes are far from the prior, and G's Adam turns its noise into full steps that
    undo the autoencoder's. Where the prior has labels, G needs that rate to sort the classes.
    """
    has_labels = prior in PLANAR_PRIORS or n_z == 2
    return {"g_rate": 1.0 if has_labels else 0.2}


def _require(condition, message, config, name):
    if not condition:
        raise UserError(f"{message[:-1]}, got {getattr(config, name)}.")


def canonical_name(name):
    """The registry's spelling of a name: MNIST -> mnist, CIFAR_10 -> cifar10, CelebA stays celeba."""
    name = name.lower().replace("-", "_")
    return re.sub(r"_(?=\d)", "", name)


def read_saved_config(run_dir):
    """The Config and the data description saved in a run directory.

    Raises:
        UserError: if there is none, or it is not one.
    """
    path = run_dir / "config.json"
    try:
        saved = json.loads(path.read_text())
        for field in dataclasses.fields(Config):
            value, kind = saved["flags"][field.name], type(field.default)
            if type(value) is not kind:
                raise TypeError(f"{field.name} is {value!r}, not of type {kind.__name__}")
        if not isinstance(saved["data"], dict):
            raise TypeError("data is no object")
        return Config(**saved["flags"]), saved["data"]
    except FileNotFoundError:
        raise UserError(f"{run_dir} holds no run to resume: config.json is missing.") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not a configuration of this program: {error}") from None

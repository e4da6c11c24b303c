"""What an experiment of docs/results.md is, and what a column of its table."""

import dataclasses
from pathlib import Path

from main import read_config
from training.recipes import usual_batch_size, with_data
from training.settings import DECIDE_NOTHING, Config
from utils.settings import meaningless

CONFIGS = Path(__file__).parents[1] / "configs"
# Flags that decide no figure, or that have a place of their own in a result.
NO_SETTINGS = DECIDE_NOTHING | {"seed"}
MNIST_IMAGES = 55_000  # for training
# Networks and a training that take seconds: with these, figures mean nothing.
QUICK = ("data=digits", "batch_size=128", "n_hidden=16", "d_hidden=16", "n_epoch=1")
QUICK_LABELLED = 1000  # at most: the digits have 1,319 training images
# In place of codes of 3 to 10, whose pictures of every two axes would take half of the time.
QUICK_CODE = 12


@dataclasses.dataclass(frozen=True)
class Figure:
    """A column of a table.

    Attributes:
        name: in metrics.json.
        title: above the column.
        factor: from metrics.json to the table.
        decimals: at least; more where the standard deviation would vanish.
        divisor: name of the figure that it is a multiple of, if any.
    """

    name: str
    title: str
    factor: float = 1
    decimals: int = 2
    divisor: str = ""

    def of(self, figures):
        """The value in a dict of figures, by name, or None where it was not measured."""
        if self.name not in figures or (self.divisor and not figures.get(self.divisor)):
            return None
        return self.factor * figures[self.name] / (figures[self.divisor] if self.divisor else 1)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A row of a table.

    Attributes:
        name: for `--only` and for file names.
        title: what a reader sees.
        group: one of the list's `GROUPS`.
        flagfile: a file in configs/ that is read before the flags, if any.
        flags: of `main.py`, without dashes, such as "n_epoch=5".
        seeds: one run each.
        paper, public: figures of the paper and of the best public code, as text.
    """

    name: str
    title: str
    group: str
    flagfile: str = ""
    flags: tuple = ()
    seeds: tuple = (0, 1, 2)
    paper: str = "-"
    public: str = "-"

    def words(self):
        """The words on `main.py`'s command line, but for seed and places."""
        return [
            *([f"--flagfile={CONFIGS / self.flagfile}"] if self.flagfile else []),
            *(f"--{flag}" for flag in self.flags),
        ]

    def config(self):
        """The `Config` that `main.py` makes of them.

        Raises:
            UserError: if it refuses them.
        """
        return read_config(["main.py", *self.words()])

    def settings(self):
        """See `settings_of`."""
        return settings_of(self.config())

    def command(self):
        """The words as a reader of the repository would type them."""
        return " ".join(word.replace(f"{CONFIGS}/", "configs/") for word in self.words())

    def shrunk(self):
        """The same experiment as small as a smoke test needs it, with one seed, on the embedded digits."""
        config = self.config()
        more = [f"n_z={QUICK_CODE}"] if config.n_z > 2 else []
        if config.network == "conv":
            more.append("conv_widths=4,8")
        if config.chooses_labelled:
            more.append(f"num_samples={min(config.num_samples, QUICK_LABELLED)}")
        return dataclasses.replace(self, flags=(*self.flags, *QUICK, *more), seeds=self.seeds[:1])


def settings_of(config):
    """The flags that decide the figures and differ from `main.py`'s defaults with MNIST, by name."""
    config = with_data(config, MNIST_IMAGES)
    if config.batch_size == usual_batch_size(MNIST_IMAGES):
        config = dataclasses.replace(config, batch_size=0)
    values = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(Config)
        if field.name not in NO_SETTINGS and getattr(config, field.name) != field.default
    }
    # A recipe also sets the rates of phases that are off.
    return {name: value for name, value in values.items() if not meaningless(config, name)}

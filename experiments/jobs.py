"""A run of an experiment with one of its seeds, and the small file that the tables need of it."""

import dataclasses
import json
from pathlib import Path

from experiments.experiment import Experiment, settings_of
from training.recipes import with_data
from training.saved_config import MAX_CONFIG_BYTES, read_saved_config
from utils.errors import UserError, first_line
from utils.files import write_json
from utils.untrusted import read_limited

ROOT = Path(__file__).parents[1]
SPEED = ("train_images_per_second", "wall_seconds")


@dataclasses.dataclass(frozen=True)
class Places:
    """Where things are written.

    Attributes:
        results: folder of one small JSON file per run, all that the page is made from.
        page: the Markdown file.
        runs: folder of the run directories and their logs.
    """

    results: Path
    page: Path
    runs: Path

    @classmethod
    def below(cls, folder):
        return cls(folder / "results", folder / "results.md", folder / "runs")


PLACES = dataclasses.replace(Places.below(ROOT / "docs"), runs=ROOT / "runs" / "paper")


@dataclasses.dataclass(frozen=True)
class Job:
    """One run: an experiment with one of its seeds."""

    experiment: Experiment
    seed: int
    places: Places

    def __str__(self):
        return f"{self.experiment.name} seed {self.seed}"

    @property
    def result(self):
        return result_path(self.places, self.experiment, self.seed)

    @property
    def directory(self):
        return self.places.runs / self.result.stem

    @property
    def log(self):
        return self.places.runs / f"{self.result.stem}.log"

    @property
    def machine(self):
        """A file beside the run directory that says what it was trained on."""
        return self.places.runs / f"{self.result.stem}.machine.json"

    @property
    def is_trained(self):
        """Whether all its epochs have been trained and measured."""
        try:
            metrics = _read_json(self.directory / "metrics.json")
        except UserError:  # none yet, or a damaged one, which the run writes again when it is resumed
            return False
        return metrics.get("epochs") == self.experiment.config().n_epoch

    def words(self, data_dir):
        """The words on `main.py`'s command line, which go on with a run that has begun."""
        begun = (self.directory / "config.json").is_file()
        return [
            *self.experiment.words(),
            f"--seed={self.seed}",
            f"--run_dir={self.directory}",
            *([f"--data_dir={data_dir}"] if data_dir else []),
            *(["--resume"] if begun else []),
        ]


def result_path(places, experiment, seed):
    """The small file of a run."""
    return places.results / f"{experiment.name}-seed{seed}.json"


def collect(job):
    """Writes the small file of a run that is trained.

    Raises:
        UserError: if the run had other flags than the experiment has, or its files are damaged.
    """
    config, _ = read_saved_config(job.directory)
    if config.seed != job.seed:
        raise UserError(f"{job.directory} has seed {config.seed}.")
    settings = settings_of(config)
    if names := different(settings, job.experiment.settings()):
        raise UserError(f"{job.directory} was trained with other values of {names}: move it away.")
    metrics = _read_json(job.directory / "metrics.json")
    figures = {n: value for n, value in metrics.items() if isinstance(value, float) and n not in SPEED}
    counts = {n: metrics[n] for n in ("labelled_images", "epochs") if n in metrics}
    # A run that was copied here, or begun by hand, does not say what it was trained on.
    machine = _read_json(job.machine) if job.machine.is_file() else {}
    content = {
        "experiment": job.experiment.name,
        "seed": job.seed,
        "figures": figures,
        **counts,
        "minutes": _minutes(metrics, config),
        **{name: machine.get(name) for name in ("processor", "instructions", "threads")},
        "flags": settings,
        "versions": _read_json(job.directory / "config.json").get("versions", {}),
    }
    job.result.parent.mkdir(parents=True, exist_ok=True)
    write_json(job.result, content)


def different(settings, others):
    """The flags whose values differ, as `--a, --b`; "" if none does. A run has chosen what `auto` is."""
    pairs = {n: (settings.get(n), others.get(n)) for n in settings.keys() | others.keys()}
    names = sorted(n for n, (one, other) in pairs.items() if one != other and "auto" not in (one, other))
    return ", ".join(f"--{name}" for name in names)


def _minutes(metrics, config):
    """How long the whole training takes at the rate of the process that ended it, or None.

    The process may have gone on with a run that another one began, so its own time would be too short.
    """
    rate = metrics.get("train_images_per_second")
    if not rate:
        return None
    n_images = metrics["data"]["train_images"]
    batch_size = with_data(config, n_images).batch_size
    return round(n_images // batch_size * batch_size * config.n_epoch / rate / 60, 2)


def _read_json(path):
    try:
        content = json.loads(read_limited(path, MAX_CONFIG_BYTES))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {first_line(error)}.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no object.")
    return content

"""The commands that belong to a run, as its report shows them."""

import dataclasses
import shlex

from training.recipes import dependent_defaults
from training.settings import OF_ONE_PROCESS, Config
from utils.settings import meaningless


def named_flags(config):
    """The flags, by name, that a command line must name to mean this `Config`: few, but never too few."""
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    values = {name: value for name, value in dataclasses.asdict(config).items() if name not in OF_ONE_PROCESS}
    named = {name for name, value in values.items() if value != defaults[name]}
    # What follows from a recipe or another flag need not be named; what contradicts it must.
    implied = defaults | dependent_defaults(values, named)
    return {
        name: value
        for name, value in values.items()
        if value != implied[name] and not meaningless(config, name)
    }


def commands(run):
    """Pairs of what a command does and the command, for a `Run`."""
    config, directory = run.config, str(run.directory)
    words = [f"--{name}={value}" for name, value in named_flags(config).items()]
    of = ["--run_dir", directory]
    load = f"from models import load_model\n\nm = load_model({directory!r})\nimages = m.generate(16)"
    return [
        ("This run was made by", _line("python", "main.py", *words, *of)),
        ("Train for longer", f"{run.resume_command} --n_epoch {2 * config.n_epoch}"),
        ("Use the model in Python", load),
        ("Use it without this program", _line("python", "main.py", "--export", "saved_model", *of)),
        ("Compare it with another run", _line("python", "-m", "evaluation.compare", directory, "runs/OTHER")),
        ("See it in TensorBoard", _line("tensorboard", "--logdir", directory)),
    ]


def _line(*words):
    return " ".join(map(shlex.quote, words))

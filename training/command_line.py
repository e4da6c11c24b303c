"""From the words of a command line to the settings of a run; no flag is read anywhere else."""

import dataclasses
import os
import re
from pathlib import Path

from training.help import USAGE, help_text
from training.own_parts import find_own_parts, own_parts
from training.recipes import dependent_defaults
from training.saved_config import read_saved_config
from training.settings import CHANGEABLE, Config
from utils import flags
from utils.errors import UserError
from utils.settings import check, meaningless

VERSION = "2.0"
# What uses a trained model, and the flags that mean something beside it.
BESIDE = {
    "export": ("run_dir",),
    "explore": ("run_dir", "data_dir", "explore_host", "explore_port"),
}


def read_config(argv):
    """The settings that a command line asks for; with --help or --version, prints them and returns None.

    Raises:
        UserError: for unknown flags, stray words, and values that cannot work.
    """
    words = flags.read(Config, argv[1:])
    if words.wants:
        print(f"{USAGE}{help_text()}" if "help" in words.wants else f"aae {VERSION}")
        return None
    given = {
        field.name: canonical_name(words.values[field.name])
        if field.metadata["choices"]
        else words.values[field.name]
        for field in dataclasses.fields(Config)
    }
    given["data_dir"] = given["data_dir"] or os.environ.get("AAE_DATA_DIR", "")
    for name, default in dependent_defaults(given, words.named).items():
        if name not in words.named:
            given[name] = default
    config = Config(**given)
    if config.prepare:
        check(config)
        for name in sorted(words.typed - {"prepare", "data", "data_dir", "image_size", "stream"}):
            raise UserError(f"--{name} has no effect with --prepare: leave it out.")
        return config
    for use, beside in BESIDE.items():
        if getattr(config, use):
            check(config)
            if not config.run_dir:
                raise UserError(f"--{use} needs the --run_dir of the run whose model it takes.")
            for name in sorted(words.typed - {use, *beside} - own_parts(config).keys()):
                raise UserError(f"--{name} has no effect with --{use}: leave it out.")
            find_own_parts(config, argv)
            # The run knows where its data lay, unless another place is named.
            return config if "data_dir" in words.named else dataclasses.replace(config, data_dir="")
    if config.resume:
        if not config.run_dir:
            raise UserError("--resume needs the --run_dir of the run to go on with.")
        config = _resumed(config, words.named)
    config.validate()
    find_own_parts(config, argv)
    for name in sorted(words.typed):
        if reason := meaningless(config, name):
            raise UserError(f"--{name} has no effect with {reason}: leave it out.")
    return config


def canonical_name(name):
    """The registry's spelling of a name: MNIST -> mnist, CIFAR_10 -> cifar10, CelebA -> celeb_a.

    What stands in no registry, such as tfds:NAME, stays as it is.
    """
    if ":" in name:
        return name
    name = re.sub(r"_(?=\d)", "", name.lower().replace("-", "_"))
    return {"celeba": "celeb_a"}.get(name, name)


def _resumed(config, named):
    """The configuration of the run to resume, with the changes that are allowed."""
    saved, _ = read_saved_config(Path(config.run_dir))
    for name in sorted(named - CHANGEABLE):
        old, new = getattr(saved, name), getattr(config, name)
        # What auto found is what the run goes on with.
        if old != new and not (name in ("data", "precision") and new == "auto"):
            raise UserError(f"--{name} {new} differs from the run's {old}; leave it out to resume.")
    changes = {name: getattr(config, name) for name in (named & CHANGEABLE) | {"run_dir", "resume"}}
    resumed = dataclasses.replace(saved, **changes)
    if "clean_epoch" not in named and saved.clean_epoch == _usual_clean_epoch(saved):
        resumed = dataclasses.replace(resumed, clean_epoch=_usual_clean_epoch(resumed))
    return resumed


def _usual_clean_epoch(config):
    """The default of `clean_epoch` beside a configuration's other values: it follows the length of a run."""
    return dependent_defaults(dataclasses.asdict(config), set())["clean_epoch"]

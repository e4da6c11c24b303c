"""Reading the settings that a run has noted: an earlier version may have written them, or anybody."""

import dataclasses
import json

from training.settings import Config
from utils.errors import UserError
from utils.settings import of_saved
from utils.untrusted import read_limited, refuse_links

MAX_CONFIG_BYTES = 2**24  # most of a config.json are the indices of labelled images


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
        problem = "is no folder" if not run_dir.is_dir() else "holds no run: config.json is missing"
        raise UserError(f"--run_dir {run_dir} {problem}.") from None
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path} is not a configuration of this program: {error}") from None
    refuse_links(run_dir)
    return config, saved["data"]


def saved_figures(run_dir):
    """The numbers in a run's metrics.json, by name; {} where there is none, or it is none."""
    try:
        metrics = json.loads(read_limited(run_dir / "metrics.json", MAX_CONFIG_BYTES))
        return {name: value for name, value in metrics.items() if isinstance(value, (int, float))}
    except (OSError, ValueError, AttributeError):
        return {}


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
    return Config(**of_saved(Config, flags))

"""A run whose model is there to be used."""

from pathlib import Path

from training.own_parts import own_parts
from training.saved_config import read_saved_config
from utils.errors import UserError


def trained_run(config):
    """The `Config` of the run in `config.run_dir`, and its description of its data.

    Raises:
        UserError: if there is no run or no trained model, or code of the user's own was not named again.
    """
    directory = Path(config.run_dir)
    saved, data = read_saved_config(directory)
    for name, value in own_parts(saved).items():
        if getattr(config, name) != value:
            raise UserError(f"The run's --{name} {value} is code: to run it, add --{name} {value}.")
    if not (directory / "model.keras").is_file():
        raise UserError(f"{directory} has no trained model yet: finish it with --resume.")
    return saved, data

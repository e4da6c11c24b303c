"""The checkpoints of a run: .keras files that each note their place in the training.

Every draw, shuffle and learning rate is a function of the weights, the optimizers, the count of train steps
and the flags, so a file needs no more than these and the running means of an epoch that has begun. When
checkpoints are written is the business of `training.callbacks.Checkpoints`.
"""

import dataclasses
import math
import re

from models.model_file import data_differences, read_description, save_model
from training.saved_config import config_of
from training.settings import CHANGEABLE
from utils import processor
from utils.errors import UserError

KEPT = 2


def least_steps():
    """Train steps between two checkpoints: saving one takes as long as some, or as a thousand on a GPU."""
    return 5000 if processor.has_gpu() else 100


def epochs_between(steps_per_epoch):
    """Epochs from one checkpoint to the next: 1, or where epochs are short as many as have `least_steps`."""
    return math.ceil(least_steps() / steps_per_epoch)


@dataclasses.dataclass(frozen=True, order=True)
class Checkpoint:
    """A place in the training, which is also the name of its file.

    Attributes:
        epoch: number of finished epochs.
        step: number of train steps done in the next one.
        means: total and count of every running mean of that epoch, by its name.
    """

    epoch: int = 0
    step: int = 0
    means: dict = dataclasses.field(default_factory=dict, compare=False)

    @property
    def name(self):
        return f"epoch_{self.epoch:05d}{f'_step_{self.step:05d}' if self.step else ''}.keras"

    def __str__(self):
        return f"epoch {self.epoch}{f', step {self.step} of the next' if self.step else ''}"


def saved_checkpoints(directory):
    """The checkpoints in a folder, oldest first, without their means."""
    matches = [re.fullmatch(r"epoch_(\d+)(?:_step_(\d+))?\.keras", path.name) for path in directory.iterdir()]
    return sorted(Checkpoint(int(match[1]), int(match[2] or 0)) for match in matches if match)


def save_checkpoint(model, directory, checkpoint, description):
    """Saves the model in a folder, and removes all checkpoints but the last two up to this one.

    Args:
        checkpoint: where in the training the model is.
        description: of the run, see `Run.describe`.
    """
    save_model(model, directory / checkpoint.name, noted(checkpoint, description))
    saved = saved_checkpoints(directory)
    # A later one is damaged, or the run would have gone on from it.
    kept = [other for other in saved if other <= checkpoint][-KEPT:]
    for other in set(saved) - set(kept):
        (directory / other.name).unlink()


def noted(checkpoint, description):
    """What a .keras file notes: the run's description and the place in its training."""
    return {**description, "checkpoint": dataclasses.asdict(checkpoint)}


def choose_checkpoint(directory, description):
    """The newest whole checkpoint in a folder, or None where there is none at all.

    A damaged one is named on the console, and the one before is taken.

    Args:
        description: of the run that wants to go on.

    Raises:
        UserError: if all are damaged, or the newest whole one belongs to another run.
    """
    saved = saved_checkpoints(directory)
    for checkpoint in reversed(saved):
        path = directory / checkpoint.name
        try:
            noted = read_description(path)
            if noted and (held := Checkpoint(**noted["checkpoint"])) != checkpoint:
                raise ValueError(f"it holds {held}")
        except (ValueError, TypeError, RecursionError) as error:
            print(f"{path} is damaged, {error}: it is left out.", flush=True)
            continue
        if not noted:
            print(f"{path} does not say which run it belongs to: its folder is trusted.", flush=True)
            return checkpoint
        refuse_other_run(path, noted, description)
        for part in ("versions", "kernels", "workers"):  # earlier versions noted no kernels, nor workers
            then, now = (d.get(part, description[part]) for d in (noted, description))
            if then != now:
                then, now = (" ".join(map(" ".join, values.items())) for values in (then, now))
                print(f"{path} was written with {then}; {now} may differ in the last digits.", flush=True)
        return held
    if saved:
        raise UserError(f"All checkpoints in {directory} are damaged: start a new run.")
    return None


def refuse_other_run(path, noted, description):
    """Compares what a .keras file notes of its run with the run that it lies in.

    Raises:
        UserError: names the flags and the figures of the data that differ.
    """
    theirs, ours = config_of(noted["flags"], path), config_of(description["flags"], path)
    names = [field.name for field in dataclasses.fields(ours) if field.name not in CHANGEABLE]
    differences = [
        f"--{name} {getattr(theirs, name)} instead of {getattr(ours, name)}"
        for name in names
        if getattr(theirs, name) != getattr(ours, name)
    ]
    differences += data_differences(noted["data"], description["data"])
    if differences:
        raise UserError(f"{path} belongs to another run: {', '.join(differences)}.")

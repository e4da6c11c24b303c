"""What a .keras file of a run is: an archive of Keras that names its run and carries a checksum.

The archive holds weights, optimizers and the count of train steps; every draw, shuffle and learning rate
is a function of these and of the flags. Its comment, which Keras ignores, is a JSON object with the run's
flags and data and the running means of an epoch that has begun, and after it the SHA-256 of all bytes before.
When checkpoints are written is the business of `utils.callbacks.Checkpoints`.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import zipfile
from pathlib import Path

from utils.config import CHANGEABLE, config_of, read_saved_config
from utils.errors import UserError, first_line
from utils.files import atomic_path

KEPT = 2
DIGEST_SIZE = 64  # hexadecimal digits of SHA-256


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
    """Saves the model in a folder, and removes all checkpoints but the last two up to this one."""
    save_model(model, directory / checkpoint.name, checkpoint, description)
    saved = saved_checkpoints(directory)
    # A later one is damaged, or the run would have gone on from it.
    kept = [other for other in saved if other <= checkpoint][-KEPT:]
    for other in set(saved) - set(kept):
        (directory / other.name).unlink()


def save_model(model, path, checkpoint, description):
    """Writes a .keras file atomically.

    Args:
        checkpoint: where in the training the model is.
        description: of the run, see `Run.describe`.
    """
    _remember_what_saving_skips()
    comment = json.dumps({**description, "checkpoint": dataclasses.asdict(checkpoint)})
    with atomic_path(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.comment = comment.encode() + bytes(DIGEST_SIZE)
        with open(temporary, "rb+") as file:
            digest = _digest(file)
            file.seek(-DIGEST_SIZE, os.SEEK_END)
            file.write(digest)


def _remember_what_saving_skips():
    """Keeps `model.save` from leaving 0.2 MB behind with each call.

    Keras 3.15 notes which attributes of an optimizer are not to be saved under one name, and looks for them
    under another. So each call makes an optimizer to ask it, whose variables have new names, and TensorFlow
    remembers an operation for every name.
    """
    # Where a later version has neither name, there is nothing to mend.
    with contextlib.suppress(ImportError, AttributeError):
        from keras.src.backend.common.global_state import set_global_attribute
        from keras.src.saving.saving_lib import get_attr_skipset

        set_global_attribute("saving_attr_skiplist_Optimizer", get_attr_skipset("Optimizer"))


def read_description(path):
    """What `save_model` noted in a .keras file, once its checksum has been found right.

    Returns:
        the description; {} for a file without one, as other programs and earlier versions write them.

    Raises:
        ValueError: if the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
            comment = archive.comment
            file.seek(-22, os.SEEK_END)
            described = file.read(4) != b"PK\5\6"  # there, an archive without a comment ends
            if sum(member.file_size for member in archive.infolist()) > path.stat().st_size:
                raise ValueError("it would unpack to more than its size")  # Keras does not compress
            intact = _digest(file) == comment[-DIGEST_SIZE:] if described else archive.testzip() is None
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise ValueError(f"it is no whole archive ({first_line(error)})") from None
    if not intact:
        raise ValueError("its checksum is wrong")
    if not described:
        return {}
    description = json.loads(comment[:-DIGEST_SIZE])
    if not isinstance(description, dict) or not {"flags", "data", "versions", "checkpoint"} <= set(
        description
    ):
        raise ValueError("it does not say which run it belongs to")
    return description


def _digest(file):
    """The SHA-256 of an open file up to the place of its own digest, as bytes of hexadecimal digits."""
    digest, left = hashlib.sha256(), os.fstat(file.fileno()).st_size - DIGEST_SIZE
    file.seek(0)
    while left > 0 and (block := file.read(min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    return digest.hexdigest().encode()


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
        if noted["versions"] != description["versions"]:
            then, now = (" ".join(map(" ".join, d["versions"].items())) for d in (noted, description))
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


def data_differences(old, new):
    """Texts about what differs between two descriptions of data; where and how it was found may."""
    names = [name for name in new if name not in ("source", "note") and name in old]
    return [f"{name} {old[name]} instead of {new[name]}" for name in names if old[name] != new[name]]


def checked_model_file(path):
    """The .keras file of a trained model, whole and of its folder's run.

    Args:
        path: the file, or the folder of a run.

    Raises:
        FileNotFoundError: if there is none.
        UserError: if it is damaged, or does not belong to the folder's run.
    """
    path = Path(path)
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"There is no trained model at {file}.")
    try:
        noted = read_description(file)
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file} is damaged: {error}.") from None
    if noted and (path / "config.json").is_file():
        config, data = read_saved_config(path)
        refuse_other_run(file, noted, {"flags": dataclasses.asdict(config), "data": data})
    elif noted:
        config_of(noted["flags"], file)  # refuses those of a newer version
    return file

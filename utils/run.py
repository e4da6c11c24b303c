"""The run directory, prepared before TensorFlow is imported so that mistakes are answered at once."""

import dataclasses
import time
from importlib import metadata
from pathlib import Path

import numpy as np

from data import ATTRIBUTE_DATASETS, RESIZED
from data.image_data import ImageData, balanced_choice
from data.loading import SUBSTITUTE_NOTE, load_data
from utils.config import Config, read_saved_config
from utils.errors import UserError
from utils.files import write_json, write_text


@dataclasses.dataclass(frozen=True)
class Run:
    """A configuration, its data, and the directory where everything lands."""

    config: Config
    data: ImageData
    directory: Path
    labelled: np.ndarray | None = None  # indices of the labelled training images, int (L,)

    @property
    def plots(self):
        return self.directory / "plots"

    @property
    def checkpoints(self):
        return self.directory / "checkpoints"

    def last_checkpoint(self):
        """Path and number of finished epochs of the newest checkpoint, or (None, 0)."""
        paths = sorted(self.checkpoints.glob("epoch_*.keras"))
        return (paths[-1], int(paths[-1].stem.removeprefix("epoch_"))) if paths else (None, 0)


def prepare_run(config):
    """Loads the data and sets up the run directory.

    Raises:
        UserError: if the data or the directory cannot be used; nothing has been written then.
    """
    if config.data in ATTRIBUTE_DATASETS:
        _refuse_attributes(config)  # before minutes of decoding
    if config.data in RESIZED:
        config.check_image_shape((config.image_size, config.image_size))  # likewise
    data = load_data(config.data, config.data_dir, config.image_size)
    if data.has_attributes:
        _refuse_attributes(config)
    config.check_image_shape(data.image_shape)
    if config.resume:
        data = _same_data(Path(config.run_dir), data)
    if config.batch_size > len(data.train_images):
        raise UserError(
            f"--batch_size {config.batch_size} is larger than the {len(data.train_images)} "
            f"training images of {data.name}."
        )
    labelled = _choose_labelled(config, data) if config.model == "semi_supervised" else None
    # The data that was found, so that flags.txt repeats the run where `auto` would find other data.
    config = dataclasses.replace(config, data=data.name)
    directory = Path(config.run_dir or _default_directory(config))
    if not config.resume and directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} is not empty: choose another --run_dir, or add --resume.")
    run = Run(config, data, directory, labelled)
    _, finished = run.last_checkpoint()
    # A run may also have ended between its last epoch and its pictures, so equality is fine.
    if config.n_epoch < finished:
        raise UserError(f"{finished} epochs are done, so --n_epoch cannot be {config.n_epoch}.")
    try:
        for folder in (run.plots, run.checkpoints):
            folder.mkdir(parents=True, exist_ok=True)
        packages = ("tensorflow", "keras", "numpy")
        write_json(
            directory / "config.json",
            {
                "flags": dataclasses.asdict(config),
                "data": data.describe(),
                "labelled_indices": None if labelled is None else labelled.tolist(),
                "versions": {name: metadata.version(name) for name in packages},
            },
        )
        write_text(directory / "flags.txt", "\n".join(config.flag_lines()) + "\n")
    except OSError as error:
        raise UserError(f"The run directory {directory} cannot be written: {error}.") from None
    return run


def _refuse_attributes(config):
    if config.PARR or (config.PMLR and config.model == "conditional"):
        raise UserError(
            f"--{'PARR' if config.PARR else 'PMLR'} draws every class; {config.data} has attributes instead."
        )
    if config.model in ("supervised", "semi_supervised"):
        raise UserError(
            f"--model {config.model} needs one class per image, which {config.data} does not have: "
            f"choose --model conditional or unsupervised."
        )


def _choose_labelled(config, data):
    if not data.n_classes <= config.num_samples <= len(data.train_images):
        raise UserError(
            f"--num_samples must be from {data.n_classes}, one per class, to {len(data.train_images)}, all "
            f"training images of {data.name}; got {config.num_samples}."
        )
    return balanced_choice(data.train_labels, config.num_samples, config.seed)


def _default_directory(config):
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return f"runs/{config.model}-{config.prior}-z{config.n_z}-{config.data}-{stamp}"


def _same_data(directory, data):
    """The data, with the note that the run began with, if it is the data of the run to resume."""
    _, saved = read_saved_config(directory)
    now = data.describe()
    compared = [name for name in now if name not in ("source", "note")]
    changes = [
        f"{name} {saved.get(name)} -> {now[name]}" for name in compared if saved.get(name) != now[name]
    ]
    if changes:
        raise UserError(f"The data is not that of the run in {directory}: {', '.join(changes)}.")
    # The only note there is: pictures show no text that somebody wrote into the file.
    return dataclasses.replace(data, note=SUBSTITUTE_NOTE if saved.get("note") == SUBSTITUTE_NOTE else "")

"""What is measured: the models, and the images."""

import dataclasses
from pathlib import Path

import numpy as np

from data.image_data import ImageData, balanced_choice
from data.loading import DataNotFound, load_data
from main import read_config

CONFIGS = Path(__file__).parents[1] / "configs"
WARM_UP_STEPS = 3
INFERENCE_BATCH = 1000  # that of models.prediction, which PyTorch's process must not import with TensorFlow
N_BATCHES = 8  # made beforehand, and used again and again


@dataclasses.dataclass(frozen=True)
class Case:
    """One model and batch, a group of rows in the tables.

    Attributes:
        name: for `--cases`.
        flags: of `main.py`, by name.
        flagfile: a file in configs/ that is read before the flags.
        coloured: whether it takes random 32 x 32 x 3 images with 40 attributes instead of the images given.
        fit_rounds: how often to measure `fit`: as often as the whole benchmark has time for.
        tiny: for the smoke test, whose figures mean nothing.
    """

    name: str
    flags: dict = dataclasses.field(default_factory=dict)
    flagfile: str = ""
    coloured: bool = False
    fit_rounds: int = 0
    tiny: bool = False

    def __str__(self):
        config = self.config()
        hidden = config.conv_widths if config.network == "conv" else f"{config.n_hidden},{config.n_hidden}"
        network = f"{config.network} {hidden.replace(',', '-')}"
        return f"{self.name}: {config.model}, {network}, n_z {config.n_z}, batch {config.batch_size}"

    def config(self, precision="float32"):
        """The configuration that `main.py` makes of these flags, its defaults included."""
        words = [f"--flagfile={CONFIGS / self.flagfile}"] if self.flagfile else []
        words += [f"--{name}={value}" for name, value in self.flags.items()]
        return read_config(["main.py", *words, f"--precision={precision}"])

    def with_flags(self, **flags):
        """The same case with some flags changed."""
        return dataclasses.replace(self, flags={**self.flags, **flags})

    def shrunk(self):
        """The same model as small as a smoke test needs it."""
        widths = {"conv_widths": "4,8"} if self.config().network == "conv" else {}
        small = self.with_flags(n_hidden=16, batch_size=32, **widths)
        return dataclasses.replace(small, fit_rounds=min(self.fit_rounds, 1), tiny=True)

    def images(self, given):
        """The case's own images, or those given to the benchmark."""
        if self.coloured:
            return random_images("random 32 x 32 x 3", (32, 32, 3), 2048, attributes=40)
        return load_data("digits") if self.config().data == "digits" else given


SUPERVISED = {"model": "supervised", "prior": "gaussian_mixture", "n_z": 2}
SEMI_SUPERVISED = {"model": "semi_supervised", "recipe": "paper", "prior": "gaussian", "n_z": 10}
CASES = (
    Case("h1000", {**SUPERVISED, "n_hidden": 1000, "batch_size": 128}, fit_rounds=3),
    Case("digits", {**SUPERVISED, "data": "digits", "batch_size": 32}, fit_rounds=3),
    Case("h1000_batch512", {**SUPERVISED, "n_hidden": 1000, "batch_size": 512}, fit_rounds=2),
    Case("h3000", {**SUPERVISED, "n_hidden": 3000, "batch_size": 128}),
    Case("semi_supervised", {**SEMI_SUPERVISED, "n_hidden": 1000, "num_samples": 100}, fit_rounds=2),
    Case("conv28", flagfile="freiburg_3_mnist_conv_y.flags"),
    Case("conv32", flagfile="freiburg_5_celeba_conv_y.flags", coloured=True),
)


def load_images(data_dir, count=60_000):
    """MNIST if `data_dir` has it, otherwise random images of its shape.

    Args:
        count: number of random training images, before the validation split is taken.
    """
    if data_dir:
        try:
            return load_data("mnist", data_dir)
        except DataNotFound as error:
            print(error)
    return random_images("random images, MNIST not given", (28, 28, 1), count)


def random_images(source, shape, count, attributes=0):
    """Random images of 10 classes, or with so many attributes: an `ImageData`.

    Args:
        shape: (H, W, C).
        count: number of training images, before the validation split is taken.
    """
    random = np.random.default_rng(0)

    def split(n):
        labels = random.integers(0, 2, (n, attributes)) if attributes else random.integers(0, 10, n)
        return random.integers(0, 256, (n, *shape), np.uint8), labels.astype(np.uint8)

    held_out = count // 12
    splits = [*split(count - held_out), *split(held_out), *split(max(count // 6, 500))]
    return ImageData("random", source, *splits, n_classes=attributes or 10)


def labelled_indices(config, data):
    """The labelled training images that a semi-supervised run would choose, int (L,); None for others."""
    if not config.learns_labels:
        return None
    return balanced_choice(data.train_labels, config.num_samples, config.seed)


def premade_batches(config, data):
    """The first training images, and for a semi-supervised model labelled ones.

    Returns:
        Arrays whose first two axes are (N_BATCHES, B): uint8 images (..., H, W, C) and labels, then the
        labelled images and theirs, of which a batch has as many as there are, B at most.
    """
    first = np.arange(N_BATCHES * config.batch_size) % len(data.train_images)
    chosen = [first.reshape(N_BATCHES, -1)]
    labelled = labelled_indices(config, data)
    if labelled is not None:
        size = min(config.batch_size, len(labelled))
        chosen.append(np.resize(labelled, (N_BATCHES, size)))
    return tuple(array[indices] for indices in chosen for array in (data.train_images, data.train_labels))


def images_to_reconstruct(data):
    """Training images, 10,000 where there are so many, and their labels."""
    return data.train_images[:10_000], data.train_labels[:10_000]

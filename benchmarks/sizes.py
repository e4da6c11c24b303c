"""What is measured: the sizes of the models, and the images."""

import dataclasses

import numpy as np

from data.image_data import ImageData
from data.loading import DataNotFound, load_data
from main import read_config

WARM_UP_STEPS = 3
N_BATCHES = 8  # made beforehand, and used again and again


@dataclasses.dataclass(frozen=True)
class Size:
    """One model and batch, a row group of the tables.

    Attributes:
        fit_rounds: epochs of `fit` to measure: as many as the whole benchmark has time for.
        tiny: for the smoke test, whose figures mean nothing.
    """

    n_hidden: int
    batch_size: int
    fit_rounds: int = 0
    tiny: bool = False
    model: str = "supervised"
    prior: str = "gaussian_mixture"
    n_z: int = 2

    def __str__(self):
        return f"{self.model} 784-{self.n_hidden}-{self.n_hidden}-{self.n_z}, batch {self.batch_size}"

    def config(self, precision="float32"):
        """The configuration that `main.py` makes of these flags, its defaults included."""
        names = ("model", "prior", "n_z", "n_hidden", "batch_size")
        words = [f"--{name}={getattr(self, name)}" for name in names]
        return read_config(["main.py", *words, f"--precision={precision}"])


SIZES = (
    Size(1000, 128, fit_rounds=3),
    Size(1000, 512, fit_rounds=2),
    Size(3000, 128),
)
TINY_SIZES = (Size(16, 32, fit_rounds=1, tiny=True),)


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
    random = np.random.default_rng(0)

    def split(n):
        return random.integers(0, 256, (n, 28, 28, 1), np.uint8), random.integers(0, 10, n, np.uint8)

    return ImageData.from_official_split(
        "random", "random images, MNIST not given", split(count), split(max(count // 6, 500))
    )


def premade_batches(data, batch_size):
    """The first training images: uint8 (N_BATCHES, B, H, W, C) and (N_BATCHES, B)."""
    chosen = np.arange(N_BATCHES * batch_size) % len(data.train_images)
    return (
        data.train_images[chosen].reshape(N_BATCHES, batch_size, *data.image_shape),
        data.train_labels[chosen].reshape(N_BATCHES, batch_size),
    )

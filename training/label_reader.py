"""A network that reads labels in images, to measure whether a decoder obeys the label that it is given.

It belongs to the data, not to a run: it is trained once on the training split and kept in a file, so that
the figures of all runs on these images come from the same reader.
"""

import functools
import os
import re
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from data.pipeline import read_batches
from evaluation.figures import evenly
from models.augmentation import shifted, to_unit_interval
from utils.errors import first_line
from utils.files import atomic_path
from utils.untrusted import read_arrays

FORMAT = 1  # to be raised with every change of the network or of its training
BATCH = 128
EPOCHS, MIN_STEPS = 5, 300
MOST = 200_000  # training images: more of them would take hours
SHIFT = 2  # pixels
SMALLEST_SIDE = 8  # pixels of the last feature map, at most


class LabelReader:
    """A small convolutional network, trained on real images.

    Args:
        network: a Keras model, images (B, H, W, C) to logits (B, K).
        data: an `ImageData`.
    """

    def __init__(self, network, data):
        self.network = network
        self.data = data

    @functools.cached_property
    def test_error_percent(self):
        """Share of the test images that it reads wrong; the test split is read when this is asked for."""
        return 100 * (1 - self.accuracy(self.data.test_images, self.data.test_labels))

    def read(self, images):
        """The most probable label of each image: uint8, or float32 in [0, 1], (N, H, W, C) to int (N,)."""
        parts = [images[start : start + 1000] for start in range(0, max(len(images), 1), 1000)]
        return np.concatenate([self.network(to_unit_interval(part)).numpy().argmax(axis=1) for part in parts])

    def accuracy(self, images, labels):
        """Share of the images whose label is read as the one given: (N,), or one for all."""
        return float(np.mean(self.read(images) == labels))


def label_reader(data):
    """The `LabelReader` of a data set, from its file or trained now; None where images have no classes.

    Args:
        data: an `ImageData`.
    """
    if data.has_attributes or data.n_classes < 2:
        missing = "attributes instead of classes" if data.has_attributes else "one class"
        print(f"{data.name} has {missing}: no reader can tell whether labels are obeyed.", flush=True)
        return None
    network = make_network(data.image_shape, data.n_classes)
    name = re.sub(r"\W", "_", data.name)
    paths = [folder / f"aae_reader_{name}_{data.checksum}.npz" for folder in _folders(data)]
    for path in paths:
        if path.is_file() and restore(network, path):
            return LabelReader(network, data)
    print(f"Training a reader of the labels of {data.name}, once for all runs ...", flush=True)
    _train(network, data)
    save(network, paths)
    return LabelReader(network, data)


def _folders(data):
    """Where the file may lie: beside the data, or in the user's cache where that cannot be written."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aae"
    return [*([Path(data.folder)] if data.folder else []), cache]


def make_network(image_shape, n_classes):
    """Strided convolutions until the feature map is small, then two dense layers; logits (B, K)."""
    kernels = (keras.initializers.HeNormal(seed) for seed in range(100))
    layers = [keras.Input(image_shape)]
    side, width = max(image_shape[:2]), 32
    while side > SMALLEST_SIDE:
        kernel = 5 if len(layers) == 1 else 3
        layers.append(
            keras.layers.Conv2D(
                width,
                kernel,
                strides=2,
                padding="same",
                activation="relu",
                kernel_initializer=next(kernels),
            )
        )
        side, width = -(-side // 2), 64
    layers += [
        keras.layers.Flatten(),
        keras.layers.Dropout(0.3, seed=0),
        keras.layers.Dense(128, activation="relu", kernel_initializer=next(kernels)),
        keras.layers.Dropout(0.3, seed=1),
        keras.layers.Dense(n_classes, kernel_initializer=next(kernels)),
    ]
    return keras.Sequential(layers)


def _train(network, data):
    """Trains on the training split, shifted at random; seed 0 whatever the run's, so that all runs agree."""
    chosen = evenly(np.arange(len(data.train_images)), MOST)
    count = len(chosen)
    per_epoch = -(-count // BATCH)
    epochs = max(EPOCHS, -(-MIN_STEPS // per_epoch))

    def prepared(index, batch):
        images, labels = batch
        return shifted(to_unit_interval(images), SHIFT, tf.stack([0, index])), labels

    numbers = tf.data.Dataset.from_tensor_slices({"images": chosen}).shuffle(count, seed=0).batch(BATCH)
    batches = read_batches(numbers.repeat(epochs), data.train_images, data.train_labels)
    batches = batches.enumerate().map(prepared).prefetch(1)
    network.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, epochs * per_epoch)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    network.fit(
        batches, epochs=EPOCHS, steps_per_epoch=epochs * per_epoch // EPOCHS, shuffle=False, verbose=2
    )


def save(network, paths):
    """Writes the weights to the first of the paths that can be written."""
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                np.savez(temporary, format=FORMAT, **_named(network.get_weights()))
            return
        except OSError:
            continue
    print(f"The reader cannot be kept at {' or '.join(map(str, paths))}: every run will train one.")


def restore(network, path):
    """Whether the weights in a file, which may hold anything, are the network's; it has them then."""
    expected = _named(network.get_weights())
    try:
        found = read_arrays(path, ["format", *expected], os.path.getsize(path))
        if int(found.pop("format")) != FORMAT:
            return False
        for name, array in found.items():
            if array.shape != expected[name].shape or array.dtype != np.float32:
                raise ValueError(f"{name} does not fit")
        network.set_weights(list(found.values()))
    except Exception as error:  # whatever zipfile and numpy raise on a damaged file
        print(f"The reader {path} is damaged and is trained anew: {first_line(error)}", flush=True)
        return False
    return True


def _named(weights):
    return {f"weight_{index}": weight for index, weight in enumerate(weights)}

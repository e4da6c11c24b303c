"""The project's own train step, in the variants that are compared."""

import itertools
import math
import time
from unittest import mock

import keras
import numpy as np
import tensorflow as tf

from benchmarks.cases import WARM_UP_STEPS, images_to_reconstruct, labelled_indices, premade_batches
from models.adversarial_autoencoder import AdversarialAutoencoder
from training import callbacks
from training.checkpoints import epochs_between
from training.fit import build_model, steps_per_call, train_and_evaluate, uses_xla
from training.run import Run

# A call of the train function takes as many steps as in `fit`, but no more than these: blocks stay short.
STEPS_PER_CALL = {"CPU": 5, "GPU": 200}


class BareStep:
    """The compiled train function as `fit` calls it, in a loop on an iterator of batches made beforehand.

    Args:
        stock: train with the optimizers of Keras in all phases.
        precision: of the model.
    """

    def __init__(self, case, data, directory, stock=False, precision="float32"):
        config = case.config(precision)
        self.batch_size = config.batch_size
        self.model = build_model(config, data)
        optimizers = {name: getattr(self.model, name) for name in self.model.get_compile_config()}
        if stock:
            kind = {"adam": StockAdam, "sgd": keras.optimizers.SGD}[config.optimizer]
            optimizers = {name: kind.from_config(own.get_config()) for name, own in optimizers.items()}
        in_fit = steps_per_call(config, len(data.train_images) // config.batch_size)
        most = STEPS_PER_CALL["GPU" if tf.config.list_physical_devices("GPU") else "CPU"]
        self.model.compile(jit_compile=uses_xla(config), steps_per_execution=min(in_fit, most), **optimizers)
        for phase, rate in config.learning_rates(0).items():
            getattr(self.model, f"{phase}_optimizer").learning_rate = rate
        self.train = self.model.make_train_function()
        held, batches = held_and_chosen(premade_batches(config, data))
        self.model.hold(*held)
        self.iterator = iter(tf.data.Dataset.from_tensor_slices(batches).repeat())
        self.run(WARM_UP_STEPS)

    def run(self, steps):
        """At least so many steps, in whole calls."""
        calls = math.ceil(steps / self.model.steps_per_execution)
        start = time.perf_counter()
        for _ in range(calls):
            logs = self.train(self.iterator)
        float(logs["reconstruction_loss"])  # waits for the last step
        images = calls * self.model.steps_per_execution * self.batch_size
        return {"seconds": time.perf_counter() - start, "images": images}


def held_and_chosen(arrays):
    """Batches as `fit` has them: images and labels for the model to hold, and the indices of each batch.

    Args:
        arrays: what `premade_batches` returns.
    """
    held = [np.concatenate([np.concatenate(array) for array in arrays[kind::2]]) for kind in (0, 1)]
    chosen, begin = {}, 0
    for name, images in zip(("images", "labelled"), arrays[::2], strict=False):
        shape = images.shape[:2]
        chosen[name] = begin + np.arange(math.prod(shape)).reshape(shape)
        begin += chosen[name].size
    return held, chosen


class StockAdam(keras.optimizers.Adam):
    """Keras's own, with a branch around the update for `--balance`, which Keras has nothing for."""

    def apply_if(self, condition, gradients, variables):
        tf.cond(condition, lambda: self.apply(gradients, variables), lambda: None)


class Reconstruct:
    """Encodes and decodes images after training, numpy in and numpy out."""

    def __init__(self, case, data, directory):
        self.model = build_model(case.config(), data)
        self.images, self.labels = images_to_reconstruct(data)
        self.run(1)

    def run(self, steps):
        """All images, however many steps that is."""
        start = time.perf_counter()
        self.model.reconstruct(self.images, self.labels)
        return {"seconds": time.perf_counter() - start, "images": len(self.images)}


class FitEpochs:
    """Epochs as `main.py` trains them, one checkpoint: its pipeline, its callbacks, its validation."""

    def __init__(self, case, data, directory):
        self.model, self.arguments = captured_fit(case.config(), data, directory)
        steps = self.arguments["steps_per_epoch"]
        self.epochs = epochs_between(steps)
        self.images = self.epochs * steps * case.config().batch_size
        # A short epoch traces the functions and visits every callback.
        self._fit(steps_per_epoch=self.model.steps_per_execution)

    def run(self, steps):
        """These epochs, however many steps that is; they pay their share of the previews."""
        start = time.perf_counter()
        self._fit()
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        for callback in self.arguments["callbacks"]:
            if isinstance(callback, callbacks.Previews):
                callback.on_epoch_end(callback.every - 1)
        seconds += (time.perf_counter() - start) / callbacks.PREVIEW_EVERY
        return {"seconds": seconds, "images": self.images}

    def _fit(self, **changes):
        # Not from the first epoch on, which draws previews as few others do.
        begin = {"initial_epoch": self.epochs, "epochs": 2 * self.epochs}
        self.model.fit(**{**self.arguments, **begin, **changes})


class Pipeline:
    """The batches of `fit` alone, without a train step."""

    def __init__(self, case, data, directory):
        self.batch_size = case.config().batch_size
        _, arguments = captured_fit(case.config(), data, directory)
        self.batches = iter(arguments["x"])
        self.run(WARM_UP_STEPS)

    def run(self, steps):
        start = time.perf_counter()
        for _ in itertools.islice(self.batches, steps):
            pass
        return {"seconds": time.perf_counter() - start, "images": steps * self.batch_size}


def captured_fit(config, data, directory):
    """The model and the arguments with which the project calls `fit` for this configuration.

    Taken from the call itself, so that the epoch measured is the epoch that users get.
    """

    class Call(Exception):
        pass

    def fit(model, x=None, **arguments):
        raise Call(model, {"x": x, **arguments})

    run = Run(config, data, directory, labelled_indices(config, data))
    for folder in (run.plots, run.checkpoints):
        folder.mkdir(parents=True)
    with mock.patch.object(AdversarialAutoencoder, "fit", fit):
        try:
            train_and_evaluate(run)
        except Call as call:
            return call.args
    raise RuntimeError("train_and_evaluate did not call fit.")

"""Trains a few steps on one device and on two, on the same global batches; run by test_models.py."""

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parents[1]))

from data.pipeline import evaluation_batches
from models.optimizers import FusedAdam
from models.supervised import SupervisedAAE


class WithoutDraws(SupervisedAAE):
    """Replicas draw differently by design: here the prior's samples depend on the label alone."""

    def real_samples(self, labels, seed):
        return (self.with_label(tf.stack([tf.cast(labels, tf.float32) / 9] * 2, axis=1), labels, seed),)


def train(strategy):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 8, 8, 1), np.uint8)
    labels = rng.integers(0, 10, 64).astype(np.uint8)
    with strategy.scope():
        draws = {"keep_prob": 1.0, "noise_std": 0.0, "d_noise": 0.0}  # none
        model = WithoutDraws(
            (8, 8, 1), 10, prior="gaussian", n_z=2, n_hidden=16, seed=1, balance=True, **draws
        )
        model.compile(**{f"{phase}_optimizer": FusedAdam(1e-2, epsilon=1e-4) for phase in model.phases})
    batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)
    history = model.fit(batches, epochs=2, verbose=0, validation_data=evaluation_batches(images, labels, 24))
    error = np.array(history.history["val_reconstruction_mse"])
    return [error, *(np.array(variable) for variable in model.trainable_variables)]


cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
one = train(tf.distribute.get_strategy())
two = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
difference = max(np.abs(a - b).max() for a, b in zip(one, two, strict=True))
print("largest difference", difference)
sys.exit(int(difference > 1e-4))

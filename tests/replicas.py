"""Trains small models on several devices, and on one with the same draws, and compares weights and figures.

`python tests/replicas.py mirrored N [MODEL ...]` takes N logical CPUs, `worker N` is one of the N workers of
TF_CONFIG, of which the first trains alone, too. Replicas draw differently by design: here each draws what one
device would for the whole batch, and takes its share of it.
"""

import sys
import zlib
from pathlib import Path

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parents[1]))

import models.augmentation
import models.networks
from data.pipeline import evaluation_batches, training_batches
from models import MODELS
from models.optimizers import FusedAdam
from models.phased_model import PhasedModel
from training.settings import Config
from training.strategy import make_strategy, shared_out
from utils import registry

# Together more steps than from one update of the averages to the next.
BATCH, STEPS, EPOCHS = 24, 6, 2
SHAPE = (8, 8, 1)
TRAINED = {
    "unsupervised": {"prior": "swiss_roll", "n_z": 2},
    "supervised": {
        **{"prior": "gaussian_mixture", "n_z": 2, "balance": True, "input_dropout": 0.1},
        **{"d_label": "output", "d_distortion": 0.2, "consistency": True, "distortion": 0.2},
        **{"vat_radius": 0.1, "consistency_ramp": 6},
    },
    "semi_supervised": {
        **{"prior": "gaussian", "n_z": 3, "consistency": True, "shift": 1},
        **{"vat_radius": 1.0, "vat_ramp": 6},
    },
    "clustering": {
        **{"prior": "gaussian", "n_z": 3, "n_clusters": 4, "batch_norm": True},
        **{"consistency": True, "distortion": 0.2, "vat_radius": 1.0},
    },
    "conditional": {
        **{"prior": "truncated_gaussian", "n_z": 3, "network": "conv", "conv_widths": "4,8"},
        **{"batch_norm": True, "shift": 1, "d_penalty": 0.3},
    },
}


def for_the_whole_batch(function):
    """A stateless draw of the whole batch's size, of which the replica gets rows r, r + n, ..."""

    def draw(shape, *args, **kwargs):
        context = tf.distribute.get_replica_context()
        sizes = list(shape) if isinstance(shape, (list, tuple)) else tf.unstack(shape)
        axis = next((i for i, size in enumerate(sizes) if tf.is_tensor(size)), None)
        # Those of this type are the bytes of dropout, see below.
        if context is None or axis is None or any(kind is tf.uint64 for kind in args):
            return function(shape, *args, **kwargs)
        sizes[axis] *= context.num_replicas_in_sync
        drawn = function(sizes, *args, **kwargs)
        chosen = tf.range(context.replica_id_in_sync_group, sizes[axis], context.num_replicas_in_sync)
        return tf.gather(drawn, chosen, axis=axis)

    return draw


def labels_for_the_whole_batch(function):
    def draw(logits, count, *args):
        context = tf.distribute.get_replica_context()
        n = context.num_replicas_in_sync
        return function(logits, n * count, *args)[:, context.replica_id_in_sync_group :: n]

    return draw


def dropout_of_the_whole_batch(function):
    def dropout(x, keep_prob, seed):
        context = tf.distribute.get_replica_context()
        n = context.num_replicas_in_sync
        kept = function(tf.ones([n * tf.shape(x)[0], *x.shape[1:]], x.dtype), keep_prob, seed)
        return x * kept[context.replica_id_in_sync_group :: n]

    return dropout


def same_draws():
    """Makes every draw of a step that of the whole batch."""
    for name in ("stateless_normal", "stateless_uniform"):
        setattr(tf.random, name, for_the_whole_batch(getattr(tf.random, name)))
    tf.random.stateless_categorical = labels_for_the_whole_batch(tf.random.stateless_categorical)
    for module in (models.augmentation, models.networks):
        module.dropout = dropout_of_the_whole_batch(models.layers.dropout)

    def step_seeds(self, seed, count):
        key = tf.stack([tf.constant(seed, tf.int64), tf.convert_to_tensor(self.step)])
        return tf.unstack(tf.random.split(tf.random.fold_in(key, 0), count))

    PhasedModel.step_seeds = step_seeds


def train(name, strategy):
    """Weights, and figures of the last epoch, by name, after two epochs of two calls of two steps each."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (BATCH * STEPS + 5, *SHAPE), np.uint8)
    labels = rng.integers(0, 10, len(images)).astype(np.uint8)
    with strategy.scope():
        # Seed 1 is so near to a jump of virtual adversarial training that one device alone, its first
        # weights changed by 1e-7 of themselves, ends 1e-2 away in every other try; seed 2 is not, if the
        # supervised model's copies are not pushed by 0.5.
        model = registry.load(MODELS, name)(SHAPE, 10, n_hidden=16, seed=2, **TRAINED[name])
        adam = {f"{phase}_optimizer": FusedAdam(1e-2, epsilon=1e-4) for phase in model.phases}
        model.compile(steps_per_execution=2, **adam)
        model.hold(images, labels)
    labelled = np.arange(12) if name == "semi_supervised" else None
    history = model.fit(
        shared_out(training_batches(len(images), BATCH, 0, 0, labelled), strategy),
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        shuffle=False,
        verbose=0,
        validation_data=evaluation_batches(images, labels, 24),
    )
    weights = [variable.numpy() for variable in model.variables]
    figures = {key: np.float32(values[-1]) for key, values in history.history.items()}
    means = model.running_means()
    model.set_running_means(means)
    if model.running_means() != means:
        raise SystemExit("the running means are not what they were set to")
    return {
        **{f"weight {i}": weight for i, weight in enumerate(weights)},
        **figures,
    }


def main(kind, count, *names):
    if kind == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(count))
    # Nobody watches here, so anything that is true will do for the other workers.
    config = Config(strategy="mirrored", batch_size=BATCH, num_samples=12)
    strategy = make_strategy(config, workers=kind == "worker")
    if strategy.num_replicas_in_sync != int(count):
        raise SystemExit(f"{strategy.num_replicas_in_sync} replicas")
    same_draws()
    for name in names or TRAINED:
        ours = train(name, strategy)
        digest = zlib.crc32(b"".join(value.tobytes() for value in ours.values()))
        print(f"{name} digest {digest:08x}", flush=True)
        if kind == "mirrored" or strategy.cluster_resolver.task_id == 0:
            theirs = train(name, tf.distribute.get_strategy())
            difference = max(np.abs(ours[key] - theirs[key]).max() for key in theirs)
            print(f"{name} difference {difference:.2e}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

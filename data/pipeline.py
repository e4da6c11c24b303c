"""Batches for `fit`: indices into images that the model holds as uint8, gathers, scales and noises."""

import numpy as np
import tensorflow as tf


def training_batches(count, batch_size, seed, first_step=0, labelled=None, apart=True):
    """Batches of indices for as many steps as are asked for.

    Each epoch shuffles all images anew and leaves out the incomplete last batch. The order depends on
    (seed, epoch) alone, so that a resumed run goes on with the order it would have had.

    Args:
        count: number of training images N.
        first_step: train step, from 0, to begin with.
        labelled: int (L,), indices of the labelled images, or None.
        apart: whether they come beside the images; if not, half of every batch are such, or as many as there
            are, spread evenly.

    Returns:
        An endless `tf.data.Dataset` of dicts: `images`, int32 (B,), and, with `labelled` apart, `labelled`,
        int32 (B,) or (L,) where L is smaller, from a shuffled order of their own.
    """
    keys = tf.constant([seed, 0]), tf.constant([seed, 1])
    if labelled is None:
        batches = {"images": _shuffled(count, batch_size, keys[0], first_step)}
    elif apart:
        size = min(batch_size, len(labelled))
        batches = {
            "images": _shuffled(count, batch_size, keys[0], first_step),
            "labelled": _shuffled_ones(labelled, size, keys[1], first_step),
        }
    else:
        others = np.setdiff1d(np.arange(count), labelled)
        size = _labelled_in_a_batch(len(labelled), len(others), batch_size)
        kinds = (others, batch_size - size, keys[0]), (labelled, size, keys[1])
        parts = [_shuffled_ones(*kind, first_step) for kind in kinds if kind[1]]
        order = _spread(batch_size - size, size)
        batches = {
            "images": tf.data.Dataset.zip(*parts).map(lambda *chosen: tf.gather(tf.concat(chosen, 0), order))
        }
    return _untuned(tf.data.Dataset.zip(batches).prefetch(4))


def _labelled_in_a_batch(labelled, others, batch_size):
    """Half of it, but no fewer than chance would bring, and some of both kinds as far as there are."""
    size = max(batch_size // 2, round(batch_size * labelled / (labelled + others)))
    size = min(size, labelled, batch_size - min(others, 1))
    return max(size, batch_size - others)


def _spread(*sizes):
    """The order in which kinds of these sizes, one after the other, are spread evenly over a batch.

    Each replica, and each half of a batch, is to have its share of every kind.
    """
    places = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    return np.argsort(places, kind="stable")


def _shuffled_ones(indices, batch_size, key, first_step):
    """Endless batches of these indices, as `_shuffled` has them of all."""
    indices = tf.constant(indices, tf.int32)
    positions = _shuffled(len(indices), batch_size, key, first_step)
    return positions.map(lambda chosen: tf.gather(indices, chosen))


def _shuffled(count, batch_size, key, first_step):
    """Endless batches of range(count), shuffled anew every count // batch_size steps."""
    steps = count // batch_size

    def epoch_batches(epoch):
        order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=tf.random.fold_in(key, epoch))
        return tf.data.Dataset.from_tensor_slices(
            tf.reshape(order[: steps * batch_size], [steps, batch_size])
        )

    epochs = tf.data.Dataset.range(first_step // steps, tf.int64.max)
    return epochs.flat_map(epoch_batches).skip(first_step % steps)


def read_batches(batches, images, labels):
    """The images and labels of batches of indices, as the train step would gather them from what it holds.

    Which indices come is a matter of `batches` alone: workers that get disjoint ones read disjoint records.

    Args:
        batches: what `training_batches` returned, or a part of it.
        images: uint8 (N, H, W, C), an array or `StoredImages`.
        labels: (N,) or (N, K).

    Returns:
        A `tf.data.Dataset` of tuples: images and labels, and those of the labelled images if there are any.
    """
    labels = tf.constant(labels)
    held = tf.constant(images) if isinstance(images, np.ndarray) else None

    def pixels(chosen):
        if held is not None:
            return tf.gather(held, chosen)
        read = tf.numpy_function(images.__getitem__, [chosen], tf.uint8)
        read.set_shape((*chosen.shape, *images.shape[1:]))
        return read

    def read(batch):
        return tuple(
            part for chosen in batch.values() for part in (pixels(chosen), tf.gather(labels, chosen))
        )

    return _untuned(batches.map(read).prefetch(4))


def evaluation_batches(images, labels, batch_size=1000):
    """All images once, in order: a `tf.data.Dataset` of (images, labels)."""
    if isinstance(images, np.ndarray):
        batches = tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size)
        return _untuned(batches.prefetch(1))
    numbers = tf.data.Dataset.range(len(images)).batch(batch_size).map(lambda chosen: {"images": chosen})
    return read_batches(numbers, images, labels)


def _untuned(dataset):
    """The data set without tf.data's tuner: there is nothing to tune, and the end of `fit` waits for it.

    It sleeps twice as long each time, up to a minute, and only then lets go of the iterator.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)

"""Batches for `fit`: all splits stay in memory as uint8, the model scales and noises them."""

import tensorflow as tf


def training_batches(images, labels, batch_size, seed, first_epoch=0):
    """Batches for as many epochs as are asked for, in an order that depends on (seed, epoch) alone.

    Each epoch shuffles all images anew and leaves out the incomplete last batch.

    Args:
        images: uint8 (N, H, W, C).
        labels: uint8 (N,).
        first_epoch: epoch, from 0, to begin with: a resumed run goes on with the order it would have had.

    Returns:
        An endless `tf.data.Dataset` of (images (B, H, W, C), labels (B,)), N // B batches per epoch.
    """
    steps = len(images) // batch_size

    def epoch_batches(epoch):
        order = tf.random.experimental.stateless_shuffle(
            tf.range(len(images)), seed=tf.stack([tf.constant(seed, tf.int64), epoch])
        )
        return tf.data.Dataset.from_tensor_slices(
            tf.reshape(order[: steps * batch_size], [steps, batch_size])
        )

    images, labels = tf.constant(images), tf.constant(labels)
    return (
        tf.data.Dataset.range(first_epoch, tf.int64.max)
        .flat_map(epoch_batches)
        .map(lambda indices: (tf.gather(images, indices), tf.gather(labels, indices)))
        .prefetch(2)
    )


def evaluation_batches(images, labels, batch_size=1000):
    """All images once, in order: a `tf.data.Dataset` of (images, labels)."""
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(batch_size).prefetch(1)

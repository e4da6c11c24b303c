"""What happens to images before a network sees them."""

import tensorflow as tf


def to_unit_interval(images):
    """uint8 pixels as float32 in [0, 1]; float32 as it is."""
    images = tf.convert_to_tensor(images)
    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) / 255.0
    return tf.cast(images, tf.float32)


def shifted(images, limit, seed):
    """Moves each image by whole pixels, from -limit to limit in both directions; zeros move in.

    Args:
        images: float32 (B, H, W, C).
        seed: integer tensor (2,) that the distances depend on.
    """
    count, height, width = tf.shape(images)[0], images.shape[1], images.shape[2]
    padded = tf.pad(images, [[0, 0], [limit, limit], [limit, limit], [0, 0]])
    top, left = tf.unstack(tf.random.stateless_uniform([2, count], seed, 0, 2 * limit + 1, tf.int32))
    rows = tf.gather(padded, top[:, None] + tf.range(height), axis=1, batch_dims=1)
    return tf.gather(rows, left[:, None] + tf.range(width), axis=2, batch_dims=1)

"""The losses of an adversarial autoencoder: pure functions of tensors, each returning a float32 scalar.

D tells prior samples (real, target 1) from codes (fake, target 0); G is the encoder, which wants its
codes taken for prior samples. With an undecided D, the logits are 0, D's loss is 2 ln 2 = 1.386 and
G's is ln 2 = 0.693.
"""

import math

import tensorflow as tf


def mean_squared_error(images, reconstructions):
    """Mean squared error over the batch and the pixels, two tensors (B, H, W, C) in [0, 1] (first seed)."""
    return tf.reduce_mean(tf.math.squared_difference(reconstructions, images))


def half_summed_squared_error(images, reconstructions):
    """Half the squared error, summed over the pixels and averaged over the batch (paper)."""
    errors = tf.math.squared_difference(reconstructions, images)
    return 0.5 * tf.reduce_mean(tf.reduce_sum(errors, axis=[1, 2, 3]))


def discriminator_loss(real_logits, fake_logits):
    """Sum of the mean cross entropies of real codes with 1 and of fake codes with 0, logits (B, 1)."""
    return _cross_entropy(real_logits, 1) + _cross_entropy(fake_logits, 0)


def slope_penalty(discriminator, real, n_z):
    """Half the mean squared slope of D's logits at real codes (arXiv 1801.04406).

    A D without it finds ever finer differences, and what G does about them costs the autoencoder.

    Args:
        discriminator: called without a seed, and so without dropout, whose masks have no part in the slope.
        real: what it sees, (B, n): codes of the prior are the first n_z columns.
    """
    with tf.GradientTape() as tape:
        tape.watch(real)
        logits = discriminator(real)
    slopes = tape.gradient(logits, real)[:, :n_z]
    return 0.5 * tf.reduce_mean(tf.reduce_sum(tf.square(slopes), axis=1))


def generator_loss(fake_logits):
    """Mean cross entropy of fake codes with 1, logits (B, 1): the non-saturating loss."""
    return _cross_entropy(fake_logits, 1)


def label_loss(labels, logits):
    """Mean cross entropy of integer labels (B,) and logits (B, K): the semi-supervised phase."""
    labels = tf.cast(labels, tf.int32)
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))


def soft_label_loss(probabilities, logits):
    """Mean cross entropy of probabilities (B, K) and logits (B, K): the consistency phase."""
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(probabilities, logits))


def strayed(codes, targets):
    """How far codes (B, n_z) are from their targets, as a share from 0 to 1: the supervised consistency.

    The mean of d^2 / (d^2 + 0.18), d the distance: half where it is 0.42. The bound lets an image that lies
    in the wrong part of the prior leave it while its copies stay.
    """
    squared = tf.reduce_sum(tf.math.squared_difference(codes, targets), axis=1)
    return tf.reduce_mean(squared / (squared + 0.18))


def lost_information(logits):
    """What clusters do not tell of images, in nats, at best 0, of logits (B, K): the consistency phase.

    The mean entropy of an image's cluster, and four times as much for what the entropy of the cluster of any
    image lacks of ln K, so that all are chosen alike often; a tenth of both (arXiv 1702.08720).
    """
    # Each tensor has two uses at most: TensorFlow adds up the gradients of three in no fixed order.
    probabilities = tf.nn.softmax(logits)
    unsure = soft_label_loss(probabilities, logits)
    share = tf.reduce_mean(probabilities, axis=0)
    if tf.distribute.get_strategy().num_replicas_in_sync > 1:
        # Of the whole batch: the entropy of a mean is not the mean of entropies.
        share = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, share)
    lacking = math.log(logits.shape[1]) + tf.reduce_sum(tf.math.xlogy(share, share))
    return 0.1 * (unsure + 4 * lacking)


def _cross_entropy(logits, target):
    """Mean cross entropy with a target of 0 or 1.

    As one operation with one gradient: of several, TensorFlow adds up the gradients in the order in which it
    happens to finish, and a run could not be repeated bit for bit.
    """
    return tf.reduce_mean(tf.nn.softplus(-logits if target else logits))

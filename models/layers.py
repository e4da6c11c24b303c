"""Layers of Keras, faster on a CPU or a pure function of a seed."""

import keras
import tensorflow as tf


class Dense(keras.layers.Dense):
    """`keras.layers.Dense` with a bias and no activation, whose gradients a CPU computes faster."""

    def call(self, inputs):
        return affine(inputs, tf.convert_to_tensor(self.kernel), tf.convert_to_tensor(self.bias))


@tf.custom_gradient
def affine(x, kernel, bias):
    """Inputs (B, n_in) times a kernel (n_in, n_out) plus a bias (n_out,): (B, n_out).

    The gradients are the usual ones; only the operations that compute them were chosen for their speed.
    """

    def gradients(of_y):
        if x.dtype == tf.float32:
            # As a batch of one matrix, oneDNN reads a transposed one faster, though not in bfloat16.
            of_x = tf.matmul(of_y[None], kernel[None], transpose_b=True)[0]
        else:
            of_x = tf.matmul(of_y, kernel, transpose_b=True)
        of_kernel = tf.matmul(x, of_y, transpose_a=True)
        # The stock gradient of a bias is slow in bfloat16.
        ones = tf.ones([1, tf.shape(of_y)[0]], of_y.dtype)
        return of_x, of_kernel, tf.matmul(ones, of_y)[0]

    return tf.nn.bias_add(tf.matmul(x, kernel), bias), gradients


class FusedBatchNorm(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the last axis, in training one operation instead of many."""

    def call(self, inputs, training=False):
        if not training:
            return super().call(inputs, training=False)
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            return self._over_replicas(inputs)
        # The operation takes images.
        images = inputs if len(inputs.shape) == 4 else inputs[:, None, None, :]
        outputs, mean, variance, *_ = tf.compat.v1.nn.fused_batch_norm(
            images, tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta), epsilon=self.epsilon
        )
        # It returns the unbiased variance; Keras averages the biased one.
        count = tf.cast(tf.reduce_prod(tf.shape(images)[:3]), variance.dtype)
        self._average(mean, variance * (count - 1) / count)
        return tf.reshape(outputs, tf.shape(inputs))

    def _average(self, mean, variance):
        """Takes up a batch's mean and biased variance into the running averages."""
        for average, of_batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            average.assign(self.momentum * average + (1 - self.momentum) * of_batch)

    def _over_replicas(self, inputs):
        """The same in training, with the moments of the whole batch, of which a replica has its share."""
        axes = list(range(len(inputs.shape) - 1))
        # Around the running average, so that the difference of the moments loses no digits.
        centre = tf.stop_gradient(tf.convert_to_tensor(self.moving_mean))
        x = tf.cast(inputs, tf.float32) - centre
        moments = tf.stack([tf.reduce_mean(x, axes), tf.reduce_mean(tf.square(x), axes)])
        moments = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, moments)
        mean, variance = moments[0], tf.maximum(moments[1] - tf.square(moments[0]), 0.0)
        self._average(mean + centre, variance)
        scale = tf.convert_to_tensor(self.gamma) * tf.math.rsqrt(variance + self.epsilon)
        return (x - mean) * scale + tf.convert_to_tensor(self.beta)


def dropout(x, keep_prob, seed):
    """Keeps each unit of (B, ...) with a probability and scales it up, a pure function of the seed (2,).

    A random byte decides about a unit, and one more byte whether the bytes that drop it are the whole
    number below 256 (1 - keep_prob) or the one above, so that over calls the probability is met to
    1 / 131072 (down to 1 / 256). The stock dropout draws a number of the layer's type for each unit: that
    takes longer, and bfloat16 has only 128 of them between 0 and 1.
    """
    size = tf.size(x)
    words = tf.random.stateless_uniform([size // 8 + 1], seed, None, None, tf.uint64)
    random_bytes = tf.reshape(tf.bitcast(words, tf.uint8), [-1])
    whole, rest = divmod(min(round((1 - keep_prob) * 2**16), 255 * 2**8), 2**8)
    one_more = tf.cast(random_bytes[-1] < tf.constant(rest, tf.uint8), tf.uint8)
    keep = tf.reshape(random_bytes[:size] >= tf.constant(whole, tf.uint8) + one_more, tf.shape(x))
    return x * (tf.cast(keep, x.dtype) * tf.cast(1 / keep_prob, x.dtype))

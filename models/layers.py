"""Layers of Keras, faster on a CPU or a pure function of a seed."""

import keras
import tensorflow as tf

from utils import processor

# Without AVX-512 oneDNN's batch norm takes two to four times as long forward as matrix products do; backward
# it does not.
BY_PRODUCTS = processor.instructions() == ("avx2",) and not processor.has_gpu()


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
            of_x = tf.matmul(tf.expand_dims(of_y, 0), tf.expand_dims(kernel, 0), transpose_b=True)
            of_x = tf.squeeze(of_x, 0)
        else:
            of_x = tf.matmul(of_y, kernel, transpose_b=True)
        of_kernel = tf.matmul(x, of_y, transpose_a=True)
        # The stock gradient of a bias is slow in bfloat16.
        ones = tf.ones([1, of_y.shape[0] or tf.shape(of_y)[0]], of_y.dtype)
        return of_x, of_kernel, tf.squeeze(tf.matmul(ones, of_y), 0)

    return tf.nn.bias_add(tf.matmul(x, kernel), bias), gradients


class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a bias; over the whole of its input, a product of matrices."""

    def call(self, inputs):
        if self.padding != "valid" or inputs.shape[1:3] != self.kernel_size:
            return super().call(inputs)
        kernel = tf.reshape(tf.convert_to_tensor(self.kernel), [-1, self.filters])
        outputs = affine(tf.reshape(inputs, [-1, kernel.shape[0]]), kernel, tf.convert_to_tensor(self.bias))
        return outputs[:, None, None, :]


class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` with a bias; of one pixel, a product of matrices."""

    def call(self, inputs):
        if self.padding != "valid" or inputs.shape[1:3] != (1, 1):
            return super().call(inputs)
        kernel = tf.convert_to_tensor(self.kernel)
        rows = tf.reshape(kernel, [-1, kernel.shape[3]])
        outputs = tf.matmul(inputs[:, 0, 0, :], rows, transpose_b=True)
        outputs = tf.reshape(outputs, [-1, *kernel.shape[:3]])
        return tf.nn.bias_add(outputs, tf.convert_to_tensor(self.bias))


class FusedBatchNorm(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` over the last axis, in training one operation instead of many."""

    def call(self, inputs, training=False):
        if not training:
            return super().call(inputs, training=False)
        if tf.distribute.get_strategy().num_replicas_in_sync > 1:
            return self._over_replicas(inputs)
        # The operations take images.
        images = inputs if len(inputs.shape) == 4 else inputs[:, None, None, :]
        normalize = normalized_by_products if BY_PRODUCTS else normalized
        scale, offset = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        outputs, mean, variance = normalize(images, scale, offset, self.epsilon)
        self._average(mean, variance)
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


def normalized(images, scale, offset, epsilon):
    """Images (B, H, W, C) of the mean `offset` and the deviation `scale` (C,); what both were, biased."""
    outputs, mean, variance, *_ = tf.compat.v1.nn.fused_batch_norm(images, scale, offset, epsilon=epsilon)
    # It returns the unbiased variance; Keras averages the biased one.
    count = tf.cast(tf.reduce_prod(tf.shape(images)[:3]), variance.dtype)
    return outputs, mean, variance * (count - 1) / count


def normalized_by_products(images, scale, offset, epsilon):
    """`normalized` from matrix products, with the gradient of the one operation."""

    @tf.custom_gradient
    def of(images, scale, offset):
        rows = tf.reshape(images, [-1, images.shape[-1]])
        count = tf.shape(rows)[0]
        share = tf.fill([1, count], 1 / tf.cast(count, rows.dtype))
        mean = tf.matmul(share, rows)[0]
        variance = tf.matmul(share, tf.math.squared_difference(rows, mean))[0]
        factor = scale * tf.math.rsqrt(variance + epsilon)

        def gradients(of_outputs, *_):
            return tf.raw_ops.FusedBatchNormGradV3(
                y_backprop=of_outputs,
                x=images,
                scale=scale,
                reserve_space_1=mean,
                reserve_space_2=variance,
                reserve_space_3=[],
                epsilon=epsilon,
            )[:3]

        return (images * factor + (offset - mean * factor), mean, variance), gradients

    return of(images, scale, offset)


def dropout(x, keep_prob, seed):
    """Keeps each unit of (B, ...) with a probability and scales it up, a pure function of the seed (2,).

    A random byte decides about a unit, and one more byte whether the bytes that drop it are the whole
    number below 256 (1 - keep_prob) or the one above, so that over calls the probability is met to
    1 / 131072 (down to 1 / 256). The stock dropout draws a number of the layer's type for each unit: that
    takes longer, and bfloat16 has only 128 of them between 0 and 1.
    """
    size = x.shape.num_elements() or tf.size(x)
    words = tf.random.stateless_uniform([size // 8 + 1], seed, None, None, tf.uint64)
    random_bytes = tf.reshape(tf.bitcast(words, tf.uint8), [-1])
    whole, rest = divmod(min(round((1 - keep_prob) * 2**16), 255 * 2**8), 2**8)
    one_more = tf.cast(random_bytes[-1] < tf.constant(rest, tf.uint8), tf.uint8)
    keep = tf.reshape(random_bytes[:size] >= tf.constant(whole, tf.uint8) + one_more, tf.shape(x))
    return x * (tf.cast(keep, x.dtype) * tf.cast(1 / keep_prob, x.dtype))

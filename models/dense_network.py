"""The fully connected network that every part of an adversarial autoencoder uses."""

import math

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable(package="aae")
class DenseNetwork(keras.layers.Layer):
    """Two hidden ReLU layers, each followed by dropout, and an output layer (first seed).

    Biases start at zero. Dropout masks are a pure function of the seed passed to the call, so that a
    resumed run draws the same ones; without a seed there is no dropout. Under a mixed precision policy
    the hidden layers compute in the lower one, the output layer in float32.

    Args:
        in_shape: shape of one input, e.g. (28, 28, 1); flattened.
        out_shape: shape of one output, e.g. (2,).
        n_hidden: units per hidden layer.
        keep_prob: share of hidden units that dropout keeps, in (0, 1].
        activation: of the output layer, e.g. None for codes and logits, "sigmoid" for images.
        init_std: standard deviation of normal initial kernels (paper: 0.01); 0 for Glorot-uniform ones
            (first seed).
        seed: int that the initial kernels depend on.
    """

    def __init__(
        self,
        in_shape,
        out_shape,
        n_hidden,
        keep_prob=1.0,
        activation=None,
        init_std=0.0,
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.in_shape = tuple(in_shape)
        self.out_shape = tuple(out_shape)
        self.n_hidden = n_hidden
        self.keep_prob = keep_prob
        self.activation = activation
        self.init_std = init_std
        self.seed = seed
        kernel_seeds = np.random.SeedSequence(seed).generate_state(3)
        widths = [n_hidden, n_hidden, math.prod(out_shape)]
        activations = ["relu", "relu", activation]
        policies = [self.dtype_policy, self.dtype_policy, "float32"]
        self.hidden_1, self.hidden_2, self.output_layer = (
            keras.layers.Dense(
                width,
                activation=function,
                kernel_initializer=(
                    keras.initializers.RandomNormal(stddev=init_std, seed=int(kernel_seed))
                    if init_std
                    else keras.initializers.GlorotUniform(int(kernel_seed))
                ),
                dtype=policy,
            )
            for width, function, policy, kernel_seed in zip(
                widths, activations, policies, kernel_seeds, strict=True
            )
        )
        self.build((None, *self.in_shape))

    def build(self, input_shape):
        if self.built:
            return
        self.hidden_1.build((None, math.prod(self.in_shape)))
        self.hidden_2.build((None, self.n_hidden))
        self.output_layer.build((None, self.n_hidden))
        self.built = True

    def call(self, inputs, seed=None):
        """float32 (B, *in_shape) -> (B, *out_shape); `seed`, an integer tensor (2,), turns dropout on."""
        x = tf.reshape(inputs, [-1, math.prod(self.in_shape)])
        for index, layer in enumerate([self.hidden_1, self.hidden_2]):
            x = layer(x)
            if seed is not None and self.keep_prob < 1:
                x = dropout(x, self.keep_prob, tf.random.fold_in(seed, index))
        return tf.reshape(self.output_layer(x), [-1, *self.out_shape])

    def get_config(self):
        return {
            **super().get_config(),
            "in_shape": self.in_shape,
            "out_shape": self.out_shape,
            "n_hidden": self.n_hidden,
            "keep_prob": self.keep_prob,
            "activation": self.activation,
            "init_std": self.init_std,
            "seed": self.seed,
        }


def dropout(x, keep_prob, seed):
    """Keeps each unit of (B, H) with a probability and scales it up, a pure function of the seed (2,).

    16 random bits decide about a unit, so the probability is met to 1 / 131072. The stock dropout draws a
    number of the layer's type for each, of which bfloat16 has only 128 between 0 and 1.
    """
    batch, width = tf.shape(x)[0], x.shape[1]
    bits = tf.random.stateless_uniform([batch, -(-width // 4)], seed, None, None, tf.uint64)
    bits = tf.reshape(tf.bitcast(bits, tf.uint16), [batch, -1])[:, :width]
    keep = bits < tf.constant(min(round(keep_prob * 2**16), 2**16 - 1), tf.uint16)
    return x * (tf.cast(keep, x.dtype) * tf.cast(1 / keep_prob, x.dtype))

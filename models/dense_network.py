"""The fully connected network that every part of an adversarial autoencoder uses."""

import math

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable(package="aae")
class DenseNetwork(keras.layers.Layer):
    """Two hidden ReLU layers, each followed by dropout, and an output layer (first seed).

    Kernels are Glorot-uniform, biases zero. Dropout masks are a pure function of the seed passed to
    the call, so that a resumed run draws the same ones; without a seed there is no dropout.

    Args:
        in_shape: shape of one input, e.g. (28, 28, 1); flattened.
        out_shape: shape of one output, e.g. (2,).
        n_hidden: units per hidden layer.
        keep_prob: share of hidden units that dropout keeps, in (0, 1].
        activation: of the output layer, e.g. None for codes and logits, "sigmoid" for images.
        seed: int that the initial kernels depend on.
    """

    def __init__(self, in_shape, out_shape, n_hidden, keep_prob=1.0, activation=None, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.in_shape = tuple(in_shape)
        self.out_shape = tuple(out_shape)
        self.n_hidden = n_hidden
        self.keep_prob = keep_prob
        self.activation = activation
        self.seed = seed
        kernel_seeds = np.random.SeedSequence(seed).generate_state(3)
        widths = [n_hidden, n_hidden, math.prod(out_shape)]
        activations = ["relu", "relu", activation]
        self.hidden_1, self.hidden_2, self.output_layer = (
            keras.layers.Dense(
                width,
                activation=function,
                kernel_initializer=keras.initializers.GlorotUniform(int(kernel_seed)),
            )
            for width, function, kernel_seed in zip(widths, activations, kernel_seeds, strict=True)
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
                mask_seed = tf.random.fold_in(seed, index)
                x = tf.nn.experimental.stateless_dropout(x, 1 - self.keep_prob, mask_seed)
        return tf.reshape(self.output_layer(x), [-1, *self.out_shape])

    def get_config(self):
        return {
            **super().get_config(),
            "in_shape": self.in_shape,
            "out_shape": self.out_shape,
            "n_hidden": self.n_hidden,
            "keep_prob": self.keep_prob,
            "activation": self.activation,
            "seed": self.seed,
        }

"""The networks that the parts of an adversarial autoencoder are made of. To add one: a class with `stack`."""

import math

import keras
import numpy as np
import tensorflow as tf

from models.layers import Conv2D, Conv2DTranspose, Dense, FusedBatchNorm, dropout


class Network(keras.layers.Layer):
    """A stack of layers with batch norm, activation and dropout between each two of them.

    Biases start at zero. Dropout masks are a pure function of the seed passed to the call, so that a
    resumed run draws the same ones; without a seed the network is not in training: no dropout, and batch
    norm takes its running averages. Under a mixed precision policy the hidden layers, and the products that
    give images, compute in the lower one; codes, logits and the images' activation in float32.

    Args:
        in_shape: shape of one input, e.g. (28, 28, 1).
        out_shape: shape of one output, e.g. (2,).
        widths: units, or channels, of the hidden layers.
        activation: of the hidden layers: "relu" (first seed and paper), or "leaky_relu" with slope 0.2
            (second seed).
        output: of the last layer: None for codes and logits; for images "sigmoid", or "tanh", whose
            outputs in [-1, 1] are moved to [0, 1].
        signed_input: whether pixels in [0, 1] are moved to [-1, 1] first: what goes with "tanh".
        batch_norm: whether there is batch norm before each activation (second seed: decay 0.9).
        keep_prob: share of hidden units that dropout keeps, in (0, 1].
        init_std: standard deviation of normal initial kernels (paper: 0.01); 0 for Glorot-uniform ones
            (seeds).
        seed: int that the initial kernels depend on.
    """

    # Whether there is dropout in training.
    drops = True

    def __init__(
        self,
        in_shape,
        out_shape,
        widths,
        activation="relu",
        output=None,
        signed_input=False,
        batch_norm=False,
        keep_prob=1.0,
        init_std=0.0,
        seed=0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.in_shape = tuple(in_shape)
        self.out_shape = tuple(out_shape)
        self.widths = tuple(widths)
        self.activation = activation
        self.output_activation = output
        self.signed_input = signed_input
        self.batch_norm = batch_norm
        self.keep_prob = keep_prob
        self.init_std = init_std
        self.seed = seed
        self._kernel_seeds = enumerate(np.random.SeedSequence(seed).generate_state(len(self.widths) + 1))
        self.stacked = self.stack()
        self.norms = [
            FusedBatchNorm(momentum=0.9, epsilon=1e-5, dtype="float32", name=f"norm_{index}")
            for index in range(len(self.stacked) - 1)
            if batch_norm
        ]
        self.build((None, *self.in_shape))

    @property
    def stack_input_shape(self):
        """The shape that one input takes before the first layer."""
        return self.in_shape

    def stack(self):
        """The layers in order, made by `layer`: one per width, and the last one."""
        raise NotImplementedError

    def layer(self, kind, *args, last=False, **kwargs):
        """A Keras layer with the network's initial kernels and precision."""
        index, seed = next(self._kernel_seeds)
        normal = keras.initializers.RandomNormal(stddev=self.init_std, seed=int(seed))
        return kind(
            *args,
            # Keras's own names count through the process, and variables of new names take TensorFlow longer.
            name=f"layer_{index}",
            kernel_initializer=normal if self.init_std else keras.initializers.GlorotUniform(int(seed)),
            dtype="float32" if last and self.output_activation is None else self.dtype_policy,
            **kwargs,
        )

    def build(self, input_shape):
        if self.built:
            return
        shape = (None, *self.stack_input_shape)
        for index, layer in enumerate(self.stacked):
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
            if self.norms and index < len(self.norms):
                self.norms[index].build(shape)
        self.built = True

    def call(self, inputs, seed=None):
        """float32 (B, *in_shape) -> (B, *out_shape); `seed`, an integer tensor (2,), means training."""
        x = 2 * inputs - 1 if self.signed_input else inputs
        x = tf.reshape(x, [-1, *self.stack_input_shape])
        for index, layer in enumerate(self.stacked[:-1]):
            x = layer(x)
            if self.norms:
                x = tf.cast(self.norms[index](x, training=seed is not None), x.dtype)
            x = keras.activations.get(self.activation)(x)
            if seed is not None and self.drops and self.keep_prob < 1:
                x = dropout(x, self.keep_prob, tf.random.fold_in(seed, index))
        x = tf.cast(self.stacked[-1](x), tf.float32)
        x = keras.activations.get(self.output_activation)(x)
        if self.output_activation == "tanh":
            x = (x + 1) / 2
        return tf.reshape(x, [-1, *self.out_shape])

    def get_config(self):
        return {
            **super().get_config(),
            "in_shape": self.in_shape,
            "out_shape": self.out_shape,
            "widths": self.widths,
            "activation": self.activation,
            "output": self.output_activation,
            "signed_input": self.signed_input,
            "batch_norm": self.batch_norm,
            "keep_prob": self.keep_prob,
            "init_std": self.init_std,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable(package="aae")
class DenseNetwork(Network):
    """Fully connected layers, whatever the shapes of input and output (both seeds)."""

    @property
    def stack_input_shape(self):
        return (math.prod(self.in_shape),)

    def stack(self):
        hidden = [self.layer(Dense, width) for width in self.widths]
        return [*hidden, self.layer(Dense, math.prod(self.out_shape), last=True)]


@keras.saving.register_keras_serializable(package="aae")
class LabelBranches(DenseNetwork):
    """A discriminator of [code, one-hot label] with an output for each label, among which the label picks.

    Its layers see the code alone, so each label has a verdict of its own on every code from the first step
    on (as in arXiv 1801.04406 and 1912.01865); layers that see code and label side by side have to learn
    first what the label is for. `out_shape` is (K,), the label's length.
    """

    @property
    def stack_input_shape(self):
        return (self.in_shape[0] - self.out_shape[0],)

    def call(self, inputs, seed=None):
        """float32 (B, n_z + K) -> logits (B, 1); `seed` as of `Network`."""
        codes, labels = tf.split(inputs, [-1, self.out_shape[0]], axis=1)
        # Under a mixed precision policy Keras casts the inputs, and with them the labels.
        picked = super().call(codes, seed) * tf.cast(labels, tf.float32)
        return tf.reduce_sum(picked, axis=1, keepdims=True)


@keras.saving.register_keras_serializable(package="aae")
class ConvEncoder(Network):
    """Images to codes: 3 x 3, then 4 x 4 with stride 2 for each further width, then all that is left.

    Each but the first width halves the side: 28 pixels with widths 16, 32, 64 end as 7 x 7 x 64, 32 pixels
    with 64, 128, 256, 512 as 4 x 4 x 512 (second seed).
    """

    def stack(self):
        first, *others = self.widths
        return [
            self.layer(Conv2D, first, 3, padding="same"),
            *(self.layer(Conv2D, width, 4, strides=2, padding="same") for width in others),
            self.layer(
                Conv2D, math.prod(self.out_shape), smallest_side(self.in_shape, self.widths), last=True
            ),
        ]


@keras.saving.register_keras_serializable(package="aae")
class ConvDecoder(Network):
    """Codes to images: the mirror of `ConvEncoder`, with transposed convolutions. Widths as there."""

    @property
    def stack_input_shape(self):
        return (1, 1, math.prod(self.in_shape))

    def stack(self):
        *others, last = self.widths
        side = smallest_side(self.out_shape, self.widths)
        return [
            self.layer(Conv2DTranspose, last, side),
            *(self.layer(Conv2DTranspose, width, 4, strides=2, padding="same") for width in reversed(others)),
            self.layer(Conv2D, self.out_shape[2], 3, padding="same", last=True),
        ]


# Encoder and decoder, for `models.NETWORKS`.
DENSE, CONV = (DenseNetwork, DenseNetwork), (ConvEncoder, ConvDecoder)


def smallest_side(image_shape, widths):
    """Height and width of the smallest feature map of the convolutional networks."""
    return tuple(side // 2 ** (len(widths) - 1) for side in image_shape[:2])

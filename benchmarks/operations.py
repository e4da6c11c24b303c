"""What a train step has to do at the least, counted layer by layer."""

import dataclasses
import itertools

from models import LABEL_HEADS, LABELLED_DECODERS, LABELLED_DISCRIMINATORS
from training.schedules import updates

# Adam reads the weight, both moments and the gradient, and writes the weight and both moments; SGD has
# one momentum instead of the moments.
OPTIMIZER_BYTES = {"adam": 7 * 4, "sgd": 5 * 4}


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of weights. A dense one is a convolution of a single pixel.

    Attributes:
        n_in, n_out: units, or channels.
        kernel: side of the kernel. What it is larger than the stride is padded, half on each side.
        side: of the larger feature map, in pixels: a convolution's input, a transposed one's output.
        transposed: whether it is a transposed convolution.
        norm: whether batch norm follows.
    """

    n_in: int
    n_out: int
    kernel: int = 1
    stride: int = 1
    side: int = 1
    transposed: bool = False
    norm: bool = False

    @property
    def padding(self):
        return (self.kernel - self.stride) // 2

    @property
    def products(self):
        """Multiplications for one sample; those with the zeros of the padding are left out."""
        inside = sum(
            0 <= start + tap - self.padding < self.side
            for start in range(0, self.side, self.stride)
            for tap in range(self.kernel)
        )
        return self.n_in * self.n_out * inside**2

    @property
    def weights(self):
        """Kernel, biases, and scales and shifts of the batch norm."""
        return self.n_in * self.n_out * self.kernel**2 + self.n_out * (3 if self.norm else 1)


def networks(config, image_shape, n_classes):
    """Layers of the encoder, of the decoder, and of each discriminator of a configuration's model."""
    n_labels = config.n_labels(n_classes)
    labels = n_labels * (config.model in LABELLED_DECODERS)
    code = config.n_z + n_labels * (config.model in LABEL_HEADS)
    if config.model in LABEL_HEADS and not config.joint_discriminator:
        judged = [(config.n_z, 1), (n_labels, 1)]
    else:
        seen = n_labels * (config.model in LABEL_HEADS or config.model in LABELLED_DISCRIMINATORS)
        seen += config.model == "supervised" and config.unlabelled
        judged = [(config.n_z, seen) if has_branches(config) else (config.n_z + seen, 1)]
    autoencoder = conv_autoencoder if config.network == "conv" else dense_autoencoder
    return (
        *autoencoder(config, image_shape, code, config.n_z + labels),
        [dense_layers(n_in, config.d_hidden or config.n_hidden, n_out) for n_in, n_out in judged],
    )


def has_branches(config):
    """Whether the discriminator of a configuration's model, of classes, is a `LabelBranches`."""
    return config.model in LABELLED_DISCRIMINATORS and config.d_label == "output"


def dense_layers(n_in, n_hidden, n_out):
    """Layers of a `DenseNetwork`."""
    return [Layer(n_in, n_hidden), Layer(n_hidden, n_hidden), Layer(n_hidden, n_out)]


def dense_autoencoder(config, image_shape, code, decoded):
    """Layers of encoder and decoder; `code` is the encoder's output, `decoded` the decoder's input."""
    height, width, channels = image_shape
    n_pixels = height * width * channels
    encoder = dense_layers(n_pixels, config.n_hidden, code)
    decoder = dense_layers(decoded, config.n_hidden, n_pixels)
    return with_norms(encoder, config.batch_norm), with_norms(decoder, of_decoder(config))


def conv_autoencoder(config, image_shape, code, decoded):
    """Layers of a `ConvEncoder` and a `ConvDecoder` for square images; arguments as of the dense ones."""
    side, _, channels = image_shape
    widths = [int(width) for width in config.conv_widths.split(",")]
    steps = [
        (Layer(a, b, 4, 2, side // 2**i), Layer(b, a, 4, 2, side // 2**i, transposed=True))
        for i, (a, b) in enumerate(itertools.pairwise(widths))
    ]
    smallest = side // 2 ** len(steps)
    whole = {"kernel": smallest, "stride": smallest, "side": smallest}
    encoder = [
        Layer(channels, widths[0], 3, 1, side),
        *(down for down, _ in steps),
        Layer(widths[-1], code, **whole),
    ]
    decoder = [
        Layer(decoded, widths[-1], transposed=True, **whole),
        *(up for _, up in reversed(steps)),
        Layer(widths[0], channels, 3, 1, side),
    ]
    return with_norms(encoder, config.batch_norm), with_norms(decoder, of_decoder(config))


def of_decoder(config):
    """Whether the decoder has batch norm."""
    return config.batch_norm and config.decoder_batch_norm


def with_norms(layers, norm):
    """The layers, each but the last with batch norm if there is one."""
    hidden = [dataclasses.replace(layer, norm=norm) for layer in layers[:-1]]
    return [*hidden, layers[-1]]


def forward(layers, batch):
    """Operations of the products of a forward pass, a multiplication and an addition each."""
    return sum(2 * batch * layer.products for layer in layers)


# A layer's weight gradient (in x batch x out) and its input gradient (batch x out x in) take as many
# operations as its forward pass (batch x in x out).
weight_gradients = forward


def input_gradients(layers, batch, n_wanted=0):
    """Operations of the layers' input gradients, at the first one those of `n_wanted` inputs alone."""
    first, *others = layers
    return forward([dataclasses.replace(first, n_in=n_wanted), *others], batch)


def step_flops(config, image_shape, n_classes):
    """Operations of the matrix products and convolutions of one train step, by phase.

    Only what the updates need: images and labels are inputs that nobody trains and have no gradient, G
    needs no weight gradients of D, D and G share a pass through the encoder, the cross entropy needs the
    labels' part of the code alone, and the cycle no weight gradients of the encoder. What is no product of
    weights (noise, dropout, batch norm, activations, losses) is not counted.
    """
    encoder, decoder, discriminators = networks(config, image_shape, n_classes)
    batch, code = config.batch_size, encoder[-1].n_out

    def gradients(layers, batch, n_wanted=0):
        return weight_gradients(layers, batch) + input_gradients(layers, batch, n_wanted)

    flops = {
        "ae": forward(encoder + decoder, batch) + gradients(decoder, batch, code) + gradients(encoder, batch),
        "encoder pass of d and g": forward(encoder, batch),
        # Real and fake codes.
        "d": sum(forward(d, 2 * batch) + gradients(d, 2 * batch) for d in discriminators),
        # What D sees beside the code are labels.
        "g": gradients(encoder, batch)
        + sum(forward(d, batch) + input_gradients(d, batch, min(code, d[0].n_in)) for d in discriminators),
    }
    classifier = [*encoder[:-1], dataclasses.replace(encoder[-1], n_out=config.n_labels(n_classes))]
    if config.learns_labels:
        labelled = min(batch, config.num_samples)
        flops["ce"] = forward(classifier, labelled) + gradients(classifier, labelled)
    if config.model in LABEL_HEADS and config.cycle:
        styles = [*encoder[:-1], dataclasses.replace(encoder[-1], n_out=config.n_z)]
        flops["cycle"] = (
            forward(styles, batch // 2)
            + forward(decoder, batch)
            + gradients(decoder, batch)
            + forward(classifier, batch)
            + input_gradients(classifier, batch, encoder[0].n_in)
            + (weight_gradients(classifier, batch) if config.finds_clusters and not config.consistency else 0)
        )
    if config.consistency:
        # The image and its copy; of a code that is no label, nobody learns from the image's.
        labels = config.model in LABEL_HEADS
        reads, copies = (classifier, batch) if labels else (encoder, (batch + 1) // 2)
        learned = copies * (1 + labels)
        flops["consistency"] = forward(reads, 2 * copies) + gradients(reads, learned)
        if config.vat_radius:
            flops["vat"] = forward(reads, copies) + input_gradients(reads, copies, encoder[0].n_in)
    return flops


def optimizer_bytes(config, image_shape, n_classes):
    """Bytes that the optimizers of all phases read and write in one step."""
    encoder, decoder, discriminators = networks(config, image_shape, n_classes)
    encoders, decoders = updates(config)
    layers = [*encoders * encoder, *decoders * decoder, *itertools.chain.from_iterable(discriminators)]
    return OPTIMIZER_BYTES[config.optimizer] * sum(layer.weights for layer in layers)

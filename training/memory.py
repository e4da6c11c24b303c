"""Whether a model fits into memory: where it does not, the kernel would kill the program without a word."""

import math

from data.source import available_bytes
from models import LABEL_HEADS, LABELLED_DECODERS
from training.schedules import updates
from utils.errors import UserError

BYTES = 4  # of a float32
STATES = {"adam": 2, "sgd": 1}  # numbers that an optimizer keeps beside each weight


def refuse_what_cannot_fit(config, image_shape, n_classes):
    """Compares what training needs at least with the memory that is there.

    Args:
        config: a `Config`.
        image_shape: (H, W, C).

    Raises:
        UserError: with both numbers.
    """
    needed, there = training_bytes(config, image_shape, n_classes), available_bytes()
    if there and needed > there:
        raise UserError(
            f"The model's weights, gradients and optimizers' states take {needed / 1e9:.1f} GB, and "
            f"{there / 1e9:.1f} GB of memory are free: choose a smaller --n_hidden, --d_hidden, "
            "--conv_widths or --n_z."
        )


def training_bytes(config, image_shape, n_classes):
    """Bytes of the weights, of the optimizers' states and of the largest phase's gradients."""
    labels, pixels = config.n_labels(n_classes), math.prod(image_shape)
    code = config.n_z + labels * (config.model in LABEL_HEADS)
    decoded = config.n_z + labels * (config.model in LABELLED_DECODERS)
    if config.network == "conv":
        smallest = (
            math.prod(side // 2 ** (len(config.widths) - 1) for side in image_shape[:2]) * config.widths[-1]
        )
        between = sum(16 * a * b for a, b in zip(config.widths, config.widths[1:], strict=False))
        ends = 9 * image_shape[2] * config.widths[0]
        encoder, decoder = (ends + between + smallest * n for n in (code, decoded))
    else:  # also what a user's own network is taken for
        encoder, decoder = (config.n_hidden * (pixels + config.n_hidden + n) for n in (code, decoded))
    d_hidden = config.d_hidden or config.n_hidden
    two = config.model in LABEL_HEADS and not config.joint_discriminator
    discriminators = (2 if two else 1) * d_hidden * (d_hidden + config.n_z + 1)
    of_encoder, of_decoder = updates(config)
    states = of_encoder * encoder + of_decoder * decoder + discriminators
    copies = 2 if config.ema_decay else 1
    weights = copies * (encoder + decoder) + discriminators
    gradients = max(encoder + decoder, discriminators)
    return BYTES * (weights + gradients + STATES[config.optimizer] * states)

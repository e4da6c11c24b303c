"""What a configuration cannot do with the images, the devices and the paths that there are."""

import os
import re
from pathlib import Path

from utils.errors import UserError


def refuse_attributes(config):
    """Refuses what needs one class per image.

    Raises:
        UserError: in one line.
    """
    if config.likelihood and config.model == "conditional":
        raise UserError(f"--likelihood needs samples of every class; {config.data} has attributes instead.")
    if config.PARR or (config.PMLR and config.model == "conditional"):
        raise UserError(
            f"--{'PARR' if config.PARR else 'PMLR'} draws every class; {config.data} has attributes instead."
        )
    if config.model not in ("conditional", "unsupervised"):
        raise UserError(
            f"--model {config.model} needs one class per image, which {config.data} does not have: "
            f"choose --model conditional or unsupervised."
        )


def refuse_image_shape(config, shape):
    """Refuses images (H, W, C) whose sides the convolutions cannot halve often enough.

    Raises:
        UserError: in one line.
    """
    parts = 2 ** (len(config.widths) - 1)
    if config.network == "conv" and any(side % parts for side in shape[:2]):
        raise UserError(
            f"--network conv with --conv_widths {config.conv_widths} needs images whose sides are "
            f"multiples of {parts}; these have {shape[0]} x {shape[1]} pixels."
        )


def refuse_uneven(config, replicas):
    """Raises a UserError unless each of so many replicas gets the same number of images in a step."""
    if config.batch_size % replicas:
        raise UserError(
            f"--batch_size {config.batch_size} does not divide among {replicas} replicas: choose a multiple."
        )
    if config.learns_labels and min(config.num_samples, config.batch_size) % replicas:
        raise UserError(
            f"--num_samples {config.num_samples} does not divide among {replicas} replicas: choose a "
            "multiple."
        )


def require_path(name, value):
    """Raises a UserError if the value of a flag cannot be a path."""
    # flags.txt could not hold the others: line breaks, other control characters, bytes that are no text.
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", value):
        raise UserError(f"--{name} {value!r} has characters that a path here cannot have.")
    if len(os.fsencode(value)) > 4000 or any(len(os.fsencode(part)) > 255 for part in Path(value).parts):
        raise UserError(f"--{name} is too long for a path: {value}")

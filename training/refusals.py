"""What a configuration cannot do with the images that there are."""

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

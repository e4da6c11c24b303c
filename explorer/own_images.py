"""A user's own picture, made like the images of the data set."""

import base64
import binascii

import cv2
import numpy as np

from data.readers import decode_picture
from utils.errors import UserError

MAX_BYTES = 10 * 2**20  # of a picture's file
INK = 25  # of 255: what is darker belongs to the background
# How data sets lay out what is drawn in bright ink on black: how much of the side its longer side takes, and
# whether its centre of mass, or that of its box, is in the middle. The first two are measured on their test
# images.
LAYOUTS = {"mnist": (20 / 28, "mass"), "digits": (1.0, "box"), "fashion_mnist": (1.0, "box")}


def like_the_data(picture, data_name, shape):
    """A picture as an image of the data set: uint8 of this shape (H, W, C).

    What is drawn, in MNIST and its like, is cut out, scaled and centred; of other pictures it is the largest
    part in the middle that has the proportions of the images, resized.

    Args:
        picture: uint8 (h, w, 3), RGB.
        data_name: of the data set.

    Raises:
        UserError: if nothing is drawn.
    """
    height, width, channels = shape
    if channels == 1:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None]
    if data_name in LAYOUTS:
        return _laid_out(picture[..., 0], (height, width), *LAYOUTS[data_name])[..., None]
    scale = min(picture.shape[0] / height, picture.shape[1] / width)
    cut = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = ((full - part) // 2 for full, part in zip(picture.shape, cut, strict=False))
    return _resized(picture[top : top + cut[0], left : left + cut[1]], (height, width)).reshape(shape)


def _laid_out(grey, size, share, centre):
    """What is drawn in a picture (h, w), bright on black, scaled and centred: uint8 of this size."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(border) > 127:
        grey = 255 - grey
    # A photograph's paper is not quite white, and its ink not quite black.
    grey = cv2.normalize(grey, None, 0, 255, cv2.NORM_MINMAX) if np.ptp(grey) > INK else np.zeros_like(grey)
    rows, columns = np.nonzero(grey > INK)
    if len(rows) == 0:
        raise UserError("There is nothing in the picture: draw something, or take another one.")
    ink = grey[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    scale = share * min(size) / max(ink.shape)
    ink = _resized(ink, tuple(max(1, round(side * scale)) for side in ink.shape))
    if centre == "mass":
        mass = ink.astype(float)
        middle = [np.average(np.arange(ink.shape[axis]), weights=mass.sum(axis=1 - axis)) for axis in (0, 1)]
    else:
        middle = [side / 2 for side in ink.shape]
    image = np.zeros(size, np.uint8)
    # Such that the middle of the ink comes to the middle of the image, as far as all of it stays inside.
    top, left = (
        int(np.clip(round(full / 2 - at), 0, full - side))
        for full, side, at in zip(size, ink.shape, middle, strict=True)
    )
    image[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return image


def _resized(picture, size):
    """A picture (h, w) or (h, w, C) of this size; averaging areas keeps fine lines where it shrinks."""
    method = cv2.INTER_AREA if picture.shape[0] >= size[0] else cv2.INTER_LINEAR
    return cv2.resize(picture, size[::-1], interpolation=method)


def picture_of(text):
    """The picture in a data URL, which is what the page sends: uint8 (h, w, 3), RGB.

    Raises:
        UserError: if it is too large, or no picture.
    """
    if not isinstance(text, str) or len(text) > MAX_BYTES * 4 // 3 + 100:
        raise UserError(f"The picture is larger than {MAX_BYTES // 2**20} MB: take a smaller one.")
    try:
        return decode_picture(base64.b64decode(text.partition("base64,")[2], validate=True))
    except (ValueError, binascii.Error, cv2.error):
        raise UserError("That is no picture that can be read: take a PNG or JPEG file.") from None

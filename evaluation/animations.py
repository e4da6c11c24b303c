"""All moving pictures: what the decoder makes of codes and labels that change step by step (second seed)."""

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from evaluation.labels import plain_name
from evaluation.plots import tile
from utils.files import atomic_path

N_POSITIONS = 11  # of a sweep in one direction
N_MORPHS = 10  # frames from one label to the next
MAX_BLOCK_AXES = 5  # a grid over the others of more axes would fill a wall
N_STYLES = 25
N_ATTRIBUTE_STYLES = 10
CAPTION_HEIGHT = 16  # pixels
GAP = 4  # pixels between blocks
MILLISECONDS = 100  # per frame
FONT = cv2.FONT_HERSHEY_SIMPLEX, 0.4  # and its scale
GREYS = 32  # of pictures without colours: nobody sees the others, and they would double the files
# What each of the 256 greys becomes.
SHADES = np.round(255 * np.round(np.linspace(0, GREYS - 1, 256)) / (GREYS - 1)).astype(np.uint8)


def draw(directory, animations, note="", progress=lambda name: None):
    """Writes animations on all cores, while the next ones are decoded.

    Args:
        animations: tuples of a file name and the arguments of `save_animation`: frames, and whether it runs
            back.
        note: see `save_animation`.
        progress: called with each file's name before it is made.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with ThreadPoolExecutor(cores) as pool:
        writing = deque()
        for name, frames, back in animations:
            progress(name)
            writing.append(pool.submit(save_animation, directory / name, list(frames), note, back))
            if len(writing) > cores:  # what waits to be written takes memory
                writing.popleft().result()
        for one in writing:
            one.result()


def save_animation(path, frames, note="", back=True):
    """Writes an animated PNG that runs for ever.

    Args:
        frames: pairs of a caption and a sheet, uint8 (H, W, C) with C 1 or 3, all of one size.
        note: what readers of the pictures must know; shown beside every caption.
        back: whether it also runs back to its beginning.
    """
    pictures = [_captioned(f"{caption}  {note}", sheet) for caption, sheet in frames]
    animation = cv2.Animation()
    animation.frames = pictures + pictures[-2:0:-1] * back
    animation.durations = np.full(len(animation.frames), MILLISECONDS, np.int32)
    with atomic_path(path) as temporary:
        if not cv2.imwriteanimation(str(temporary), animation):
            raise OSError(f"{path} could not be written.")


def _captioned(text, sheet):
    # Grey pictures stay grey: in three channels they would take 1.6 times the space.
    sheet = SHADES[sheet[..., 0]] if sheet.shape[2] == 1 else cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)
    strip = np.full((CAPTION_HEIGHT, *sheet.shape[1:]), 255, np.uint8)
    _write(strip, text, (3, 12))
    return np.concatenate([strip, sheet])


def _write(picture, text, place):
    """Writes a text whose base line begins at a place (x, y)."""
    cv2.putText(picture, text, place, *FONT, (0, 0, 0), 1, cv2.LINE_AA)


def traversals(model, data, axes=(), n_samples=3, names=()):
    """What the axes of the code do: each is swept over the prior's support, forward and back.

    Codes of up to 5 axes give one file per axis, `traversal_z1.png` and so on: the other axes form a grid
    of blocks of images, each with `n_samples` values over its support. Larger codes give one sheet,
    `traversal.png`: a cell for each axis, the other axes at 0. A decoder that sees classes gives one file
    for each class, one that sees attributes gets those of the first test image.

    Args:
        model: an `AdversarialAutoencoder`.
        data: an `ImageData`.
        axes: the axes to sweep, from 0; by default all.
        names: of the classes, for the captions; () where they are just numbers.

    Yields:
        What `draw` takes.
    """
    axes = list(axes) or list(range(model.n_z))
    support = model.prior.support()
    for ending, text, label in _label_of_each_file(model, data, names):
        if model.n_z > MAX_BLOCK_AXES:
            yield f"traversal{ending}.png", _with(text, _sweep_in_cells(model, axes, support, label)), True
            continue
        for axis in axes:
            frames = _sweep_over_grid(model, axis, support, label, n_samples)
            yield f"traversal_z{axis + 1}{ending}.png", _with(text, frames), True


def _label_of_each_file(model, data, names):
    """Endings of the file names, texts for the captions, and the row of K that the decoder sees, or None."""
    if not model.decodes_labels:
        return [("", "", None)]
    if model.attributes:
        return [("", "", data.test_labels[0])]
    rows = enumerate(np.eye(model.n_classes))
    return [(f"_label_{label}", plain_name(label, names) if names else "", row) for label, row in rows]


def _with(text, frames):
    """Frames whose captions end with a text, if there is one."""
    return ((f"{caption}  {text}".rstrip(), sheet) for caption, sheet in frames)


def _sweep_over_grid(model, axis, support, label, n_samples):
    """One axis is swept, the others form the grid: of four, two number the blocks, two the images within."""
    others = [a for a in range(model.n_z) if a != axis]
    values = np.linspace(*support, n_samples)[:, others]
    grid = np.stack(np.meshgrid(*values.T, indexing="ij"), axis=-1) if others else np.zeros((0,))
    shape = [1] * (4 - len(others)) + [n_samples] * len(others)
    positions = np.linspace(*support, N_POSITIONS)[:, axis]
    codes = np.zeros((N_POSITIONS, np.prod(shape), model.n_z))
    codes[..., others] = grid.reshape(codes.shape[1], len(others))
    codes[..., axis] = positions[:, None]
    images = _decoded(model, codes.reshape(-1, model.n_z), label)
    for position, frame in zip(positions, np.split(images, N_POSITIONS), strict=True):
        blocks = frame.reshape(-1, shape[2] * shape[3], *frame.shape[1:])
        blocks = np.stack([np.pad(tile(block, shape[3]), [(0, GAP), (0, GAP), (0, 0)]) for block in blocks])
        yield f"z{axis + 1} = {position:.2f}", tile(blocks, shape[1])[:-GAP, :-GAP]


def _sweep_in_cells(model, axes, support, label):
    """All axes are swept at once, each in a cell of its own, ten in a row."""
    for step, position in enumerate(np.linspace(*support, N_POSITIONS)):
        codes = np.zeros((len(axes), model.n_z))
        codes[np.arange(len(axes)), axes] = position[axes]
        yield (
            f"z{axes[0] + 1} to z{axes[-1] + 1}: {step + 1}/{N_POSITIONS}",
            tile(_decoded(model, codes, label), 10),
        )


def _decoded(model, codes, labels):
    """Images uint8 (N, H, W, C) of codes with a label row (K,), rows (N, K), or None."""
    if labels is not None:
        labels = np.broadcast_to(np.asarray(labels, np.float32), (len(codes), model.n_classes))
    return np.round(255 * model.decode(codes, labels)).astype(np.uint8)


def moving_labels(model, data, names=()):
    """`style.png`: the styles stay and the label changes.

    Classes: 25 styles drawn from the prior, while the label goes from the first to the last through
    mixtures of two neighbours. Attributes: the style and the attributes of ten test images in the columns,
    while each row switches its own attribute off and on. `names` of classes or attributes are written beside.

    Yields:
        What `draw` takes.
    """
    if model.attributes:
        frames = _switched_attributes(model, data, names)
    else:
        frames = _morphed_labels(model, model.sample_prior(N_STYLES, seed=0)[0], names)
    yield "style.png", frames, model.attributes


def _morphed_labels(model, styles, names):
    positions = np.arange(N_MORPHS * (model.n_classes - 1) + 1) / N_MORPHS
    # One call for all frames from a label to the next: for 25 images it takes as long as for some hundred.
    for some in np.split(positions, range(N_MORPHS, len(positions), N_MORPHS)):
        # The label between two neighbours is a mixture of both.
        rows = np.maximum(1 - np.abs(np.arange(model.n_classes) - some[:, None]), 0)
        images = _decoded(model, np.tile(styles, (len(some), 1)), np.repeat(rows, len(styles), axis=0))
        for position, frame in zip(some, np.split(images, len(some)), strict=True):
            between = sorted({int(np.floor(position)), int(np.ceil(position))})
            text = " > ".join(plain_name(k, names) for k in between) if names else f"label {position:.1f}"
            yield text, tile(frame, 5)


def _switched_attributes(model, data, names):
    images, labels = (part[:N_ATTRIBUTE_STYLES] for part in (data.test_images, data.test_labels))
    n_attributes = model.n_classes
    styles = np.tile(model.encode(images), (n_attributes, 1))
    for value in np.linspace(0, 1, N_POSITIONS):
        rows = np.tile(labels.astype(np.float32), (n_attributes, 1, 1))
        rows[np.arange(n_attributes), :, np.arange(n_attributes)] = value
        sheet = tile(_decoded(model, styles, rows.reshape(-1, n_attributes)), len(images))
        if names:
            sheet = np.concatenate([_margin(names, sheet), sheet], axis=1)
        yield f"each row's attribute at {value:.1f}", sheet


def _margin(names, sheet):
    """A white strip with one name beside each row of a sheet."""
    texts = [plain_name(row, names) for row in range(len(names))]
    width = 6 + max(cv2.getTextSize(text, *FONT, 1)[0][0] for text in texts)
    margin = np.full((len(sheet), width, sheet.shape[2]), 255, np.uint8)
    height = len(sheet) / len(names)
    for row, text in enumerate(texts):
        _write(margin, text, (3, int((row + 0.5) * height) + 4))
    return margin

"""TensorBoard's embedding projector: the codes of test images, with their labels and thumbnails."""

import cv2
import numpy as np

from evaluation.figures import evenly
from evaluation.labels import plain_name
from evaluation.plots import tile
from utils.files import atomic_path, write_text

MAX_POINTS = 2000
MAX_NUMBERS = 200_000  # of all codes: large codes show fewer points
FEWEST_POINTS = 50
THUMBNAIL = 32  # pixels
CONFIG = """embeddings {{
  tensor_name: "codes of test images"
  tensor_path: "projector/codes.tsv"
  metadata_path: "projector/metadata.tsv"
  sprite {{
    image_path: "projector/sprite.png"
    single_image_dim: {width}
    single_image_dim: {height}
  }}
}}
"""


def write_projector(directory, data, codes, predictions=None):
    """Writes what the projector shows into a run's folder of TensorBoard; nothing where codes are too large.

    Args:
        directory: with the event files.
        data: an `ImageData`.
        codes: float (N, n_z), of all test images.
        predictions: labels that the model gives them, int (N,), or None.
    """
    count = min(MAX_POINTS, MAX_NUMBERS // codes.shape[1])
    if count < FEWEST_POINTS:
        return
    chosen = evenly(np.arange(len(codes)), count)
    folder = directory / "projector"
    folder.mkdir(exist_ok=True)
    rows = ["\t".join(f"{number:.5g}" for number in code) for code in codes[chosen]]
    write_text(folder / "codes.tsv", "\n".join(rows) + "\n")
    columns = {"image": chosen, **_columns(data, chosen)}
    if predictions is not None:
        columns["read as"] = [plain_name(label, data.label_names) for label in predictions[chosen]]
    lines = ["\t".join(columns), *("\t".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    write_text(folder / "metadata.tsv", "\n".join(lines) + "\n")
    thumbnails = _thumbnails(data.test_images[chosen])
    with atomic_path(folder / "sprite.png") as temporary:
        side = int(np.ceil(np.sqrt(len(chosen))))
        cv2.imwrite(str(temporary), tile(thumbnails, side)[..., ::-1])
    height, width = thumbnails.shape[1:3]
    write_text(directory / "projector_config.pbtxt", CONFIG.format(width=width, height=height))


def _columns(data, chosen):
    """The labels of test images as text: one column, or one for each attribute."""
    labels, names = data.test_labels[chosen], data.label_names
    if not data.has_attributes:
        return {"class": [plain_name(int(label), names) for label in labels]}
    return {plain_name(index, names): labels[:, index] for index in range(labels.shape[1])}


def _thumbnails(images):
    """Images uint8 (N, H, W, C), none larger than `THUMBNAIL`."""
    height, width = images.shape[1:3]
    scale = min(1, THUMBNAIL / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if scale == 1:
        return images
    small = np.stack([cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in images])
    return small.reshape(len(images), size[1], size[0], images.shape[3])

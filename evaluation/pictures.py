"""The pictures of a trained model: all of plots/ but the previews. To add one: a function, and a line."""

import dataclasses
import functools
import sys
from pathlib import Path

import numpy as np

from evaluation import animations, plots
from evaluation.curves import save_curves
from evaluation.figures import (
    axes_limit,
    decode_samples,
    evenly,
    fixed_codes,
    labels_of_clusters,
    predicted_labels,
)
from evaluation.labels import class_name, class_names
from evaluation.sheets import interpolations, neighbours, outliers

MANIFOLD_SIDE = 20
MAX_STYLES = 20  # labels of a page of styles: more would be a wall
N_MEMBERS = 16  # test images of each cluster


@dataclasses.dataclass(frozen=True)
class Sitting:
    """All that pictures are made of.

    Attributes:
        config: the settings of the run, of which pictures read `PMLR`, `animate`, `seed` and the like.
        data: an `ImageData`.
        model: an `AdversarialAutoencoder`.
        plots: the folder to fill.
        codes: float32 (N, n_z), of all test images.
        rows: of history.csv.
    """

    config: object
    data: object
    model: object
    plots: Path
    codes: np.ndarray
    rows: list

    @functools.cached_property
    def fixed_codes(self):
        """See `evaluation.figures.fixed_codes`."""
        return fixed_codes(self.model)

    @functools.cached_property
    def limit(self):
        """Of the axes of the coding plane, see `axes_limit`."""
        return axes_limit(self.model)

    @functools.cached_property
    def cluster_labels(self):
        """See `labels_of_clusters`."""
        if not self.model.finds_clusters:
            return None
        validation = self.model.classify(self.data.validation_images)
        return labels_of_clusters(self.model, validation, self.data.validation_labels)

    @functools.cached_property
    def probabilities(self):
        """Of the labels or clusters of the test images, float (N, K), of models that classify."""
        return self.model.classify(self.data.test_images)

    @property
    def names(self):
        """Of the classes or attributes of the data; () where they are just numbers."""
        return self.data.label_names

    @property
    def model_names(self):
        """Of the labels that the model knows: clusters of its own have none."""
        return () if self.model.finds_clusters else self.names

    @property
    def name(self):
        """What is drawn, for titles."""
        return f"{self.data.name}, {self.model.settings.prior}, n_z {self.model.n_z}"


def draw_pictures(sitting):
    """Fills plots/ with those of `PICTURES` that the model and the settings allow."""
    for draw in PICTURES:
        draw(sitting)


def reconstructions(of):
    """100 test images beside their reconstructions."""
    # An even choice over the test split, which digits and folders may hold sorted by class.
    chosen = evenly(np.arange(len(of.codes)), 100)
    images, labels = of.data.test_images[chosen], of.data.test_labels[chosen]
    path = of.plots / "reconstructions.png"
    plots.save_reconstructions(path, images, of.model.reconstruct(images, labels), of.data.note)


def samples(of):
    """Decoded samples of the prior."""
    images = decode_samples(of.model, of.fixed_codes, of.data)
    title = f"Samples of the prior ({of.name})"
    plots.save_image_grid(of.plots / "samples.png", images, 10, title, of.data.note)


def curves(of):
    """Losses and rates."""
    save_curves(of.plots / "curves.png", of.rows, of.data.note)


def coding_plane(of):
    """n_z 2: the target prior, and the codes of the test images, on the same axes."""
    if of.model.n_z != 2:
        return
    codes, labels = of.model.sample_prior(len(of.codes), seed=-1)
    labels = labels if of.model.labels_have_places else None
    title = f"Target prior ({of.name})"
    heads = np.array(of.model.heads) if hasattr(of.model, "heads") else None
    path = of.plots / "prior.png"
    plots.save_codes(path, codes, labels, of.limit, title, of.data.note, heads, of.model_names)
    title = f"Codes of {len(of.codes)} test images ({of.name})"
    path, labels = of.plots / "codes.png", of.data.test_labels
    plots.save_codes(path, of.codes, labels, of.limit, title, of.data.note, heads, of.names)


def scatter_matrices(of):
    """n_z 3 to 10: pairs of axes of up to 2000 test codes, by class and by what D thinks of them."""
    if not 3 <= of.model.n_z <= 10:
        return
    # Points on a dense plot hide each other, so more of them would show less.
    chosen = evenly(np.arange(len(of.codes)), 2000)
    images, labels = of.data.test_images[chosen], of.data.test_labels[chosen]
    logits = of.model.judge(images, labels)
    pictures = {
        "scatter_logits.png": (logits, "Test codes, by D's logit: above 0, D takes them for the prior's")
    }
    if not of.data.has_attributes:
        pictures["scatter_classes.png"] = (labels, "Test codes, by class")
    for name, (values, title) in pictures.items():
        path = of.plots / name
        plots.save_scatter_matrix(path, of.codes[chosen], values, title, of.data.note, of.names)


def confusion(of):
    """Which labels a model that classifies confuses."""
    if hasattr(of.model, "classify"):
        predictions = predicted_labels(of.probabilities, of.cluster_labels)
        path = of.plots / "confusion.png"
        plots.save_confusion(path, of.data.test_labels, predictions, of.data.note, of.names)


def manifold(of):
    """PMLR: the decoded plane, over the prior's percentiles, and along the part of each label.

    A decoder that sees the label gives one plane per label.
    """
    if not of.config.PMLR:
        return
    grid = of.model.prior.percentile_grid(MANIFOLD_SIDE, of.config.seed).reshape(-1, 2)
    title = f"Manifold over the percentiles of the {of.config.prior} prior"
    if of.model.decodes_labels:
        for label in range(of.model.n_classes):
            images = of.model.decode(grid, np.full(len(grid), label))
            path, name = of.plots / f"manifold_label_{label}.png", class_name(label, of.model_names)
            text = f"{title}, label {name}"
            plots.save_image_grid(path, images, MANIFOLD_SIDE, text, of.data.note)
        return
    images = of.model.decode(grid)
    plots.save_image_grid(of.plots / "manifold.png", images, MANIFOLD_SIDE, title, of.data.note)
    if of.model.labels_have_places:
        paths = of.model.prior.component_paths(MANIFOLD_SIDE)
        plots.save_image_grid(
            of.plots / "manifold_components.png",
            of.model.decode(paths.reshape(-1, 2)),
            MANIFOLD_SIDE,
            "Along the part of the prior that belongs to each label",
            of.data.note,
            row_labels=class_names(range(len(paths)), of.model_names),
        )


def styles(of):
    """A style per row, that of the test image at the left, with every label, or each attribute switched."""
    if not of.model.decodes_labels or of.model.finds_clusters:
        return
    labels = np.arange(min(of.model.n_classes, MAX_STYLES))
    columns = class_names(labels, of.names)
    if of.data.has_attributes:
        chosen = np.arange(min(animations.N_ATTRIBUTE_STYLES, len(of.codes)))
        switched = np.vstack([np.zeros(of.model.n_classes), np.eye(of.model.n_classes)[labels]])
        rows = np.abs(of.data.test_labels[chosen, None] - switched).reshape(-1, of.model.n_classes)
        columns = ["as it is", *columns]
        title = "The style of the image at the left, one attribute switched"
    else:
        # The first test image of every label.
        chosen = np.array([np.argmax(of.data.test_labels == label) for label in labels])
        rows = np.tile(labels, len(chosen))
        title = "The style of the image at the left"
    images = of.model.decode(np.repeat(of.codes[chosen], len(columns), axis=0), rows)
    plots.save_beside(
        of.plots / "styles.png",
        of.data.test_images[chosen] / 255,
        images,
        ("test", title),
        of.data.note,
        column_labels=columns,
    )


def clusters(of):
    """Where there are clusters: the head of each, its decoded style 0, and test images that belong to it."""
    if not of.model.finds_clusters:
        return
    images, heads = of.data.test_images, of.model.decode_heads()
    chosen = of.probabilities.argmax(axis=1)
    members = np.zeros((len(heads), N_MEMBERS, *images.shape[1:]), np.uint8)
    for cluster, row in enumerate(members):
        own = evenly(np.flatnonzero(chosen == cluster), N_MEMBERS)
        row[: len(own)] = images[own]
    # What is decoded of an empty one means nothing.
    empty = ~np.isin(np.arange(len(heads)), chosen)
    labels = np.where(empty, "-", class_names(of.cluster_labels, of.names)).tolist()
    plots.save_beside(
        of.plots / "clusters.png",
        np.where(empty[:, None, None, None], 0, heads),
        members.reshape(-1, *images.shape[1:]) / 255,
        ("head", "test images of each cluster, at the left the label that it gets"),
        of.data.note,
        row_labels=labels,
    )


def moving_pictures(of):
    """--animate: traversals of the code, and labels that morph."""
    if not of.config.animate:
        return
    folder = of.plots / "animations"
    folder.mkdir(exist_ok=True)
    axes, n_samples = of.config.animated_axes(), of.config.traversal_samples
    wanted = [*animations.traversals(of.model, of.data, axes, n_samples, of.model_names)]
    if of.model.decodes_labels:
        wanted += animations.moving_labels(of.model, of.data, of.model_names)
    animations.draw(folder, wanted, of.data.note, Announced(len(wanted)))


class Announced:
    """Says which of many pictures is being drawn: in one line that changes, or only now and then in a file.

    Args:
        count: how many there are.
    """

    def __init__(self, count):
        self.count, self.begun = count, 0

    def __call__(self, name):
        self.begun += 1
        line = f"Drawing animation {self.begun} of {self.count}: {name}"
        if sys.stdout.isatty():
            print(f"\r{line:<79}", end="\n" if self.begun == self.count else "", flush=True)
        elif self.begun % 10 == 1 or self.begun == self.count:
            print(line, flush=True)


PICTURES = [
    reconstructions,
    samples,
    curves,
    coding_plane,
    scatter_matrices,
    confusion,
    manifold,
    styles,
    clusters,
    interpolations,
    neighbours,
    outliers,
    moving_pictures,
]

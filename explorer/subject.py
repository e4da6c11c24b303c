"""The model that is explored, and what the page asks of it."""

import dataclasses
import functools

import numpy as np

from evaluation.figures import axes_limit, evenly
from models.prediction import checked_codes
from priors.gaussian import Gaussian
from utils.errors import UserError

MAX_POINTS = 5000  # test codes on the plane: more would hide each other
MAX_BESIDE = 40  # images of other labels: more would be a wall
N_OF_MEAN = 10_000  # samples of the prior


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A trained model with its data.

    Attributes:
        model: an `AdversarialAutoencoder`.
        data_name: of the data set that it was trained on.
        data: an `ImageData`, or None where it is not on this machine.
    """

    model: object
    data_name: str
    data: object = None

    @functools.cached_property
    def limit(self):
        """The axes of the code are shown from -limit to limit."""
        return axes_limit(self.model)

    @functools.cached_property
    def test_codes(self):
        """Codes of up to `MAX_POINTS` test images, float32 (M, n_z), and their labels, (M,) or (M, K)."""
        chosen = evenly(np.arange(len(self.data.test_images)), MAX_POINTS)
        return self.model.encode(self.data.test_images[chosen]), self.data.test_labels[chosen]

    @functools.cached_property
    def names(self):
        """What the labels that the model knows are called: K texts."""
        if self.model.finds_clusters:
            return [f"cluster {k}" for k in range(self.model.n_classes)]
        known = self.data.label_names if self.data else ()
        if known and self.model.attributes:
            return [str(name) for name in known]
        return [f"{k} {known[k]}" if known else str(k) for k in range(self.model.n_classes)]

    @functools.cached_property
    def mean(self):
        """The mean of the prior, float32 (n_z,): 0 where its samples do not say otherwise."""
        codes = self.model.sample_prior(N_OF_MEAN, seed=-1)[0]
        mean, error = codes.mean(axis=0), codes.std(axis=0) / np.sqrt(N_OF_MEAN)
        return np.where(np.abs(mean) < 5 * error, 0, mean).astype(np.float32)

    @property
    def has_arcs(self):
        """Whether the prior is a gaussian around the origin, in which great circles make sense."""
        return type(self.model.prior) is Gaussian

    def rows(self, label):
        """What the decoder sees of a label: a class, or the list of the attributes that are on: (K,)."""
        row = np.zeros(self.model.n_classes, np.float32)
        chosen = label if self.model.attributes else [label]
        if not all(isinstance(k, int) and 0 <= k < len(row) for k in chosen):
            raise UserError(f"There is no label {label}.")
        row[list(chosen)] = 1
        return row

    def label_of(self, row):
        """The label of a row (K,), as `rows` takes it: the likeliest class, or the attributes that are on."""
        return np.flatnonzero(row > 0.5).tolist() if self.model.attributes else int(np.argmax(row))

    def decode(self, code, row=None):
        """The image of a code (n_z,), beside a label's row (K,) if the decoder sees one: uint8 (H, W, C)."""
        return self.decode_all(np.asarray(code)[None], None if row is None else row[None])[0]

    def decode_all(self, codes, rows=None):
        """The images of codes (N, n_z), beside rows (N, K): uint8 (N, H, W, C)."""
        images = self.model.decode(codes, rows if self.model.decodes_labels else None)
        return np.round(255 * images).astype(np.uint8)

    def with_all_labels(self, code, row):
        """A code (n_z,) decoded with its label's row (K,), and with others: with each class, or attribute by
        attribute switched.

        Returns:
            the image, uint8 (H, W, C), and pairs of a name and an image.
        """
        if not self.model.decodes_labels:
            return self.decode(code), []
        count = min(self.model.n_classes, MAX_BESIDE)
        others = np.eye(self.model.n_classes, dtype=np.float32)[:count]
        if self.model.attributes:
            others = np.abs(row - others)
        images = self.decode_all(np.tile(code, (count + 1, 1)), np.concatenate([row[None], others]))
        names = self.names[:count]
        if self.model.attributes:
            names = [f"{'without' if row[k] else 'with'} {names[k]}" for k in range(count)]
        return images[0], list(zip(names, images[1:], strict=True))

    def sample(self):
        """A new draw from the prior, float32 (n_z,)."""
        return self.model.sample_prior(1)[0][0]

    def code(self, values):
        """A code (n_z,) of numbers that came from the page.

        Raises:
            UserError: if they are no finite numbers, or not as many as the code has.
        """
        try:
            return checked_codes(np.asarray(values, np.float32)[None], self.model.n_z)[0]
        except (ValueError, TypeError) as error:
            raise UserError(f"That is no code: {error}") from None

    def test_image(self, number):
        """A test image, uint8 (H, W, C), and its label, a class or attributes (K,).

        Raises:
            UserError: if there is none of that number.
        """
        count = len(self.data.test_images) if self.data else 0
        if not isinstance(number, (int, float)) or not 0 <= number < count or number != int(number):
            raise UserError(f"Test images have numbers from 0 to {count - 1}, got {number}.")
        return self.data.test_images[int(number)], self.data.test_labels[int(number)]

    def read_row(self, image, label):
        """What the decoder sees beside the code of an image (H, W, C): (K,), or None where it sees nothing.

        Args:
            label: of the image, as of `rows`; where the model reads it from the image, it does not count.
        """
        if not self.model.decodes_labels:
            return None
        if hasattr(self.model, "classify"):
            return self.model.classify(image[None])[0]
        return self.rows(label)

    def probabilities(self, image):
        """Those of the labels that the model reads in an image, a dict by name; None where it reads none."""
        if not hasattr(self.model, "classify"):
            return None
        return dict(zip(self.names, map(float, self.model.classify(image[None])[0]), strict=True))

    def opinions(self, image, label=None):
        """How probable D finds it that the code of an image is a sample of the prior: a dict by label.

        A D that sees no label, or one of attributes, says one number, under the name "the code".

        Args:
            label: attributes that are on; classes are all tried.
        """
        model = self.model
        reads = hasattr(model, "classify") or not (model.decodes_labels or model.ties_labels_to_prior)
        if reads or model.attributes:
            names = ["the code"]
            labels = self.rows(label or [])[None] if model.attributes else np.zeros(1, np.int32)
        else:
            names, labels = self.names, np.arange(model.n_classes, dtype=np.int32)
        logits = model.judge(np.repeat(image[None], len(names), axis=0), labels)
        return dict(zip(names, map(float, 1 / (1 + np.exp(-logits.astype(float)))), strict=True))

    def place(self, code):
        """Whose part of the prior a code (n_z,) lies in, as a sentence; "" where labels have no parts."""
        if not self.model.labels_have_places:
            return ""
        label = int(np.asarray(self.model.prior.classify(np.asarray(code, np.float32)[None]))[0])
        return f"It lies in the part of the prior that belongs to {self.names[label]}."

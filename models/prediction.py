"""Use of a model after training: numpy in, numpy out, every input checked."""

import operator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from models.augmentation import to_unit_interval
from models.export import export
from models.nearest import nearest

# Images per call of a network: bounds the memory, whatever the number asked for.
INFERENCE_BATCH = 1000
# Pixels may leave [0, 1] by so much: resizing does that.
PIXEL_TOLERANCE = 1e-3
# Of the prior, that codes are held against where it has no density.
SCORE_SAMPLES = 10_000


class Scores(NamedTuple):
    """How strange images are to a model: the larger, the stranger.

    Attributes:
        reconstruction_error: float32 (N,), mean squared error over the pixels, on the [0, 1] scale.
        code_surprise: float32 (N,), minus the log density of the code under the prior, in nats; under a prior
            without density, the code's distance from the nearest of `SCORE_SAMPLES` samples.
    """

    reconstruction_error: np.ndarray
    code_surprise: np.ndarray


class Prediction:
    """What users call on an `AdversarialAutoencoder`. Images are (N, H, W, C), uint8 or float in [0, 1].

    All methods raise ValueError where an input has another shape, type or range than they say.
    """

    def encode(self, images) -> np.ndarray:
        """Codes of images: float32 (N, n_z); of a semi-supervised or clustering model, the styles."""
        return self._in_batches("code", checked_images(images, self.image_shape))

    def code(self, images):
        """`encode` of float images as a tensor."""
        return self.final_encoder(images)

    def decode(self, codes, labels=None) -> np.ndarray:
        """Images of codes (N, n_z): float32 (N, H, W, C) in [0, 1].

        Args:
            labels: for a decoder that sees them: classes (N,), or rows (N, K), which are one-hot,
                probabilities, or attributes.
        """
        codes = checked_codes(codes, self.n_z)
        if self.decodes_labels:
            codes = np.concatenate([codes, self._label_rows(labels, len(codes))], axis=1)
        elif labels is not None:
            raise ValueError("The decoder of this model sees no labels.")
        return self._in_batches("final_decoder", codes)

    def _label_rows(self, labels, count):
        """Labels as the decoder sees them: float32 (count, K)."""
        return checked_label_rows(labels, count, self.n_classes, self.attributes)

    def reconstruct(self, images, labels=None) -> np.ndarray:
        """Decoded codes of images: float32 (N, H, W, C) in [0, 1].

        Args:
            labels: of the images, which a conditional model needs; others do without.
        """
        return self._in_batches("call", checked_images(images, self.image_shape))

    def judge(self, images, labels) -> np.ndarray:
        """The logit that D gives the code of each image, float32 (N,): above 0, it takes it for the prior's.

        Where there are several discriminators, it is the one of the style.

        Args:
            labels: of the images: classes (N,) or attributes (N, K).
        """
        return self._in_batches("_logits", checked_images(images, self.image_shape), np.asarray(labels))

    def _logits(self, images, labels):
        network = next(iter(self.discriminators.values()))
        return network(self.fake_samples(self.final_encoder(images), labels, None)[0])[:, 0]

    def _in_batches(self, name, inputs, *others) -> np.ndarray:
        """The outputs of the network or method of this name for inputs of any number, joined."""
        for start in range(0, max(len(inputs), 1), INFERENCE_BATCH):
            batch = [np.asarray(array[start : start + INFERENCE_BATCH]) for array in (inputs, *others)]
            # For less than a whole batch, tracing would take longer than it saves.
            whole = len(batch[0]) == INFERENCE_BATCH
            run = self._graph(name, batch) if whole else _of_images(getattr(self, name))
            made = run(*map(tf.convert_to_tensor, batch)).numpy()
            if start == 0:
                outputs = np.empty((len(inputs), *made.shape[1:]), made.dtype)
            outputs[start : start + len(made)] = made
        return outputs

    def _graph(self, name, batch):
        """The network or method of this name as a graph for arrays of these shapes and types, traced once."""
        specs = tuple(tf.TensorSpec(array.shape, array.dtype) for array in batch)
        # Past Keras, which tracks what its models are given.
        graphs = vars(self).setdefault("_graphs", {})
        if (name, specs) not in graphs:
            function = tf.function(_of_images(getattr(self, name)), autograph=False)
            # Called by itself, it would warn of "frequent retracing" once there are five, of whatever model.
            graphs[name, specs] = function.get_concrete_function(*specs)
        return graphs[name, specs]

    def score(self, images, labels=None) -> Scores:
        """How strange each image is, for the detection of anomalies: `Scores` of two float32 (N,).

        Args:
            labels: as of `reconstruct`.
        """
        images = checked_images(images, self.image_shape)
        labels = None if labels is None else np.asarray(labels)
        errors = np.empty(len(images), np.float32)
        for start in range(0, len(images), INFERENCE_BATCH):
            chosen = slice(start, start + INFERENCE_BATCH)
            clean = to_unit_interval(images[chosen]).numpy()
            again = self.reconstruct(images[chosen], None if labels is None else labels[chosen])
            errors[chosen] = np.square(again - clean).mean(axis=(1, 2, 3))
        return Scores(errors, self.code_surprise(self.encode(images)))

    def code_surprise(self, codes) -> np.ndarray:
        """How improbable codes (N, n_z) are under the prior, float32 (N,), as in `Scores`."""
        codes = checked_codes(codes, self.n_z)
        try:
            return -self.prior.log_prob(codes).numpy()
        except NotImplementedError:
            return nearest(codes, self.sample_prior(SCORE_SAMPLES, seed=-1)[0])[1][:, 0]

    def generate(self, n, label=None, seed=None) -> np.ndarray:
        """Decodes n samples of the prior, or of one label's part of it: float32 (n, H, W, C) in [0, 1].

        Without a `seed` every call draws new samples, the same ones in every process.

        Args:
            label: of all samples: a class, or a row of K attributes. Where none is given, classes are
                drawn equally often, clusters as often as images chose them; attributes must be given.
        """
        n = checked_integer(n, "a number of images, at least 0", 0)
        if self.attributes and self.decodes_labels:
            rows = np.tile(self._label_rows(np.reshape(label, (1, -1)), 1), (n, 1))
            return self.decode(self.sample_prior(n, seed=seed)[0], rows)
        if label is not None and not self.has_labels:
            raise ValueError(
                f"This model with the {self.settings.prior} prior and n_z {self.n_z} has no labels."
            )
        codes, labels = self.sample_prior(n, label, seed)
        return self.decode(codes, labels if self.decodes_labels else None)

    def sample_prior(self, n, label=None, seed=None):
        """Draws from the prior outside training.

        Returns:
            codes float32 (n, n_z), and labels int32 (n,): `label`, or drawn, see `Prior.sample_labels`. The
            codes are drawn for these labels where the model ties labels to the prior.
        """
        if label is not None:
            label = checked_label(label, self.n_classes)
        if seed is None:
            seed, self._generated = self._generated, self._generated + 1
        seed = checked_integer(seed, "a seed, a whole number")
        codes, labels = self.prior_samples(n, seed, -1 if label is None else label)
        return codes.numpy(), labels.numpy()

    def prior_samples(self, count, seed, label):
        """The draw of `sample_prior` as tensors; its arguments, scalars, may be tensors too.

        Args:
            label: of all samples; below 0, labels are drawn.
        """
        label_seed, code_seed = tf.unstack(tf.random.split(tf.stack([self.settings.seed, seed]), 2))
        labels = tf.where(label < 0, self.prior.sample_labels(count, label_seed), label)
        return self.prior.sample(count, code_seed, labels if self.ties_labels_to_prior else None), labels

    @property
    def has_labels(self):
        """Whether samples can be asked for by their label."""
        return self.labels_have_places or self.decodes_labels

    def export(self, folder, format="saved_model") -> dict:
        """Writes the encoder, decoder, generator and classifier, if any, for use without this program.

        Format "saved_model" or "onnx"; arguments, result and errors as of `models.export.export`.
        """
        return export(self, folder, format)


def _of_images(function):
    """A function of float images or codes as one of uint8 images, too."""
    return lambda images, *others: function(to_unit_interval(images), *others)


def checked_images(images, shape) -> np.ndarray:
    """Images (N, *shape), uint8 or float in [0, 1]."""
    if getattr(images, "dtype", None) != np.uint8:  # stored images stay where they are until they are sliced
        images = np.asarray(images)
    if images.ndim != 4 or images.shape[1:] != tuple(shape):
        raise ValueError(f"Expected images of shape (N, {', '.join(map(str, shape))}), got {images.shape}.")
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(f"Expected images of type uint8 or float32, got {images.dtype}.")
    low, high = (float(f(images, initial=0)) for f in (np.min, np.max))  # NaN if a pixel is
    if not (low >= -PIXEL_TOLERANCE and high <= 1 + PIXEL_TOLERANCE):
        raise ValueError(
            f"Expected float images from 0 to 1, got {low:g} to {high:g}: pixels from 0 to 255 must be "
            "uint8, or divided by 255."
        )
    return images


def checked_codes(codes, n_z) -> np.ndarray:
    """Codes as float32 (N, n_z)."""
    try:
        codes = np.asarray(codes, np.float32)
    except (TypeError, ValueError):
        raise ValueError(f"Expected codes of shape (N, {n_z}), numbers, got something else.") from None
    if codes.ndim != 2 or codes.shape[1] != n_z:
        raise ValueError(f"Expected codes of shape (N, {n_z}), got {codes.shape}.")
    if not np.all(np.isfinite(codes)):
        raise ValueError("Expected codes that are finite, got NaN or infinity.")
    return codes


def checked_label_rows(labels, count, n_classes, attributes) -> np.ndarray:
    """Labels as float32 (count, K): classes (count,), unless they are attributes, or rows."""
    labels = np.asarray(labels)
    if labels.shape == (count,) and np.issubdtype(labels.dtype, np.integer) and not attributes:
        for extreme in (labels.min(initial=0), labels.max(initial=0)):
            checked_label(extreme, n_classes)
        labels = np.eye(n_classes)[labels]
    if labels.shape != (count, n_classes) or labels.dtype.kind not in "biuf":
        integers = "" if attributes else f"{count} integer labels or "
        raise ValueError(
            f"Expected {integers}labels of shape ({count}, {n_classes}), "
            f"got {labels.dtype} labels of shape {labels.shape}."
        )
    if not np.all(np.isfinite(labels)):
        raise ValueError("Expected labels that are finite, got NaN or infinity.")
    return labels.astype(np.float32)


def checked_label(label, n_classes) -> int:
    """A class from 0 to K - 1."""
    expected = f"a label from 0 to {n_classes - 1}"
    return checked_integer(label, expected, 0, n_classes - 1)


def checked_integer(value, expected, at_least=None, at_most=None) -> int:
    """A whole number within limits; `expected` says it for the message."""
    try:
        number = operator.index(value)
    except TypeError:
        raise ValueError(f"Expected {expected}, got {value!r}.") from None
    if (at_least is not None and number < at_least) or (at_most is not None and number > at_most):
        raise ValueError(f"Expected {expected}, got {number}.")
    return number

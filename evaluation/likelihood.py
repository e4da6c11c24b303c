"""The log-likelihood of images under a Parzen window on a model's samples (arXiv 1511.05644, section 3)."""

import itertools
import math

import numpy as np
import tensorflow as tf

from models.precision import exact_products

# Standard deviations of the window, on pixels in [0, 1], for a rough choice with the first samples. With more
# samples narrower windows are best, so the fine choice lies mostly below.
BANDWIDTHS = np.geomspace(0.05, 1.0, 27)
N_FINE = 9
BLOCK = 10_000  # samples that are held at a time
IMAGES = 1000  # compared with them at a time


@exact_products()
def parzen_log_likelihood(blocks, images, bandwidths) -> np.ndarray:
    """Log density of images under normal windows around samples, in nats.

    The memory it takes does not depend on the number of samples.

    Args:
        blocks: iterable of samples, float arrays (B, ...) of any B.
        images: float (N, ...), as the samples.
        bandwidths: standard deviations of the window.

    Returns:
        float64 (len(bandwidths), N).
    """
    images = np.asarray(images, np.float32).reshape(len(images), -1)
    rates = tf.constant(-0.5 / np.square(bandwidths), tf.float32)
    totals, count = np.full((len(bandwidths), len(images)), -np.inf), 0
    for samples in blocks:
        samples = tf.constant(np.reshape(samples, (len(samples), -1)), tf.float32)
        count += len(samples)
        for start in range(0, len(images), IMAGES):
            chosen = slice(start, start + IMAGES)
            sums = _log_sums(tf.constant(images[chosen]), samples, rates)
            totals[:, chosen] = np.logaddexp(totals[:, chosen], sums.numpy())
    normal = 0.5 * images.shape[1] * np.log(2 * math.pi * np.square(bandwidths))
    return totals - math.log(count) - normal[:, None]


@tf.function(reduce_retracing=True)
def _log_sums(images, samples, rates):
    """Log of the sum over samples (B, D) of exp(rate * squared distance): float32 (rates, images)."""
    products = tf.matmul(images, samples, transpose_b=True)
    distances = tf.reduce_sum(images**2, 1)[:, None] + tf.reduce_sum(samples**2, 1) - 2 * products
    # One rate at a time: all at once would take as many times the memory.
    return tf.map_fn(lambda rate: tf.reduce_logsumexp(rate * distances, axis=1), rates)


def log_likelihood(model, data, n_samples):
    """The test images' log-likelihood, with the bandwidth that suits the validation images best.

    Args:
        model: an `AdversarialAutoencoder` without attributes.
        data: an `ImageData`.
        n_samples: how many samples the windows lie on.

    Returns:
        dict: `log_likelihood`, the mean in nats; `log_likelihood_error`, its standard error;
        `validation_log_likelihood`, to choose settings by; `parzen_bandwidth`; `parzen_samples`.
    """

    def blocks():
        for index, start in enumerate(range(0, n_samples, BLOCK)):
            # Seeds that nothing else draws with.
            yield model.generate(min(BLOCK, n_samples - start), seed=-1000 - index)

    splits = data.validation_images, data.test_images
    validation, test = (images.astype(np.float32) / 255 for images in splits)
    rough = parzen_log_likelihood(itertools.islice(blocks(), 1), validation, BANDWIDTHS).mean(axis=1)
    best = int(np.argmax(rough))
    bandwidths = np.geomspace(BANDWIDTHS[max(best - 3, 0)], BANDWIDTHS[min(best + 1, len(rough) - 1)], N_FINE)
    # One pass over the samples, which may be millions, serves both splits.
    both = parzen_log_likelihood(blocks(), np.concatenate([validation, test]), bandwidths)
    of_validation = both[:, : len(validation)].mean(axis=1)
    best = int(np.argmax(of_validation))
    of_test = both[best, len(validation) :]
    return {
        "log_likelihood": float(of_test.mean()),
        "log_likelihood_error": float(of_test.std() / math.sqrt(len(of_test))),
        "validation_log_likelihood": float(of_validation[best]),
        "parzen_bandwidth": float(bandwidths[best]),
        "parzen_samples": float(n_samples),
    }

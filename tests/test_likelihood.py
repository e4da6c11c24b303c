"""The log-likelihood under Parzen windows, against scikit-learn's and against densities that are known."""

import contextlib
import types

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from sklearn.neighbors import KernelDensity

from evaluation import likelihood
from models.precision import exact_products

RNG = np.random.default_rng(0)


def test_it_is_that_of_scikit_learn():
    samples, images = RNG.random((300, 4, 5, 1)), RNG.random((70, 4, 5, 1))
    bandwidths = [0.1, 0.3, 2.0]
    ours = likelihood.parzen_log_likelihood([samples], images, bandwidths)
    for bandwidth, row in zip(bandwidths, ours, strict=True):
        # One leaf: with more, scikit-learn 1.9 is wrong about points far from all samples.
        density = KernelDensity(bandwidth=bandwidth, leaf_size=len(samples)).fit(samples.reshape(300, -1))
        np.testing.assert_allclose(row, density.score_samples(images.reshape(70, -1)), rtol=1e-4, atol=1e-3)


def test_products_are_exact_and_afterwards_as_before(monkeypatch):
    def exact():
        return not tf.config.experimental.tensor_float_32_execution_enabled()

    seen, log_sums = [], likelihood._log_sums

    def noted(*arguments):
        seen.append(exact())
        return log_sums(*arguments)

    monkeypatch.setattr(likelihood, "_log_sums", noted)
    before = exact()
    likelihood.parzen_log_likelihood([np.zeros((5, 6))], np.ones((3, 6)), [0.2])
    with contextlib.suppress(KeyError), exact_products():
        seen.append(exact())
        raise KeyError
    assert seen == [True, True]
    assert exact() == before


def test_blocks_of_any_size_give_what_one_gives(monkeypatch):
    samples, images = RNG.random((50, 6)), RNG.random((23, 6))
    whole = likelihood.parzen_log_likelihood([samples], images, [0.2])
    monkeypatch.setattr(likelihood, "IMAGES", 7)
    parts = likelihood.parzen_log_likelihood([samples[:1], samples[1:34], samples[34:]], images, [0.2])
    np.testing.assert_allclose(parts, whole, rtol=1e-5)


def test_images_far_from_all_samples_are_unlikely_but_not_infinitely():
    far = likelihood.parzen_log_likelihood([np.zeros((10, 784))], np.ones((1, 784)), [0.05])
    expected = stats.norm(0, 0.05).logpdf(1.0) * 784
    assert far[0, 0] == pytest.approx(expected, rel=1e-4)


@pytest.fixture
def normal(monkeypatch):
    """A generator of independent pixels N(.5, .1^2) and images of the same kind, as far as uint8 can say."""
    monkeypatch.setattr(likelihood, "BLOCK", 400)
    seeds = []

    def generate(n, seed):
        seeds.append(seed)
        return np.random.default_rng(-seed).normal(0.5, 0.1, (n, 3, 1, 1)).astype(np.float32)

    def images(n, seed):
        return np.round(255 * np.random.default_rng(seed).normal(0.5, 0.1, (n, 3, 1, 1))).astype(np.uint8)

    data = types.SimpleNamespace(validation_images=images(500, 1), test_images=images(800, 2))
    return types.SimpleNamespace(generate=generate, seeds=seeds), data


def test_a_perfect_generator_comes_near_the_entropy(normal):
    model, data = normal
    figures = likelihood.log_likelihood(model, data, 2000)
    entropy = 3 * stats.norm(0.5, 0.1).entropy()
    # A window blurs: the estimate lies below, the less the more samples there are.
    assert -entropy - 0.35 < figures["log_likelihood"] < -entropy + 3 * figures["log_likelihood_error"]
    assert figures["parzen_samples"] == 2000
    assert 0.01 < figures["log_likelihood_error"] < 0.1
    # Blocks have other samples each, and the first is that of the rough choice.
    assert len(set(model.seeds[1:])) == 5
    assert model.seeds[0] == model.seeds[1]


def test_the_bandwidth_is_that_of_the_validation_images(normal):
    model, data = normal
    figures = likelihood.log_likelihood(model, data, 2000)
    best = figures["parzen_bandwidth"]
    blocks = [model.generate(400, seed=seed) for seed in model.seeds[1:6]]
    near = [best * factor for factor in (0.6, 1.0, 1.6)]
    means = likelihood.parzen_log_likelihood(blocks, data.validation_images / 255, near).mean(axis=1)
    assert means[1] == max(means) == pytest.approx(figures["validation_log_likelihood"], rel=1e-5)
    # Test images that are all the same cannot move it.
    data.test_images = np.zeros_like(data.test_images)
    again = likelihood.log_likelihood(model, data, 2000)
    assert again["parzen_bandwidth"] == best
    assert again["validation_log_likelihood"] == figures["validation_log_likelihood"]
    assert again["log_likelihood"] != figures["log_likelihood"]

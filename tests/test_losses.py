import numpy as np
from sklearn.metrics import mutual_info_score

from models import losses

RNG = np.random.default_rng(0)
REAL, FAKE = RNG.normal(size=(2, 64, 1)).astype(np.float32) * 3


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def test_reconstruction_loss_is_the_mean_over_batch_and_pixels():
    images, reconstructions = RNG.random((2, 6, 8, 8, 1)).astype(np.float32)
    expected = sum(((a - b) ** 2).sum() for a, b in zip(images, reconstructions, strict=True)) / (6 * 64)
    np.testing.assert_allclose(losses.mean_squared_error(images, reconstructions), expected, rtol=1e-5)


def test_half_summed_squared_error_is_averaged_over_the_batch_alone():
    images, reconstructions = RNG.random((2, 6, 8, 8, 1)).astype(np.float32)
    expected = sum(((a - b) ** 2).sum() for a, b in zip(images, reconstructions, strict=True)) / 6 / 2
    found = losses.half_summed_squared_error(images, reconstructions)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_label_loss_is_the_cross_entropy_of_the_softmax():
    logits = RNG.normal(size=(6, 10)).astype(np.float32) * 3
    labels = np.array([0, 3, 9, 1, 1, 5], np.uint8)
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    expected = -np.log(p[np.arange(6), labels]).mean()
    np.testing.assert_allclose(losses.label_loss(labels, logits), expected, rtol=1e-5)


def test_lost_information_is_that_of_scikit_learn():
    """With sure clusters, the mutual information is that of two labellings."""
    first, second = RNG.integers(0, 4, (2, 200))
    second = np.where(RNG.random(200) < 0.7, first, second)
    # The loss takes both orders of the pair for alike.
    information = mutual_info_score(np.r_[first, second], np.r_[second, first])
    sure = 50 * np.eye(4, dtype=np.float32)
    found = losses.lost_information(sure[first], sure[second])
    np.testing.assert_allclose(found, np.log(4) - information, rtol=1e-4)
    np.testing.assert_allclose(losses.lost_information(sure, sure), 0, atol=1e-5)
    np.testing.assert_allclose(losses.lost_information(0 * sure, sure), np.log(4), rtol=1e-5)


def test_discriminator_loss_is_the_sum_of_two_means():
    expected = -np.log(sigmoid(REAL)).mean() - np.log(1 - sigmoid(FAKE)).mean()
    np.testing.assert_allclose(losses.discriminator_loss(REAL, FAKE), expected, rtol=1e-5)


def test_generator_loss_is_the_non_saturating_one():
    np.testing.assert_allclose(losses.generator_loss(FAKE), -np.log(sigmoid(FAKE)).mean(), rtol=1e-5)


def test_undecided_discriminator_gives_the_equilibrium_figures():
    zeros = np.zeros((4, 1), np.float32)
    np.testing.assert_allclose(losses.discriminator_loss(zeros, zeros), 1.386, atol=1e-3)
    np.testing.assert_allclose(losses.generator_loss(zeros), 0.693, atol=1e-3)


def test_losses_stay_finite_for_certain_discriminators():
    certain = np.full((4, 1), 1e4, np.float32)
    assert np.isfinite(losses.discriminator_loss(-certain, certain))
    assert np.isfinite(losses.generator_loss(-certain))

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

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


def test_strayed_is_the_mean_of_a_share_of_each_distance():
    codes = np.array([[0, 0], [1, 2], [3, 0], [1e6, 0]], np.float32)
    targets = np.array([[0, 0], [1, 2.3], [0, 4], [0, 0]], np.float32)
    expected = [0, 0.09 / 0.27, 25 / 25.18, 1]
    assert float(losses.strayed(codes, targets)) == pytest.approx(np.mean(expected), rel=1e-5)


def test_lost_information_is_of_entropies():
    logits = RNG.normal(size=(50, 7)).astype(np.float32) * 2
    p = scipy.special.softmax(logits.astype(np.float64), axis=1)
    unsure = scipy.stats.entropy(p, axis=1).mean()
    lacking = np.log(7) - scipy.stats.entropy(p.mean(axis=0))
    found = losses.lost_information(logits)
    np.testing.assert_allclose(found, 0.1 * (unsure + 4 * lacking), rtol=1e-5)
    # Sure clusters chosen alike often; one for all, where the probability of the others is 0; no idea.
    sure = 200 * np.eye(4, dtype=np.float32)
    for logits, expected in ((sure, 0), (sure[[2, 2, 2]], 0.4 * np.log(4)), (0 * sure, 0.1 * np.log(4))):
        np.testing.assert_allclose(losses.lost_information(logits), expected, atol=1e-6)


def test_gradient_of_the_lost_information_is_the_numerical_one():
    logits = RNG.normal(size=(5, 4)).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(variable := tf.constant(logits))
        loss = losses.lost_information(variable)
    steps = 1e-2 * np.eye(20, dtype=np.float32).reshape(20, 5, 4)
    rises = [losses.lost_information(logits + s) - losses.lost_information(logits - s) for s in steps]
    np.testing.assert_allclose(np.ravel(tape.gradient(loss, variable)), np.array(rises) / 2e-2, atol=1e-4)
    # One cluster for all, with all others at a probability of 0: still a number.
    with tf.GradientTape() as tape:
        tape.watch(variable := tf.constant([[200.0, 0, 0]] * 2))
        loss = losses.lost_information(variable)
    assert np.all(np.isfinite(tape.gradient(loss, variable)))


def test_discriminator_loss_is_the_sum_of_two_means():
    expected = -np.log(sigmoid(REAL)).mean() - np.log(1 - sigmoid(FAKE)).mean()
    np.testing.assert_allclose(losses.discriminator_loss(REAL, FAKE), expected, rtol=1e-5)


def test_generator_loss_is_the_non_saturating_one():
    np.testing.assert_allclose(losses.generator_loss(FAKE), -np.log(sigmoid(FAKE)).mean(), rtol=1e-5)


def test_slope_penalty_is_half_the_mean_squared_gradient_of_the_logits_at_the_codes():
    """Against the slope of a network of two layers written out; it ends in a column that is no code."""
    first, second = RNG.normal(size=(4, 6)).astype(np.float32), RNG.normal(size=(6, 1)).astype(np.float32)
    real = RNG.normal(size=(50, 4)).astype(np.float32)
    bent = np.where(real @ first > 0, 1, 0.2)
    slopes = (bent * second[:, 0]) @ first.T
    penalty = losses.slope_penalty(lambda x: tf.nn.leaky_relu(x @ first, 0.2) @ second, tf.constant(real), 3)
    np.testing.assert_allclose(penalty, np.sum(slopes[:, :3] ** 2, axis=1).mean() / 2, rtol=1e-5)


def test_undecided_discriminator_gives_the_equilibrium_figures():
    zeros = np.zeros((4, 1), np.float32)
    np.testing.assert_allclose(losses.discriminator_loss(zeros, zeros), 1.386, atol=1e-3)
    np.testing.assert_allclose(losses.generator_loss(zeros), 0.693, atol=1e-3)


def test_losses_stay_finite_for_certain_discriminators():
    certain = np.full((4, 1), 1e4, np.float32)
    assert np.isfinite(losses.discriminator_loss(-certain, certain))
    assert np.isfinite(losses.generator_loss(-certain))

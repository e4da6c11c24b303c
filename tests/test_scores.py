"""How strange images are, and which training images are nearest."""

import numpy as np
import pytest

from models import nearest as nearest_module
from models.nearest import nearest
from models.prediction import SCORE_SAMPLES


@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_the_nearest_are_those_of_all_distances(monkeypatch, kind):
    monkeypatch.setattr(nearest_module, "QUERIES", 7)
    monkeypatch.setattr(nearest_module, "ITEMS", 11)
    rng = np.random.default_rng(0)
    items = rng.integers(0, 256, (40, 3, 2, 1), np.uint8)
    floats = items / 255
    queries = rng.random((20, 3, 2, 1))
    indices, distances = nearest(queries, items if kind == "uint8" else floats, 4)
    all_distances = np.sqrt(np.square(queries[:, None] - floats[None]).sum(axis=(2, 3, 4)))
    expected = np.argsort(all_distances, axis=1)[:, :4]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_allclose(distances, np.take_along_axis(all_distances, expected, 1), rtol=1e-4)


def test_an_item_is_its_own_nearest():
    items = np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), np.uint8)
    indices, distances = nearest(items / 255.0, items)
    np.testing.assert_array_equal(indices[:, 0], np.arange(30))
    np.testing.assert_allclose(distances, 0, atol=2e-3)


@pytest.mark.parametrize("model", ["unsupervised", "supervised", "semi_supervised", "conditional"])
def test_scores_are_the_error_and_the_surprise_of_each_image(make_model, batch, monkeypatch, model):
    monkeypatch.setattr("models.prediction.INFERENCE_BATCH", 16)
    images, labels = batch
    model = make_model(model=model, prior="gaussian", n_z=3)
    labels = labels if type(model).__name__ == "ConditionalAAE" else None
    scores = model.score(images, labels)
    expected = np.square(model.reconstruct(images, labels) - images / 255.0).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(scores.reconstruction_error, expected, rtol=1e-5)
    codes = model.encode(images)
    expected = 0.5 * np.square(codes).sum(axis=1) + 1.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(scores.code_surprise, expected, rtol=1e-5)
    # Floats are the same images.
    again = model.score(images.astype(np.float32) / 255, labels)
    np.testing.assert_allclose(again.reconstruction_error, scores.reconstruction_error, rtol=1e-5)


def test_a_prior_without_density_is_held_against_its_samples(make_model):
    model = make_model(prior="swiss_roll")
    on_the_roll = model.sample_prior(20, seed=5)[0]
    assert model.code_surprise(on_the_roll).max() < 0.05
    far = np.float32([[10, 0]])
    nearest_sample = np.linalg.norm(model.sample_prior(SCORE_SAMPLES, seed=-1)[0] - far, axis=1).min()
    assert model.code_surprise(far)[0] == pytest.approx(nearest_sample, rel=1e-3)


def test_what_cannot_be_scored_is_a_value_error(make_model, batch):
    with pytest.raises(ValueError, match="Expected images of shape"):
        make_model().score(batch[0][:, :4])
    with pytest.raises(ValueError, match="labels"):
        make_model(model="conditional").score(batch[0])

"""Averages of the weights: held against numpy, and what they serve for."""

import numpy as np
import pytest
import tensorflow as tf
from conftest import trained

from experiments.shipped import save_small
from models import load_model

EACH_KIND = [
    ("supervised", {}),
    ("semi_supervised", {"batch_norm": True}),
    ("dimensionality_reduction", {}),
    ("conditional", {"network": "conv", "conv_widths": "4,8", "batch_norm": True}),
]


def weights(network):
    return [variable.numpy().astype(np.float64) for variable in network.variables]


@pytest.mark.parametrize(("name", "options"), EACH_KIND)
def test_averages_are_those_of_the_weights_on_the_way(make_model, labelled_batch, name, options):
    """The same training without averages stops where they are taken, and numpy averages its weights."""
    options = {"model": name, "prior": "gaussian", "n_z": 3, **options}
    decay = 0.8
    model = trained(make_model(ema_decay=decay, **options), labelled_batch, 35)
    plain = make_model(**options)
    expected = weights(plain.encoder) + weights(plain.decoder)
    for steps in (10, 20, 30):
        trained(plain, labelled_batch, 10)
        kept = min(decay, (1 + steps) / (10 + steps)) ** 10
        passed = weights(plain.encoder) + weights(plain.decoder)
        expected = [kept * mean + (1 - kept) * weight for mean, weight in zip(expected, passed, strict=True)]
    averages = weights(model.averaged_encoder) + weights(model.averaged_decoder)
    for mean, wanted in zip(averages, expected, strict=True):
        np.testing.assert_allclose(mean, wanted, rtol=1e-5, atol=1e-6)


def test_early_averages_forget_faster(make_model, batch):
    """After 10 steps of a decay of 0.999, the first weights would still be 99 % of an average."""
    model = trained(make_model(ema_decay=0.999), batch, 10)
    start, end = weights(make_model().encoder)[0], weights(model.encoder)[0]
    kept = (11 / 20) ** 10
    np.testing.assert_allclose(weights(model.averaged_encoder)[0], kept * start + (1 - kept) * end, atol=1e-6)
    assert np.abs(end - start).max() > 0.01


def test_training_does_not_depend_on_averages(make_model, labelled_batch):
    options = {"model": "semi_supervised", "prior": "gaussian", "n_z": 3, "batch_norm": True, "cycle": True}
    plain = trained(make_model(**options), labelled_batch, 12)
    averaged = trained(make_model(ema_decay=0.9, **options), labelled_batch, 12)
    for network in ("encoder", "decoder", "discriminator_z"):
        pairs = zip(weights(getattr(plain, network)), weights(getattr(averaged, network)), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(("name", "options"), EACH_KIND)
def test_averages_serve_in_place_of_what_they_average(make_model, labelled_batch, name, options):
    """All that a model does after training is what one does that holds the averages as its weights."""
    options = {"model": name, "prior": "gaussian", "n_z": 3, **options}
    model = trained(make_model(ema_decay=0.9, **options), labelled_batch, 20)
    bare = make_model(**options)
    averages = {id(weight) for average, _ in model.averaged for weight in average.weights}
    bare.set_weights([weight.numpy() for weight in model.weights if id(weight) not in averages])
    images, labels = labelled_batch[:2]
    with_last_weights = bare.encode(images)
    for average, network in model.averaged:
        getattr(bare, network.name).set_weights(average.get_weights())
    np.testing.assert_array_equal(model.encode(images), bare.encode(images))
    assert not np.allclose(model.encode(images), with_last_weights, atol=1e-3)
    np.testing.assert_array_equal(model.reconstruct(images, labels), bare.reconstruct(images, labels))
    np.testing.assert_array_equal(model.generate(5, seed=1), bare.generate(5, seed=1))
    np.testing.assert_array_equal(model.judge(images, labels), bare.judge(images, labels))
    if hasattr(model, "classify"):
        np.testing.assert_array_equal(model.classify(images), bare.classify(images))
        np.testing.assert_array_equal(model.decode_heads(), bare.decode_heads())
    errors = [m.evaluate(tf.data.Dataset.from_tensors((images, labels)), verbose=0) for m in (model, bare)]
    assert errors[0] == errors[1] > 0


def test_a_saved_model_keeps_both(make_model, batch, tmp_path):
    model = trained(make_model(ema_decay=0.9), batch, 20)
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    for network in ("encoder", "averaged_encoder", "decoder", "averaged_decoder"):
        pairs = zip(weights(getattr(model, network)), weights(getattr(loaded, network)), strict=True)
        assert all(np.array_equal(a, b) for a, b in pairs)


def test_an_export_holds_the_averages(make_model, batch, tmp_path):
    differences = trained(make_model(ema_decay=0.9), batch, 20).export(tmp_path / "out", "saved_model")
    assert max(differences.values()) < 1e-5


def test_a_shipped_model_holds_the_averages_alone(make_model, batch, tmp_path):
    model = trained(make_model(ema_decay=0.9), batch, 20)
    codes = model.encode(batch[0])
    about = {name: {} for name in ("flags", "data", "versions", "checkpoint")}
    save_small(model, tmp_path / "small.keras", about)
    small = load_model(tmp_path / "small.keras")
    assert small.averaged == []
    np.testing.assert_allclose(small.encode(batch[0]), codes, atol=5e-3)
    assert small.count_params() == make_model().count_params() < model.count_params()

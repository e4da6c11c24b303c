import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from data.pipeline import training_batches
from models import LABELLED_DECODERS, MODELS, load_model
from models.dense_network import DenseNetwork
from models.fused_optimizers import FusedAdam, FusedSGD
from models.losses import discriminator_loss, generator_loss, mean_squared_error
from models.supervised_aae import SupervisedAAE
from priors import PRIORS


def values(variables):
    return [np.array(variable) for variable in variables]


def changed(before, variables):
    return [not np.array_equal(old, new) for old, new in zip(before, values(variables), strict=True)]


def test_parameter_count_of_the_seed_networks():
    model = SupervisedAAE((28, 28, 1), 10, "gaussian", 20, n_hidden=3000)
    # 784-3000-3000-20, 20-3000-3000-784 and 30-3000-3000-1, with biases.
    assert model.encoder.count_params() == 785 * 3000 + 3001 * 3000 + 3001 * 20
    assert model.decoder.count_params() == 21 * 3000 + 3001 * 3000 + 3001 * 784
    assert model.discriminator.count_params() == 31 * 3000 + 3001 * 3000 + 3001


def test_network_is_two_relu_layers_and_an_output_layer():
    network = DenseNetwork((4, 4, 1), (3,), n_hidden=8, activation="sigmoid", seed=1)
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 1)).astype(np.float32)
    w1, b1, w2, b2, w3, b3 = values(network.trainable_variables)
    hidden = np.maximum(np.maximum(x.reshape(5, 16) @ w1 + b1, 0) @ w2 + b2, 0)
    expected = 1 / (1 + np.exp(-(hidden @ w3 + b3)))
    np.testing.assert_allclose(network(x), expected, rtol=1e-4)
    assert not any(np.any(b) for b in (b1, b2, b3))
    # Glorot-uniform kernels fill +- sqrt(6 / (fan_in + fan_out)).
    bound = np.sqrt(6 / (16 + 8))
    assert 0.8 * bound < np.abs(w1).max() <= bound


def test_dropout_keeps_its_share_and_depends_on_the_seed():
    network = DenseNetwork((4,), (1,), n_hidden=4000, keep_prob=0.9)
    # One weight per hidden unit of the first layer: the output counts the units that were kept.
    w1, b1, w2, b2, w3, b3 = network.trainable_variables
    for variable, value in ((w1, 0), (b1, 1), (w2, np.eye(4000)), (b2, 0), (w3, 1 / 4000), (b3, 0)):
        variable.assign(np.broadcast_to(np.float32(value), variable.shape))
    x = np.zeros((8, 4), np.float32)
    kept = network(x, seed=[1, 2]).numpy()
    # Two dropouts, each scaled by 1 / 0.9: the mean stays 1, the spread is that of 0.81 kept units.
    assert kept.mean() == pytest.approx(1.0, abs=0.02)
    assert 0.001 < kept.std() < 0.03
    np.testing.assert_array_equal(kept, network(x, seed=[1, 2]))
    assert not np.array_equal(kept, network(x, seed=[1, 3]))
    np.testing.assert_allclose(network(x), 1.0, rtol=1e-5)


@pytest.mark.parametrize("prior", PRIORS)
def test_discriminator_sees_code_and_label(make_model, batch, prior):
    model = make_model(prior)
    labels = batch[1]
    real = model.real_samples(labels, [1, 2])[0].numpy()
    assert real.shape == (40, 12)
    # In two dimensions every prior ties the code to the label drawn with it.
    np.testing.assert_array_equal(model.prior.classify(real[:, :2]), real[:, 2:].argmax(axis=1))
    fake = model.fake_samples(real[:, :2], labels, [1, 2])[0].numpy()
    np.testing.assert_array_equal(fake[:, :2], real[:, :2])
    np.testing.assert_array_equal(fake[:, 2:], np.eye(10)[labels])


def test_noise_for_d_lies_on_real_and_fake_codes_but_not_on_labels(make_model):
    """The difference to the same draws without noise is the noise."""
    noisy, clean = make_model(d_noise=0.15), make_model()
    labels = np.arange(10_000) % 10
    codes = np.zeros((10_000, 2), np.float32)
    for differences in (
        noisy.real_samples(labels, [1, 2])[0] - clean.real_samples(labels, [1, 2])[0],
        noisy.fake_samples(codes, labels, [3, 4])[0] - clean.fake_samples(codes, labels, [3, 4])[0],
    ):
        assert np.std(differences[:, :2], axis=0) == pytest.approx([0.15, 0.15], rel=0.05)
        assert np.mean(differences[:, :2], axis=0) == pytest.approx([0, 0], abs=0.01)
        assert not np.any(differences[:, 2:])


def test_label_of_a_label_free_prior_has_the_marginal_of_the_data(make_model):
    model = make_model("gaussian", 20)
    real = model.real_samples(np.array([3, 3, 7], np.uint8), [1, 2])[0].numpy()
    np.testing.assert_array_equal(real[:, 20:], np.eye(10)[[3, 3, 7]])


@pytest.mark.parametrize("name", MODELS)
def test_each_phase_trains_its_own_variables_only(make_model, labelled_batch, name):
    """Zeroing the other optimizers' rates shows what each of them changes in a whole step."""
    trained = {
        "ae": {"encoder", "decoder"},
        "d": set(make_model(model=name).discriminator_shapes),
        "g": {"encoder"},
        "ce": {"encoder"},
    }
    phases = make_model(model=name).phases
    assert set(phases) == set(trained) - (set() if name == "semi_supervised" else {"ce"})
    for active in phases:
        model = make_model(model=name)
        for phase in phases:
            getattr(model, f"{phase}_optimizer").learning_rate = 1e-2 if phase == active else 0.0
        parts = ["encoder", "decoder", *model.discriminator_shapes]
        before = [values(getattr(model, part).trainable_variables) for part in parts]
        model.train_step(labelled_batch)
        for part, old in zip(parts, before, strict=True):
            kernels = changed(old, getattr(model, part).trainable_variables)[::2]
            assert kernels == [part in trained[active]] * 3, (active, part)


def test_one_label_head_serves_cross_entropy_decoder_and_d_y(make_model, labelled_batch):
    """In the first seed the cross entropy trained a head that neither the decoder nor D_y saw."""
    model = make_model(model="semi_supervised", keep_prob=1.0, noise_std=0.0)
    codes = tf.constant(np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32))
    probabilities = tf.nn.softmax(codes[:, 2:]).numpy()
    seen = model.decoder_input(codes).numpy()
    np.testing.assert_array_equal(seen[:, :2], codes[:, :2])
    np.testing.assert_allclose(seen[:, 2:], probabilities)
    style, labels = model.fake_samples(codes, None, [1, 2])
    np.testing.assert_array_equal(style, codes[:, :2])
    np.testing.assert_allclose(labels, probabilities)
    # The cross entropy alone must change the labels that the decoder sees, towards the right ones.
    for phase in model.phases:
        getattr(model, f"{phase}_optimizer").learning_rate = 1e-2 if phase == "ce" else 0.0
    images, labels = labelled_batch[2:]
    for _ in range(30):
        model.train_step(labelled_batch)
    assert np.mean(model.classify(images).argmax(axis=1) == labels) == 1
    assert not np.array_equal(labels, np.zeros_like(labels))


def test_real_samples_of_the_semi_supervised_model(make_model):
    model = make_model("gaussian", 3, model="semi_supervised")
    style, one_hot = model.real_samples(np.zeros(20_000, np.uint8), [1, 2])
    assert np.std(style, axis=0) == pytest.approx([1] * 3, rel=0.03)
    assert set(np.unique(one_hot)) == {0, 1}
    np.testing.assert_array_equal(np.sum(one_hot, axis=1), 1)
    # Uniform whatever the batch's own labels are, and independent of the style.
    assert np.mean(one_hot, axis=0) == pytest.approx([0.1] * 10, abs=0.01)
    assert np.abs(np.corrcoef(np.concatenate([style, one_hot], axis=1).T)[:3, 3:]).max() < 0.03


def test_semi_supervised_model_in_use(make_model, batch):
    model = make_model("gaussian", 3, model="semi_supervised")
    images, labels = batch
    style, probabilities = model.encode(images), model.classify(images)
    assert style.shape == (40, 3)
    assert probabilities.shape == (40, 10)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    decoded = model.decode(style, labels)
    np.testing.assert_array_equal(decoded, model.decode(style, np.eye(10)[labels]))
    assert not np.array_equal(decoded, model.decode(style, (labels + 1) % 10))
    np.testing.assert_allclose(model.reconstruct(images), model.decode(style, probabilities), atol=1e-5)
    assert model.generate(5).shape == (5, 8, 8, 1)
    codes, drawn = model.sample_prior(5, label=3, seed=7)
    assert set(drawn) == {3}
    np.testing.assert_array_equal(model.generate(5, label=3, seed=7), model.decode(codes, [3] * 5))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 10], "from 0 to 9, got 10"),
        ([-1, 0], "from 0 to 9, got -1"),
        ([0, 1, 2], r"2 integer labels or labels of shape \(2, 10\), got int64 labels of shape \(3,\)"),
        (np.zeros((2, 9)), r"of shape \(2, 9\)"),
        ([0.0, 1.0], "got float64"),
    ],
)
def test_labels_that_cannot_be_decoded(make_model, labels, message):
    model = make_model(model="semi_supervised")
    with pytest.raises(ValueError, match=message):
        model.decode(np.zeros((2, 2)), labels)


def test_unsupervised_model_sees_no_labels(make_model, batch):
    model = make_model(model="unsupervised")
    twin = make_model(model="unsupervised")
    model.train_step(batch)
    twin.train_step((batch[0], batch[1][::-1]))
    for a, b in zip(model.variables, twin.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(ValueError, match="has no labels"):
        model.generate(3, label=1)


def test_sharing_the_encoder_pass_changes_nothing(make_model, batch):
    """One step equals the three phases written out one after the other, each with its own passes."""
    model, reference = (make_model(keep_prob=1.0, noise_std=0.0, seed=3) for _ in range(2))
    seeds = model._step_seeds(16)
    model.train_step(batch)

    images, labels = tf.cast(batch[0], tf.float32) / 255, batch[1]
    encoder, decoder, discriminator = reference.encoder, reference.decoder, reference.discriminator
    real = reference.real_samples(labels, seeds[5])[0]

    def phase(loss_function, optimizer, variables):
        with tf.GradientTape() as tape:
            loss = loss_function()
        optimizer.apply(tape.gradient(loss, variables), variables)
        return float(loss)

    def fake():
        return reference.fake_samples(encoder(images), labels, seeds[4])[0]

    expected = [
        phase(
            lambda: mean_squared_error(images, decoder(encoder(images))),
            reference.ae_optimizer,
            encoder.trainable_variables + decoder.trainable_variables,
        ),
        phase(
            lambda: discriminator_loss(discriminator(real), discriminator(fake())),
            reference.d_optimizer,
            discriminator.trainable_variables,
        ),
        phase(
            lambda: generator_loss(discriminator(fake())),
            reference.g_optimizer,
            encoder.trainable_variables,
        ),
    ]
    logged = model.get_metrics_result()
    found = [float(logged[name]) for name in ("reconstruction_loss", "d_loss", "g_loss")]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for ours, theirs in zip(model.trainable_variables, reference.trainable_variables, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_draws_differ_between_steps(make_model):
    model = make_model()
    seeds = []
    for _ in range(3):
        seeds += [tuple(np.array(seed)) for seed in model._step_seeds(16)]
        model.step.assign_add(1)
    assert len(set(seeds)) == 48


def test_overfits_one_batch(make_model, batch):
    model = make_model(n_z=8, prior="gaussian", n_hidden=128, keep_prob=1.0, noise_std=0.0)
    step = tf.function(lambda: model.train_step(batch))
    first = None
    for _ in range(600):
        model.reset_metrics()
        step()
        first = first or float(model.train_trackers[0].result())
    # The images are noise: nothing but memory reconstructs them.
    assert float(model.train_trackers[0].result()) < 0.25 * first


@pytest.mark.parametrize("amsgrad", [False, True])
def test_fused_adam_equals_stock_adam(amsgrad):
    rng = np.random.default_rng(0)
    initial = rng.normal(size=(30, 20)).astype(np.float32)
    variables = [keras.Variable(initial) for _ in range(2)]
    optimizers = [cls(1e-2, epsilon=1e-8, amsgrad=amsgrad) for cls in (FusedAdam, keras.optimizers.Adam)]
    for _ in range(100):
        gradient = tf.constant(rng.normal(size=initial.shape).astype(np.float32))
        for optimizer, variable in zip(optimizers, variables, strict=True):
            optimizer.apply([gradient], [variable])
    np.testing.assert_allclose(variables[0], variables[1], atol=1e-5)
    for ours, theirs in zip(optimizers[0].variables, optimizers[1].variables, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_fused_sgd_equals_stock_sgd(momentum, nesterov):
    rng = np.random.default_rng(0)
    initial = rng.normal(size=(30, 20)).astype(np.float32)
    variables = [keras.Variable(initial) for _ in range(2)]
    optimizers = [cls(0.1, momentum, nesterov) for cls in (FusedSGD, keras.optimizers.SGD)]
    for step in range(100):
        gradient = tf.constant(rng.normal(size=initial.shape).astype(np.float32))
        for optimizer, variable in zip(optimizers, variables, strict=True):
            optimizer.learning_rate = 0.1 if step < 50 else 0.01
            optimizer.apply([gradient], [variable])
    np.testing.assert_allclose(variables[0], variables[1], atol=1e-4)
    for ours, theirs in zip(optimizers[0].variables, optimizers[1].variables, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_bfloat16_leaves_weights_outputs_and_losses_in_float32(make_model, labelled_batch):
    model = make_model(model="semi_supervised", precision="bfloat16", n_hidden=64)
    assert model.encoder.hidden_1.compute_dtype == "bfloat16"
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    images = tf.cast(labelled_batch[0], tf.float32) / 255
    codes = model.encoder(images)
    assert codes.dtype == model.decoder(codes).dtype == tf.float32
    # The same weights give nearly the same outputs as in float32.
    exact = make_model(model="semi_supervised", n_hidden=64)
    np.testing.assert_allclose(codes, exact.encoder(images), atol=0.03)
    assert not np.array_equal(codes, exact.encoder(images))
    for _ in range(20):
        model.train_step(labelled_batch)
        exact.train_step(labelled_batch)
    figures, expected = model.get_metrics_result(), exact.get_metrics_result()
    assert float(figures["reconstruction_loss"]) == pytest.approx(
        float(expected["reconstruction_loss"]), rel=0.02
    )


@pytest.fixture
def fit_small(make_model, batch):
    """Trains a small model for two epochs and returns its weights and its history."""

    def fit(**kwargs):
        model = make_model(model="semi_supervised")
        # A large epsilon: Adam turns rounding errors of tiny gradients into whole steps.
        optimizers = {f"{phase}_optimizer": FusedAdam(1e-2, epsilon=1e-3) for phase in model.phases}
        model.compile(**optimizers, **kwargs)
        model.hold(*batch)
        batches = training_batches(40, 8, 0, labelled=range(0, 40, 3))
        history = model.fit(batches, steps_per_epoch=6, epochs=2, verbose=0, shuffle=False).history
        return values(model.trainable_variables), history

    return fit


def test_several_steps_per_call_change_nothing(fit_small):
    (weights, history), (others, other_history) = fit_small(), fit_small(steps_per_execution=3)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for name, per_epoch in history.items():
        np.testing.assert_allclose(other_history[name], per_epoch, rtol=1e-4, err_msg=name)


def test_xla_trains_alike(fit_small):
    """XLA turns the same bits into other normal numbers, so the runs are alike and not equal."""
    history, other_history = fit_small()[1], fit_small(jit_compile=True)[1]
    for name in ("reconstruction_loss", "d_z_loss", "d_y_loss", "g_loss", "label_loss"):
        np.testing.assert_allclose(other_history[name], history[name], rtol=0.1, err_msg=name)


def test_config_knows_which_decoders_see_labels(make_model):
    """It must refuse --PARR before TensorFlow, and with it the classes, are imported."""
    assert {name for name in MODELS if make_model(model=name).decodes_labels} == LABELLED_DECODERS


def test_optimizers_of_unknown_phases_are_refused(make_model):
    with pytest.raises(TypeError, match="ce_optimizer"):
        make_model().compile(ce_optimizer=FusedAdam())


@pytest.mark.parametrize("name", MODELS)
def test_keras_file_brings_back_weights_optimizers_and_step(make_model, labelled_batch, tmp_path, name):
    model, batch = make_model(model=name), labelled_batch
    model.ae_optimizer.learning_rate = 3e-3
    for _ in range(3):
        model.train_step(batch)
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path)
    assert int(loaded.step) == 3
    for phase in model.phases:
        ours, theirs = (getattr(m, f"{phase}_optimizer").variables for m in (model, loaded))
        assert len(ours) > 4  # more than iterations and learning rate: moments too
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)
    # The next step is the same one.
    model.train_step(batch)
    loaded.train_step(batch)
    for a, b in zip(model.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(a, b)


def test_numpy_in_numpy_out(make_model, batch):
    model = make_model()
    images = batch[0]
    codes = model.encode(images)
    assert type(codes) is np.ndarray
    assert codes.shape == (40, 2)
    np.testing.assert_allclose(codes, model.encode(images / 255.0), rtol=1e-4, atol=1e-5)
    reconstructions = model.reconstruct(images)
    assert reconstructions.shape == images.shape
    assert reconstructions.dtype == np.float32
    assert reconstructions.min() >= 0
    assert reconstructions.max() <= 1
    np.testing.assert_array_equal(reconstructions, model.decode(codes))
    assert model.encode(images[:0]).shape == (0, 2)


def test_large_inputs_are_processed_in_batches(make_model, monkeypatch, batch):
    model = make_model()
    whole = model.encode(batch[0])
    monkeypatch.setattr("models.adversarial_autoencoder.INFERENCE_BATCH", 7)
    np.testing.assert_allclose(model.encode(batch[0]), whole, rtol=1e-4, atol=1e-6)


def test_generate_draws_anew_reproducibly_and_by_label(make_model):
    model, twin = make_model(), make_model()
    first, second = model.generate(5), model.generate(5)
    assert first.shape == (5, 8, 8, 1)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first, twin.generate(5))
    np.testing.assert_array_equal(model.generate(5, seed=7), model.generate(5, seed=7))
    codes, labels = model.sample_prior(100, label=4)
    assert set(labels) == {4}
    assert np.mean(model.prior.classify(codes) == 4) > 0.9


@pytest.mark.parametrize(
    ("method", "argument", "message"),
    [
        ("encode", np.zeros((3, 28, 28, 1)), r"\(N, 8, 8, 1\), got \(3, 28, 28, 1\)"),
        ("encode", np.zeros((8, 8, 1)), r"\(N, 8, 8, 1\), got \(8, 8, 1\)"),
        ("encode", np.zeros((3, 8, 8, 1), np.int64), "uint8 or float32, got int64"),
        ("decode", np.zeros((3, 5)), r"\(N, 2\), got \(3, 5\)"),
        ("decode", np.zeros(2), r"\(N, 2\), got \(2,\)"),
    ],
)
def test_wrong_shapes_are_named(make_model, method, argument, message):
    with pytest.raises(ValueError, match=message):
        getattr(make_model(), method)(argument)


def test_impossible_labels_are_refused(make_model):
    with pytest.raises(ValueError, match="from 0 to 9, got 10"):
        make_model().generate(3, label=10)
    with pytest.raises(ValueError, match="has no labels"):
        make_model("gaussian", 20).generate(3, label=1)


def test_load_model_says_where_it_looked(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.keras"):
        load_model(tmp_path)


def test_two_devices_make_the_step_of_one():
    """In a process of its own, because logical devices must be set up before TensorFlow starts."""
    script = ROOT / "tests" / "two_devices.py"
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "largest difference" in result.stdout

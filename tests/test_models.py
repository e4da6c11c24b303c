import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, trained
from scipy import stats
from scipy.ndimage import affine_transform

from data.pipeline import evaluation_batches, training_batches
from main import read_config
from models import LABELLED_DECODERS, MODELS, load_model
from models.augmentation import distorted, shifted
from models.layers import Conv2D, Conv2DTranspose, Dense, dropout, normalized, normalized_by_products
from models.losses import discriminator_loss, generator_loss, lost_information, mean_squared_error
from models.networks import ConvDecoder, ConvEncoder, DenseNetwork, LabelBranches
from models.optimizers import FusedAdam, FusedSGD
from models.supervised import SupervisedAAE
from priors import PRIORS
from training.fit import build_model, steps_per_call, uses_xla

# What `main.py` makes by default.
INDEPENDENT = {"joint_discriminator": True, "cycle": True}
CLUSTERS_OF_COPIES = {"n_clusters": 4, "consistency": True, "distortion": 0.2, "vat_radius": 1.0}
FURTHER_PHASES = {"semi_supervised": {"ce"}, "dimensionality_reduction": {"ce", "heads"}}
# Those with most phases and networks are tried in every run of the tests.
QUICK = ("semi_supervised", "conditional")
EACH_MODEL = [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in MODELS]


def values(variables):
    return [np.array(variable) for variable in variables]


def changed(before, variables):
    return [not np.array_equal(old, new) for old, new in zip(before, values(variables), strict=True)]


def test_parameter_count_of_the_seed_networks():
    model = SupervisedAAE((28, 28, 1), 10, prior="gaussian", n_z=20, n_hidden=3000)
    # 784-3000-3000-20, 20-3000-3000-784 and 30-3000-3000-1, with biases.
    assert model.encoder.count_params() == 785 * 3000 + 3001 * 3000 + 3001 * 20
    assert model.decoder.count_params() == 21 * 3000 + 3001 * 3000 + 3001 * 784
    assert model.discriminator.count_params() == 31 * 3000 + 3001 * 3000 + 3001
    # The second seed's has a width of its own.
    model = SupervisedAAE((28, 28, 1), 10, prior="gaussian", n_z=5, n_hidden=1000, d_hidden=500)
    assert model.discriminator.count_params() == 16 * 500 + 501 * 500 + 501


def test_network_is_two_relu_layers_and_an_output_layer():
    network = DenseNetwork((4, 4, 1), (3,), widths=(8, 8), output="sigmoid", seed=1)
    x = np.random.default_rng(0).normal(size=(5, 4, 4, 1)).astype(np.float32)
    w1, b1, w2, b2, w3, b3 = values(network.trainable_variables)
    hidden = np.maximum(np.maximum(x.reshape(5, 16) @ w1 + b1, 0) @ w2 + b2, 0)
    expected = 1 / (1 + np.exp(-(hidden @ w3 + b3)))
    np.testing.assert_allclose(network(x), expected, rtol=1e-4)
    assert not any(np.any(b) for b in (b1, b2, b3))
    # Glorot-uniform kernels fill +- sqrt(6 / (fan_in + fan_out)).
    bound = np.sqrt(6 / (16 + 8))
    assert 0.8 * bound < np.abs(w1).max() <= bound


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("mixed_bfloat16", 2e-2)])
@pytest.mark.parametrize(("n_in", "n_out"), [(60, 50), (12, 1)])
@pytest.mark.parametrize("graph", [False, True])
def test_dense_layer_has_the_gradients_of_the_stock_one(dtype, tolerance, n_in, n_out, graph):
    assert_layers_agree(Dense(n_out, dtype=dtype), keras.layers.Dense(n_out), (n_in,), tolerance, graph)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("mixed_bfloat16", 0.1)])
@pytest.mark.parametrize(
    ("kind", "stock", "side", "in_shape"),
    [
        (Conv2D, keras.layers.Conv2D, (7, 6), (7, 6, 8)),
        (Conv2D, keras.layers.Conv2D, (3, 3), (7, 6, 8)),
        (Conv2DTranspose, keras.layers.Conv2DTranspose, (7, 6), (1, 1, 9)),
        (Conv2DTranspose, keras.layers.Conv2DTranspose, (3, 3), (2, 1, 9)),
    ],
)
def test_convolutions_by_products_are_the_stock_ones(kind, stock, side, in_shape, dtype, tolerance):
    """Whether the kernel covers all of its input, or its input is one pixel, or not."""
    assert_layers_agree(kind(5, side, dtype=dtype), stock(5, side), in_shape, tolerance, graph=True)


def assert_layers_agree(ours, stock, in_shape, tolerance, graph):
    """Outputs and all gradients, to a share of the largest; `stock` computes in float32."""
    random = np.random.default_rng(0)

    def draw(*shape):
        return random.normal(size=shape).astype(np.float32)

    for layer in (ours, stock):
        layer.build((None, *in_shape))
    x, towards = draw(20, *in_shape), draw(20, *stock.compute_output_shape((20, *in_shape))[1:])
    weights = [draw(*variable.shape) for variable in stock.trainable_variables]

    def results(layer):
        layer.set_weights(weights)

        def outputs_and_gradients(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                outputs = tf.cast(layer(x), tf.float32)
                loss = tf.reduce_sum(outputs * towards)
            return outputs, *tape.gradient(loss, [x, *layer.trainable_variables])

        if graph:
            # With a batch whose size is not known when the function is traced.
            signature = [tf.TensorSpec([None, *in_shape], tf.float32)]
            outputs_and_gradients = tf.function(outputs_and_gradients, input_signature=signature)
        return outputs_and_gradients(tf.constant(x))

    for own, expected in zip(results(ours), results(stock), strict=True):
        assert own.dtype == expected.dtype
        assert own.shape == expected.shape
        np.testing.assert_allclose(own, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_variables_have_the_same_names_in_every_model(make_model):
    """Those of the networks and the optimizers: a model's own few are counted by Keras."""

    def names():
        model = make_model(model="conditional", network="conv", conv_widths="4,8", batch_norm=True)
        optimizers = [getattr(model, f"{phase}_optimizer") for phase in model.phases]
        owners = (model.encoder, model.decoder, model.discriminator, *optimizers)
        return [variable.path for owner in owners for variable in owner.variables]

    assert names() == names()


def test_batch_norm_and_leaky_relu_come_between_the_layers():
    network = DenseNetwork((3,), (2,), (4, 5), activation="leaky_relu", batch_norm=True, seed=1)
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    w1, b1, w2, b2, w3, b3, *scales = values(network.trainable_variables)
    assert [v.tolist() for v in scales] == [[1.0] * 4, [0.0] * 4, [1.0] * 5, [0.0] * 5]

    def forward(normalise):
        hidden = x
        for index, (w, b) in enumerate([(w1, b1), (w2, b2)]):
            hidden = normalise(index, hidden @ w + b)
            hidden = np.where(hidden > 0, hidden, 0.2 * hidden)
        return hidden @ w3 + b3

    averages = [(np.zeros(4), np.ones(4)), (np.zeros(5), np.ones(5))]

    def of_batch(index, h):
        mean, variance = averages[index]
        averages[index] = (0.9 * mean + 0.1 * h.mean(axis=0), 0.9 * variance + 0.1 * h.var(axis=0))
        return (h - h.mean(axis=0)) / np.sqrt(h.var(axis=0) + 1e-5)

    def of_averages(index, h):
        mean, variance = averages[index]
        return (h - mean) / np.sqrt(variance + 1e-5)

    np.testing.assert_allclose(network(x, seed=[1, 2]), forward(of_batch), atol=1e-5)
    # Outside training the running averages count, whatever the batch.
    np.testing.assert_allclose(network(x), forward(of_averages), atol=1e-5)
    np.testing.assert_allclose(network(x[:1]), forward(of_averages)[:1], atol=1e-5)


def test_the_label_picks_one_of_the_outputs_of_d():
    network = LabelBranches((2 + 3,), (3,), (4, 5), keep_prob=0.5, seed=1)
    codes = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    labels = np.array([2, 0, 1, 1, 0, 2])
    w1, b1, w2, b2, w3, b3 = values(network.trainable_variables)
    judged = np.concatenate([codes, np.eye(3, dtype=np.float32)[labels]], axis=1)
    outputs = np.maximum(np.maximum(codes @ w1 + b1, 0) @ w2 + b2, 0) @ w3 + b3
    logits = network(judged)
    np.testing.assert_allclose(logits, outputs[np.arange(6), labels][:, None], rtol=1e-5)
    # Keras casts labels, too, to the lower precision.
    half = LabelBranches((2 + 3,), (3,), (4, 5), seed=1, dtype="mixed_bfloat16")
    rounded = half(judged)
    assert rounded.dtype == tf.float32
    np.testing.assert_allclose(rounded, logits, atol=0.02)
    # In training there is dropout, as in every network.
    dropped = network(judged, seed=[1, 2])
    assert not np.allclose(dropped, logits)


@pytest.mark.parametrize(
    ("options", "n_outputs"),
    [
        ({"model": "supervised", "d_label": "output"}, 10),
        ({"model": "supervised", "d_label": "output", "unlabelled": True}, 11),
        ({"model": "conditional", "d_label": "output"}, 10),
        ({"model": "conditional", "d_label": "output", "attributes": True}, 0),
        ({"model": "semi_supervised", "d_label": "output", **INDEPENDENT}, 0),
        ({"model": "unsupervised", "d_label": "output"}, 0),
        ({"model": "supervised"}, 0),
    ],
)
def test_where_d_takes_the_label(make_model, options, n_outputs):
    """One-hot labels of images pick an output; attributes and soft labels are input."""
    d = make_model("gaussian", 3, **options).discriminator
    assert isinstance(d, LabelBranches) == bool(n_outputs)
    assert d.out_shape == (n_outputs or 1,)


def test_tanh_networks_see_and_make_pixels_from_minus_1_to_1():
    x = np.random.default_rng(0).uniform(size=(5, 4)).astype(np.float32)
    plain, signed = (DenseNetwork((4,), (2,), (8,), signed_input=s, seed=1) for s in (False, True))
    np.testing.assert_allclose(signed(x), plain(2 * x - 1), atol=1e-6)
    logits, pixels = (DenseNetwork((4,), (2,), (8,), output=o, seed=1) for o in (None, "tanh"))
    np.testing.assert_allclose(pixels(x), (np.tanh(logits(x)) + 1) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "widths", "n_z", "encoder", "decoder"),
    [
        # kernel x kernel x in x out, as the second seed lists them.
        (
            (28, 28, 1),
            (16, 32, 64),
            5,
            [(3, 3, 1, 16), (4, 4, 16, 32), (4, 4, 32, 64), (7, 7, 64, 5)],
            [(7, 7, 64, 5), (4, 4, 32, 64), (4, 4, 16, 32), (3, 3, 16, 1)],
        ),
        (
            (32, 32, 3),
            (64, 128, 256, 512),
            50,
            [(3, 3, 3, 64), (4, 4, 64, 128), (4, 4, 128, 256), (4, 4, 256, 512), (4, 4, 512, 50)],
            [(4, 4, 512, 50), (4, 4, 256, 512), (4, 4, 128, 256), (4, 4, 64, 128), (3, 3, 64, 3)],
        ),
    ],
)
def test_convolutional_networks_of_the_second_seed(shape, widths, n_z, encoder, decoder):
    networks = ConvEncoder(shape, (n_z,), widths), ConvDecoder((n_z,), shape, widths, output="sigmoid")
    for network, expected in zip(networks, (encoder, decoder), strict=True):
        assert [tuple(v.shape) for v in network.trainable_variables[::2]] == expected
    images = np.random.default_rng(0).uniform(size=(2, *shape)).astype(np.float32)
    codes = networks[0](images)
    assert codes.shape == (2, n_z)
    assert networks[1](codes).shape == images.shape


def test_convolutional_encoder_against_its_formula():
    """A stride of 2 with a kernel of 4 sees one pixel beyond the image on each side."""
    network = ConvEncoder((4, 4, 1), (3,), (2, 3), seed=5)
    x = np.random.default_rng(0).normal(size=(1, 4, 4, 1)).astype(np.float32)
    w1, _, w2, _, w3, _ = values(network.trainable_variables)

    def convolve(images, kernel, stride, padding):
        size = kernel.shape[0]
        padded = np.pad(images, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
        side = (padded.shape[1] - size) // stride + 1
        out = np.empty((1, side, side, kernel.shape[3]))
        for i, j in np.ndindex(side, side):
            patch = padded[0, i * stride : i * stride + size, j * stride : j * stride + size]
            out[0, i, j] = np.tensordot(patch, kernel, 3)
        return out

    hidden = np.maximum(convolve(x, w1, 1, 1), 0)
    hidden = np.maximum(convolve(hidden, w2, 2, 1), 0)
    np.testing.assert_allclose(network(x), convolve(hidden, w3, 1, 0).reshape(1, 3), atol=1e-5)


def test_dropout_keeps_its_share_and_depends_on_the_seed():
    network = DenseNetwork((4,), (1,), (4000, 4000), keep_prob=0.9)
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


@pytest.mark.parametrize("keep_prob", [0.9, 0.5, 0.999])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_dropout_meets_its_probability(keep_prob, dtype):
    """Also between two multiples of 1 / 256, which is as fine as one byte a unit is."""
    seeds = np.stack([np.arange(200), np.full(200, 7)], axis=1)
    ones = tf.ones([8, 1001], dtype)

    @tf.function
    def share_kept(seed):
        return tf.reduce_mean(tf.cast(dropout(ones, keep_prob, seed) != 0, tf.float32))

    kept = np.array([share_kept(seed) for seed in tf.constant(seeds)])
    # The spread is that of the units, and of which of the two multiples a call has.
    spread = np.sqrt(keep_prob * (1 - keep_prob) / ones.shape.num_elements() + 1 / 512**2)
    assert kept.mean() == pytest.approx(keep_prob, abs=4 * spread / np.sqrt(200))
    scaled = np.float32(tf.cast(1 / keep_prob, dtype))
    # A call with 0.999 may keep all.
    assert set(np.unique(dropout(ones, keep_prob, seeds[0]))) in ({0, scaled}, {scaled})


@pytest.mark.parametrize("prior", sorted(set(PRIORS) - {"truncated_gaussian"}))
def test_discriminator_sees_code_and_label(make_model, batch, prior):
    model = make_model(prior)
    labels = batch[1]
    real = model.real_samples(labels, [1, 2])[0].numpy()
    assert real.shape == (40, 12)
    # In two dimensions these priors tie the code to the label drawn with it.
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


@pytest.mark.parametrize("balance", [False, True])
def test_d_learns_from_its_slope_too_and_nobody_else_does(make_model, batch, monkeypatch, balance):
    """What D's optimizer gets beyond what it gets without is the gradient of the penalty, by one tape."""

    def step(d_penalty):
        """The model, what its step takes for real codes, and the gradients that each optimizer gets."""
        model = make_model("gaussian", 3, model="conditional", d_penalty=d_penalty, balance=balance)
        reals, given = model.real_samples(batch[1], [1, 2]), {}
        monkeypatch.setattr(model, "real_samples", lambda *_: reals)
        for phase in model.phases:
            optimizer, take = getattr(model, f"{phase}_optimizer"), given.__setitem__
            monkeypatch.setattr(optimizer, "apply", lambda gradients, _, p=phase, t=take: t(p, gradients))
            monkeypatch.setattr(
                optimizer, "apply_if", lambda _, gradients, __, p=phase, t=take: t(p, gradients)
            )
        model.train_step(batch)
        return model, reals[0], given

    (model, real, with_penalty), (*_, without) = step(3.0), step(0.0)
    with tf.GradientTape() as tape:
        with tf.GradientTape() as inner:
            inner.watch(real)
            logits = model.discriminator(real)
        penalty = 1.5 * tf.reduce_mean(tf.reduce_sum(inner.gradient(logits, real)[:, :3] ** 2, axis=1))
    expected = tape.gradient(penalty, model.phases["d"])
    for variable, one, other, more in zip(
        model.phases["d"], with_penalty["d"], without["d"], expected, strict=True
    ):
        np.testing.assert_allclose(one - other, np.zeros(variable.shape) if more is None else more, atol=1e-5)
        # No bias has a part in the slope of a network that is linear in pieces.
        assert np.any(one - other) == (len(variable.shape) == 2)
    for phase in ("ae", "g"):
        for one, other in zip(with_penalty[phase], without[phase], strict=True):
            np.testing.assert_array_equal(one, other)


def test_label_of_a_label_free_prior_has_the_marginal_of_the_data(make_model):
    model = make_model("gaussian", 20)
    real = model.real_samples(np.array([3, 3, 7], np.uint8), [1, 2])[0].numpy()
    np.testing.assert_array_equal(real[:, 20:], np.eye(10)[[3, 3, 7]])


@pytest.mark.parametrize(
    ("name", "options", "further"),
    [
        *((name, {}, FURTHER_PHASES.get(name, set())) for name in MODELS),
        ("supervised", {"consistency": True, "vat_radius": 1.0, "consistency_ramp": 1}, set()),
        ("semi_supervised", INDEPENDENT, {"ce", "cycle"}),
        ("semi_supervised", {"consistency": True, "vat_radius": 1.0}, {"ce", "consistency"}),
        ("clustering", CLUSTERS_OF_COPIES, {"consistency"}),
        ("clustering", INDEPENDENT, {"cycle"}),
        ("clustering", {**CLUSTERS_OF_COPIES, "cycle": True}, {"cycle", "consistency"}),
        ("dimensionality_reduction", INDEPENDENT, {"ce", "cycle", "heads"}),
    ],
)
def test_each_phase_trains_its_own_variables_only(make_model, labelled_batch, name, options, further):
    """Zeroing the other optimizers' rates shows what each of them changes in a whole step."""
    trained = {
        "ae": {"encoder", "decoder"},
        "d": set(make_model(model=name, **options).discriminator_shapes),
        "g": {"encoder"},
        "ce": {"encoder"},
        "cycle": {"decoder"},
        "consistency": {"encoder"},
        "heads": set(),
    }
    model = make_model(model=name, **options)
    assert set(model.phases) == {"ae", "d", "g"} | further
    if name == "clustering" and not model.settings.consistency:
        trained["cycle"] |= {"encoder"}
    parts = ["encoder", "decoder", *model.discriminator_shapes]
    for active in model.phases:
        for phase in model.phases:
            getattr(model, f"{phase}_optimizer").learning_rate = 1e-2 if phase == active else 0.0
        before = [values(getattr(model, part).trainable_variables) for part in parts]
        model.train_step(labelled_batch)
        for part, old in zip(parts, before, strict=True):
            kernels = changed(old, getattr(model, part).trainable_variables)[::2]
            assert kernels == [part in trained[active]] * 3, (active, part)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("conditional", {"network": "conv", "conv_widths": "4,8", "batch_norm": True}),
        ("supervised", {"consistency": True, "distortion": 0.2, "vat_radius": 1.0, "batch_norm": True}),
        ("semi_supervised", INDEPENDENT | {"consistency": True, "distortion": 0.2, "vat_radius": 1.0}),
        ("clustering", INDEPENDENT | CLUSTERS_OF_COPIES | {"batch_norm": True}),
        ("dimensionality_reduction", INDEPENDENT),
    ],
)
def test_no_sum_depends_on_which_gradient_is_there_first(make_model, labelled_batch, name, options):
    """TensorFlow adds more than two into one that nobody else needs any more: a race for the last bit."""
    model = make_model(model=name, **options)
    batch = [tf.constant(part) for part in labelled_batch]
    step = tf.function(lambda: model.train_step(batch), autograph=False)
    sums = [op for op in step.get_concrete_function().graph.get_operations() if op.type == "AddN"]
    assert sums
    # The sum of all losses only tells whether one of them is not finite.
    assert [op.name for op in sums if len(op.inputs) > 2 and op.outputs[0].shape.rank != 0] == []


def test_one_label_head_serves_cross_entropy_decoder_and_d_y(make_model, labelled_batch):
    """In the first seed the cross entropy trained a head that neither the decoder nor D_y saw."""
    model = make_model(model="semi_supervised", keep_prob=1.0, noise_std=0.0)
    codes = tf.constant(np.random.default_rng(0).normal(size=(6, 12)).astype(np.float32))
    probabilities = tf.nn.softmax(codes[:, 2:]).numpy()
    seen = model.decoder_input(codes, None).numpy()
    np.testing.assert_array_equal(seen[:, :2], codes[:, :2])
    np.testing.assert_allclose(seen[:, 2:], probabilities)
    style, labels = model.fake_samples(codes, None, [1, 2])
    np.testing.assert_array_equal(style, codes[:, :2])
    np.testing.assert_allclose(labels, probabilities)
    # The cross entropy alone must change the labels that the decoder sees, towards the right ones.
    for phase in model.phases:
        getattr(model, f"{phase}_optimizer").learning_rate = 1e-2 if phase == "ce" else 0.0
    images, labels = labelled_batch[2:]
    step = tf.function(lambda: model.train_step(labelled_batch), autograph=False)
    for _ in range(30):
        step()
    assert np.mean(model.classify(images).argmax(axis=1) == labels) == 1
    assert not np.array_equal(labels, np.zeros_like(labels))


def test_a_joint_discriminator_sees_style_and_label_side_by_side(make_model):
    joint, separate = (
        make_model("gaussian", 3, model="semi_supervised", joint_discriminator=j) for j in (True, False)
    )
    assert joint.discriminator_shapes == {"discriminator": (13,)}
    codes = tf.constant(np.random.default_rng(0).normal(size=(6, 13)).astype(np.float32))
    for of_both, *parts in (
        (*joint.real_samples(np.zeros(6), [1, 2]), *separate.real_samples(np.zeros(6), [1, 2])),
        (*joint.fake_samples(codes, None, [1, 2]), *separate.fake_samples(codes, None, [1, 2])),
    ):
        np.testing.assert_array_equal(of_both, np.concatenate(parts, axis=1))


def test_the_cycle_alone_makes_the_decoder_obey(make_model, labelled_batch):
    """What the encoder reads in decoded images comes to be the label, whatever the style."""
    model = make_model("gaussian", 2, model="semi_supervised", keep_prob=1.0, noise_std=0.1, **INDEPENDENT)
    for phase in model.phases:
        getattr(model, f"{phase}_optimizer").learning_rate = 1e-2 if phase == "ce" else 0.0

    def obeyed():
        decoded = model.generate(200, seed=1)
        return np.mean(model.classify(decoded).argmax(axis=1) == model.sample_prior(200, seed=1)[1])

    step = tf.function(model.train_step, autograph=False)
    for _ in range(30):  # the encoder learns to read
        step(labelled_batch)
    before = obeyed()
    model.ce_optimizer.learning_rate, model.cycle_optimizer.learning_rate = 0.0, 1e-2
    for _ in range(60):
        step(labelled_batch)
    assert before < 0.5
    assert obeyed() > 0.95
    assert float(model.get_metrics_result()["cycle_loss"]) > 0


def test_the_cycle_takes_a_batch_of_one(make_model, batch):
    model = make_model("gaussian", 2, model="semi_supervised", **INDEPENDENT)
    images, labels = batch[0][:1], batch[1][:1]
    model.train_step((images, labels, images, labels))
    assert np.isfinite(float(model.get_metrics_result()["cycle_loss"]))


def lost(model, images):
    """What the consistency adds to the cross entropy, of images as they are."""
    return float(lost_information(model.encoder(tf.cast(images, tf.float32) / 255)[:, model.n_z :]))


def test_consistency_brings_a_copy_to_what_is_read_in_the_image(make_model, batch):
    model = make_model("gaussian", 2, model="semi_supervised", consistency=True, keep_prob=1.0, shift=1)
    images = batch[0]
    _, copies = model.clean_and_noised(images, [1, 2])
    logits = model.encoder(copies).numpy()[:, 2:].astype(np.float64)
    read = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -np.mean(np.sum(model.classify(images) * read, axis=1)) + lost(model, images)
    model.consistency_optimizer.learning_rate = 1e-2
    loss = model._consistency_phase(images, [1, 2], [3, 4])["consistency_loss"]
    assert float(loss) == pytest.approx(expected, rel=1e-5)

    def distance():
        return np.abs(model.classify(images) - model.probabilities(copies)).mean()

    before = distance()
    for _ in range(20):
        model._consistency_phase(images, [1, 2], [3, 4])
    assert distance() < 0.5 * before


def misread(model, target, seed):
    """The cross entropy of a target (B, K) and of what the encoder reads in copies, a function of these."""

    def loss(copies):
        logits = model.encoder(copies, seed=seed)[:, model.n_z :]
        return -tf.reduce_mean(tf.reduce_sum(target * tf.nn.log_softmax(logits), axis=1))

    return loss


def test_vat_pushes_each_copy_to_where_its_target_is_read_least(make_model, batch):
    model = make_model(
        "gaussian", 2, model="semi_supervised", consistency=True, vat_radius=0.5, keep_prob=1.0
    )
    copies = model.copies(batch[0][:6], [1, 2])
    target = np.eye(10, dtype=np.float32)[batch[1][:6]]

    def cost(images):
        logits = model.encoder(images).numpy()[:, 2:].astype(np.float64)
        return -np.sum(target * (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))), axis=1)

    pushed = model.pushed(copies, misread(model, target, [3, 4]))
    way = (pushed - copies).numpy()
    assert np.sqrt(np.sum(way**2, axis=(1, 2, 3))) == pytest.approx([0.5] * 6, rel=1e-4)
    # A small step that way costs more than one any other way: no random one comes near.
    rose = cost(copies + way / 50) - cost(copies)
    others = np.random.default_rng(0).normal(size=(30, *way.shape))
    others *= 0.5 / np.sqrt(np.sum(others**2, axis=(2, 3, 4), keepdims=True))
    assert np.all(rose > [cost(copies + other.astype(np.float32) / 50) - cost(copies) for other in others])
    # The way that is steepest for the loss is so for its numerical derivative, too: rise per length.
    steps = np.zeros((copies.shape[1] * copies.shape[2], *way.shape), np.float32)
    steps.reshape(len(steps), len(copies), -1)[range(len(steps)), :, range(len(steps))] = 1e-2
    numeric = np.stack([cost(copies + step) - cost(copies - step) for step in steps], axis=1)
    numeric /= np.sqrt(np.sum(numeric**2, axis=1, keepdims=True))
    np.testing.assert_allclose(way.reshape(6, -1) / 0.5, numeric, atol=5e-3)


def test_the_push_grows_over_the_first_steps(make_model, batch):
    model = make_model("gaussian", 2, model="semi_supervised", consistency=True, vat_radius=0.5, vat_ramp=100)
    copies = model.copies(batch[0], [1, 2])
    for step, length in ((0, 0), (30, 0.15), (100, 0.5), (300, 0.5)):
        model.step.assign(step)
        way = model.pushed(copies, misread(model, model.classify(batch[0]), [3, 4])) - copies
        np.testing.assert_allclose(np.sqrt(np.sum(way**2, axis=(1, 2, 3))), length, rtol=1e-3)


def test_the_consistency_learns_from_the_pushed_copies(make_model, batch):
    options = {"model": "semi_supervised", "consistency": True, "keep_prob": 1.0}
    plain, model = (make_model("gaussian", 2, vat_radius=radius, **options) for radius in (0.0, 2.0))
    target = model.classify(batch[0])
    pushed = model.pushed(model.copies(batch[0], [1, 2]), misread(model, target, [3, 4]))
    expected = tf.keras.losses.categorical_crossentropy(target, model.probabilities(pushed)).numpy().mean()
    expected += lost(model, batch[0])
    loss, without = (
        float(m._consistency_phase(batch[0], [1, 2], [3, 4])["consistency_loss"]) for m in (model, plain)
    )
    assert loss == pytest.approx(expected, rel=1e-5)
    assert loss > 1.01 * without


@pytest.mark.parametrize("name", ["semi_supervised", "clustering"])
def test_the_consistency_learns_neither_its_target_nor_its_push(make_model, batch, name):
    options = CLUSTERS_OF_COPIES | {"n_clusters": 4 * (name == "clustering")}
    model = make_model("gaussian", 2, model=name, keep_prob=1.0, batch_norm=True, **options)
    images, seed = tf.cast(batch[0], tf.float32) / 255, [3, 4]

    def read(of):
        return model.encoder(of, seed=seed)[:, 2:]

    # The image is read as in training, by its batch's norm.
    of_copies = misread(model, tf.nn.softmax(read(images)), seed)
    pushed = model.pushed(model.copies(batch[0], [1, 2]), of_copies)
    with tf.GradientTape() as tape:
        loss = of_copies(pushed) + lost_information(read(images))
    variables = model.encoder.trainable_variables
    expected = tape.gradient(loss, variables)
    found = []
    model.update = lambda phase, tape, loss: found.append((phase, loss, tape.gradient(loss, variables)))
    model._consistency_phase(batch[0], [1, 2], seed)
    [(phase, found_loss, gradients)] = found
    assert phase == "consistency"
    assert float(found_loss) == pytest.approx(float(loss), rel=1e-5)
    for found, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


OF_CODES = {"consistency": True, "distortion": 0.2, "vat_radius": 0.5, "consistency_ramp": 200}


def test_a_supervised_copy_learns_to_stay_near_its_image(make_model, batch):
    """Half of the images, rounded up: pushed away from a code that does not move."""
    model = make_model("swiss_roll", 2, keep_prob=0.5, **OF_CODES)
    images, (copies_seed, dropout_seed) = batch[0][:25], ([1, 2], [3, 4])
    half, targets = images[:13], model.encode(images[:13])

    def apart(copies):
        codes = model.encoder(copies, seed=dropout_seed)
        squared = tf.reduce_sum((codes - targets) ** 2, axis=1)
        return tf.reduce_mean(1 - 0.18 / (0.18 + squared))

    copies = model.copies(half, copies_seed)
    pushed = model.pushed(copies, apart)
    assert apart(pushed) > apart(copies)
    variables = model.encoder.trainable_variables
    with tf.GradientTape() as tape:
        loss = apart(pushed)
    expected = tape.gradient(loss, variables)
    for step, weight in ((0, math.exp(-5)), (100, math.exp(-1.25)), (200, 1), (900, 1)):
        model.step.assign(step)
        with tf.GradientTape() as tape:
            found = model.further_g_losses(images, iter([copies_seed, dropout_seed]))["consistency_loss"]
        assert float(found) == pytest.approx(weight * float(loss), rel=1e-4)
        for gradient, of_loss in zip(tape.gradient(found, variables), expected, strict=True):
            np.testing.assert_allclose(gradient, weight * of_loss, atol=1e-5)


def test_g_learns_the_consistency_beside_its_own_loss(make_model, batch):
    model = make_model("swiss_roll", 2, **OF_CODES)
    losses, update = {}, model.update

    def recorded(phase, tape, loss, *others):
        losses[phase] = float(loss)
        update(phase, tape, loss, *others)

    model.update, model.step_seeds = recorded, lambda *_: tf.unstack(tf.random.split([5, 6], 16))
    model.step.assign(200)
    model.train_step(batch)
    logged = {name: float(value) for name, value in model.get_metrics_result().items()}
    assert logged["consistency_loss"] > 0.01
    assert losses["g"] == pytest.approx(logged["g_loss"] + logged["consistency_loss"], rel=1e-5)


@pytest.mark.parametrize("name", ["semi_supervised", "clustering", "dimensionality_reduction"])
@pytest.mark.parametrize("consistency", [True, False])
def test_the_reconstruction_leaves_labels_to_the_copies(make_model, batch, name, consistency):
    n_clusters = 0 if name == "semi_supervised" else 4
    model = make_model("gaussian", 2, model=name, n_clusters=n_clusters, consistency=consistency)
    size = (len(batch[0]), model.n_z + model.n_classes)
    codes = tf.constant(np.random.default_rng(0).normal(size=size), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(codes)
        decoded = model.decoder(model.decoder_input(codes, None))
        loss = model.reconstruction_loss(tf.cast(batch[0], tf.float32) / 255, decoded)
    of_style, of_label = np.split(np.abs(tape.gradient(loss, codes)), [2], axis=1)
    assert np.all(of_style.max(axis=1) > 0)
    assert np.all((of_label.max(axis=1) > 0) != consistency)


@pytest.mark.parametrize("consistency", [True, False])
def test_labels_are_drawn_as_often_as_images_chose_them(make_model, consistency):
    """Without copies nothing but D spreads the images over all clusters: there they are drawn alike often."""
    model = make_model("gaussian", 2, model="clustering", n_clusters=3, consistency=consistency)
    expected = [1 / 3] * 3
    np.testing.assert_allclose(model.prior.sample_labels(20_000, [1, 2]).numpy().mean(), 1, atol=0.02)
    if consistency:
        model.cluster_shares.assign(expected := [0.7, 0.3, 0])
    _, one_hot = model.real_samples(tf.zeros(20_000, tf.uint8), [1, 2])
    np.testing.assert_allclose(np.mean(one_hot, axis=0), expected, atol=0.015)
    drawn = model.sample_prior(20_000, seed=3)[1]
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / 20_000, expected, atol=0.015)
    assert set(model.sample_prior(9, 2, seed=3)[1]) == {2}  # who asks for an empty one gets it


def test_shares_of_clusters_follow_the_images(make_model, batch, tmp_path):
    model = make_model("gaussian", 2, model="clustering", n_clusters=3, consistency=True)
    model.encoder.stacked[-1].bias.assign([0, 0, 0, 50, 0])
    model.consistency_optimizer.learning_rate = 0.0
    for step in (1, 2):
        model._consistency_phase(batch[0], [1, step], [3, step])
    last = 0.9**2 / 3
    np.testing.assert_allclose(model.cluster_shares, [last, 1 - 2 * last, last], rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.prior.label_shares, model.cluster_shares)


def test_consistency_finds_clusters(make_model):
    options = {**CLUSTERS_OF_COPIES, "vat_radius": 0.0, "keep_prob": 1.0, "noise_std": 0.05}
    model = make_model("gaussian", 2, model="clustering", **options)
    quadrants = np.kron(np.eye(4).reshape(4, 2, 2), np.ones((4, 4)))[..., None].astype(np.float32)
    images = np.repeat(quadrants, 10, axis=0)
    model.consistency_optimizer.learning_rate = 1e-2
    lost = [
        float(model._consistency_phase(images, [1, step], [3, step])["consistency_loss"])
        for step in range(50)
    ]
    assert lost[0] == pytest.approx(1.1 * np.log(4), abs=0.02)  # nothing is known
    assert lost[-1] < lost[0] / 2
    first, second = (model.probabilities(model.copies(images, [seed, 1])).numpy() for seed in (5, 6))
    assert np.mean(first.argmax(axis=1) == second.argmax(axis=1)) > 0.95
    assert len(set(first.argmax(axis=1))) >= 3


@pytest.mark.parametrize(
    ("name", "options"), [("supervised", {}), ("semi_supervised", {**INDEPENDENT, "consistency": True})]
)
def test_training_goes_on_without_noise_and_dropout(make_model, labelled_batch, name, options):
    """Then its steps are those of a model that never had any; in the same `fit` or another."""
    noise = {"noise_std": 0.3, "input_dropout": 0.2, "keep_prob": 0.5}
    options = {"model": name, "prior": "gaussian", "n_z": 3, **options}
    model = make_model(**options, **noise)
    plain = make_model(**options, noised=False, keep_prob=1.0)
    plain.set_weights(values(trained(model, labelled_batch, 2).weights))
    for phase in model.phases:
        state = getattr(model, f"{phase}_optimizer").variables
        for variable, value in zip(getattr(plain, f"{phase}_optimizer").variables, state, strict=True):
            variable.assign(value)
    model.disturb(False)
    clean = [values(trained(m, labelled_batch, 2).weights) for m in (model, plain)]
    for ours, theirs in zip(*clean, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # And back.
    model.disturb(True)
    ends = [values(trained(m, labelled_batch, 2).weights) for m in (model, plain)]
    assert not any(np.array_equal(a, b) for a, b in zip(*ends, strict=True) if a.ndim > 1)


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


def test_conditional_model_in_use(make_model, batch):
    model = make_model("truncated_gaussian", 3, model="conditional", batch_norm=True)
    images, labels = batch
    codes = model.encode(images)
    assert codes.shape == (40, 3)
    reconstructions = model.reconstruct(images, labels)
    np.testing.assert_array_equal(reconstructions, model.decode(codes, labels))
    assert np.abs(reconstructions - model.reconstruct(images, (labels + 1) % 10)).max() > 0.01
    with pytest.raises(ValueError, match="40 integer labels"):
        model.reconstruct(images, None)
    sampled, drawn = model.sample_prior(5, seed=7)
    assert np.abs(sampled).max() <= 2
    np.testing.assert_array_equal(model.generate(5, seed=7), model.decode(sampled, drawn))
    np.testing.assert_array_equal(model.generate(5, label=3, seed=7), model.decode(sampled, [3] * 5))


def test_conditional_model_shows_the_label_to_decoder_and_d_alone(make_model, batch):
    model = make_model("gaussian", 3, model="conditional", d_noise=0.0)
    labels = batch[1]
    codes = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    one_hot = np.eye(10)[labels]
    expected = np.concatenate([codes, one_hot], axis=1)
    np.testing.assert_allclose(model.fake_samples(codes, labels, [1, 2])[0], expected, atol=1e-6)
    np.testing.assert_allclose(model.decoder_input(codes, labels), expected, atol=1e-6)
    real = model.real_samples(labels, [1, 2])[0].numpy()
    np.testing.assert_array_equal(real[:, 3:], one_hot)
    assert np.std(real[:, :3]) == pytest.approx(1, abs=0.2)
    assert model.encoder.in_shape == (8, 8, 1)


def test_attributes_instead_of_classes(make_model, batch):
    """Each image has any number of them: nothing is one-hot."""
    model = make_model("gaussian", 3, model="conditional", n_classes=4, attributes=True)
    images = batch[0]
    attributes = np.random.default_rng(0).integers(0, 2, (40, 4), np.uint8)
    np.testing.assert_array_equal(
        model.fake_samples(np.zeros((40, 3)), attributes, [1, 2])[0][:, 3:], attributes
    )
    model.train_step((images, attributes))
    assert model.reconstruct(images, attributes).shape == images.shape
    made = model.generate(2, label=[1, 0, 1, 1], seed=0)
    np.testing.assert_array_equal(made, model.decode(model.sample_prior(2, seed=0)[0], [[1, 0, 1, 1]] * 2))
    for label in (None, 3, [1, 0]):
        with pytest.raises(ValueError, match=r"Expected labels of shape \(1, 4\)"):
            model.generate(2, label=label)


def test_a_decoder_without_labels_refuses_them(make_model):
    with pytest.raises(ValueError, match="sees no labels"):
        make_model().decode(np.zeros((2, 2)), [1, 2])


@pytest.mark.parametrize("name", EACH_MODEL)
def test_every_model_trains_with_convolutions_and_batch_norm(make_model, labelled_batch, name):
    model = make_model(
        "gaussian", 3, model=name, network="conv", conv_widths="4,8", batch_norm=True, output="tanh"
    )
    step = tf.function(lambda: model.train_step(labelled_batch), autograph=False)
    losses = []
    for _ in range(60):
        model.reset_metrics()
        step()
        losses.append(float(model.train_trackers[0].result()))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("normalize", [normalized, normalized_by_products])
def test_batch_norm_against_its_formula(normalize):
    """Outputs, moments and gradients; the second is for processors without AVX-512."""
    random = np.random.default_rng(0)
    images = random.normal(2, 3, (6, 5, 4, 3))
    scale, offset, weights = random.normal(size=3), random.normal(size=3), random.normal(size=images.shape)

    def formula(images, scale, offset):
        mean, variance = tf.nn.moments(images, [0, 1, 2])
        return (images - mean) * tf.math.rsqrt(variance + 1e-5) * scale + offset, mean, variance

    found, expected = [], []
    for function, dtype, results in (
        (lambda *inputs: normalize(*inputs, 1e-5), tf.float32, found),
        (formula, tf.float64, expected),
    ):
        inputs = [tf.constant(values, dtype) for values in (images, scale, offset)]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            results += function(*inputs)
            loss = tf.reduce_sum(results[0] * tf.constant(weights, dtype))
        results += tape.gradient(loss, inputs)
    for value, exact in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, exact, rtol=1e-4, atol=1e-4)


def test_batch_norm_is_right_after_training_and_after_loading(make_model, labelled_batch, tmp_path):
    """What an image becomes depends neither on the batch that it comes in nor on saving."""
    model = make_model("gaussian", 3, model="conditional", batch_norm=True)
    for _ in range(20):
        model.train_step(labelled_batch)
    images, labels = labelled_batch[:2]
    expected = model.reconstruct(images, labels)
    np.testing.assert_allclose(model.reconstruct(images[:3], labels[:3]), expected[:3], atol=1e-5)
    averages = [v for v in model.encoder.non_trainable_variables if "moving" in v.path]
    assert len(averages) == 4
    assert all(np.abs(np.array(v) - np.round(v)).max() > 0.01 for v in averages)  # neither 0 nor 1
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(load_model(tmp_path).reconstruct(images, labels), expected)


def test_images_are_shifted_whole_and_evenly():
    images = np.zeros((5000, 7, 7, 2), np.float32)
    images[:, 3, 3] = [1, 2]
    moved = shifted(images, 2, [1, 2]).numpy()
    # One pixel each, both channels together, at each of the 25 places equally often.
    np.testing.assert_array_equal(moved.reshape(5000, -1, 2).sum(axis=1), np.tile([1, 2], (5000, 1)))
    places = moved[..., 0].sum(axis=0)
    assert places[1:6, 1:6].sum() == 5000
    assert stats.chisquare(places[1:6, 1:6].ravel()).pvalue > 1e-3
    # Zeros move in, and what leaves is gone.
    ones = shifted(np.ones((50, 4, 4, 1), np.float32), 3, [1, 2]).numpy()
    assert set(np.unique(ones)) == {0, 1}
    assert {int(image.sum()) for image in ones} <= {i * j for i in range(1, 5) for j in range(1, 5)}


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize("limit", [0.3, 1.0])
def test_images_are_distorted_as_scipy_does(limit, xla):
    images = np.random.default_rng(0).random((300, 12, 8, 2)).astype(np.float32)

    def compiled(function, *arguments):
        return tf.function(function, jit_compile=xla, autograph=False)(*arguments).numpy()

    moved = compiled(distorted, images, limit, [1, 2], xla)
    # XLA has draws of its own.
    xx, xy, x, yx, yy, y = limit * compiled(tf.random.stateless_uniform, [6, 300], [1, 2], -1.0, 1.0)
    for i in (0, 7):
        matrix, middle = np.array([[1 + yy[i], yx[i]], [xy[i], 1 + xx[i]]]), np.array([5.5, 3.5])
        offset = middle - matrix @ middle + [y[i] * 12 / 4, x[i] * 8 / 4]
        for channel in range(2):
            of = images[i, ..., channel]
            expected = affine_transform(of, matrix, offset, order=1, mode="grid-constant")
            np.testing.assert_allclose(moved[i, ..., channel], expected, atol=1e-4)
    np.testing.assert_allclose(distorted(images, 1e-9, [1, 2]), images, atol=1e-5)


def test_the_target_is_the_shifted_image_without_noise(make_model):
    model = make_model(shift=2, noise_std=0.3)
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 1), np.uint8)
    clean, noised = model.clean_and_noised(images, tf.constant([1, 2]))
    unmoved = images / np.float32(255)
    assert not np.allclose(clean, unmoved)
    assert np.std(noised - clean) == pytest.approx(0.3, rel=0.05)
    # Each is one of the 25 shifts of its image.
    padded = np.pad(unmoved, [(0, 0), (2, 2), (2, 2), (0, 0)])
    shifts = np.stack([padded[:, i : i + 8, j : j + 8] for i in range(5) for j in range(5)], axis=1)
    distances = np.abs(shifts - clean.numpy()[:, None]).max(axis=(2, 3, 4))
    assert distances.min(axis=1).max() < 1e-6


def test_d_and_g_see_codes_of_distorted_copies_as_long_as_there_is_noise(make_model, batch, monkeypatch):
    model = make_model("gaussian_mixture", 2, d_distortion=0.4, noised=True, noise_std=0.2, keep_prob=0.9)
    seen, call = [], type(model.encoder).call

    def recorded(network, inputs, *others, **named):
        if network is model.encoder:
            seen.append(inputs.numpy())
        return call(network, inputs, *others, **named)

    monkeypatch.setattr(type(model.encoder), "call", recorded)
    first_seed = model.step_seeds(model.settings.seed, 1)[0]
    model.train_step(batch)
    of_ae, of_g = seen
    np.testing.assert_array_equal(of_g[:20], of_ae[:20])
    seed = tf.random.fold_in(first_seed, 4)
    clean = distorted(batch[0][20:] / np.float32(255), 0.4, tf.random.fold_in(seed, 3))
    assert np.std(of_g[20:] - clean) == pytest.approx(0.2, rel=0.1)
    assert np.std(clean - batch[0][20:] / 255) > 0.1
    seen.clear()
    model.disturb(False)
    model.train_step(batch)
    of_ae, of_g = seen
    np.testing.assert_array_equal(of_g, of_ae)


def test_a_player_far_ahead_waits(make_model, batch):
    model = make_model(balance=True)
    step = tf.function(lambda: model.train_step(batch), autograph=False)
    parts = model.discriminator.trainable_variables, model.d_optimizer.variables, model.g_optimizer.variables
    for d_loss, g_loss, d_may, g_may in (
        (0.69, 0.69, True, True),
        (0.40, 0.90, True, True),
        (0.50, 2.00, True, True),
        (0.40, 1.00, False, True),
        (1.00, 0.40, True, False),
        (1.00, 0.50, True, True),
    ):
        model.reset_metrics()
        model.last_losses.assign([d_loss, g_loss])
        before = [values(part) for part in parts]
        step()
        d_changed, d_state_changed, g_state_changed = (
            any(changed(old, part)) for old, part in zip(before, parts, strict=True)
        )
        assert (d_changed, d_state_changed, g_state_changed) == (d_may, d_may, g_may), (d_loss, g_loss)
        logged = model.get_metrics_result()
        assert (float(logged["d_skipped"]), float(logged["g_skipped"])) == (not d_may, not g_may)
        expected = [float(logged["d_loss"]) / 2, float(logged["g_loss"])]
        np.testing.assert_allclose(model.last_losses, expected, rtol=1e-6)


def test_masked_updates_are_as_if_they_had_not_been():
    rng = np.random.default_rng(0)
    initial = rng.normal(size=(30, 20)).astype(np.float32)
    masked, plain = (keras.Variable(initial) for _ in range(2))
    optimizers = [FusedAdam(1e-2, epsilon=1e-8) for _ in range(2)]
    for step in range(40):
        gradient = tf.constant(rng.normal(size=initial.shape).astype(np.float32))
        optimizers[0].apply_if(tf.constant(step % 3 == 0), [gradient], [masked])
        if step % 3 == 0:
            optimizers[1].apply([gradient], [plain])
    np.testing.assert_array_equal(masked, plain)
    for ours, theirs in zip(optimizers[0].variables, optimizers[1].variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_judge_is_the_logit_of_d_without_noise(make_model, batch):
    images, labels = batch
    for name in MODELS:
        model = make_model("gaussian", 3, model=name, d_noise=0.5)
        codes, seen = model.encoder(images / np.float32(255)).numpy()[:, :3], model.discriminators
        if name in ("supervised", "conditional"):
            codes = np.concatenate([codes, np.eye(10)[labels]], axis=1)
        expected = next(iter(seen.values()))(codes.astype(np.float32))[:, 0]
        np.testing.assert_allclose(model.judge(images, labels), expected, atol=1e-5)


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
    seeds = model.step_seeds(3, 16)
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
        seeds += [tuple(np.array(seed)) for seed in model.step_seeds(0, 16)]
        model.step.assign_add(1)
    assert len(set(seeds)) == 48


def test_overfits_one_batch(make_model, batch):
    model = make_model(n_z=8, prior="gaussian", n_hidden=128, keep_prob=1.0, noise_std=0.0)
    step = tf.function(lambda: model.train_step(batch), autograph=False)
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
    assert model.encoder.stacked[0].compute_dtype == "bfloat16"
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}
    images = tf.cast(labelled_batch[0], tf.float32) / 255
    codes = model.encoder(images)
    assert codes.dtype == model.decoder(codes).dtype == tf.float32
    # The same weights give nearly the same outputs as in float32.
    exact = make_model(model="semi_supervised", n_hidden=64)
    np.testing.assert_allclose(codes, exact.encoder(images), atol=0.03)
    assert not np.array_equal(codes, exact.encoder(images))
    for _ in range(5):
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
        model = make_model(model="semi_supervised", **INDEPENDENT)
        # A large epsilon: Adam turns rounding errors of tiny gradients into whole steps.
        optimizers = {f"{phase}_optimizer": FusedAdam(1e-2, epsilon=1e-3) for phase in model.phases}
        model.compile(**optimizers, **kwargs)
        model.hold(*batch)
        batches = training_batches(40, 8, 0, labelled=range(0, 40, 3))
        # Five validation batches: two calls of three, the second one not full.
        validation = evaluation_batches(*batch, batch_size=8)
        history = model.fit(
            batches, steps_per_epoch=6, epochs=2, verbose=0, shuffle=False, validation_data=validation
        ).history
        errors = (model.reconstruct(batch[0]) - batch[0] / np.float32(255)) ** 2
        assert history["val_reconstruction_mse"][-1] == pytest.approx(errors.mean(), rel=1e-4)
        return values(model.trainable_variables), history

    return fit


def test_several_steps_per_call_change_nothing(fit_small):
    (weights, history), (others, other_history) = fit_small(), fit_small(steps_per_execution=3)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for name, per_epoch in history.items():
        np.testing.assert_allclose(other_history[name], per_epoch, rtol=1e-4, err_msg=name)


@pytest.mark.slow
def test_xla_trains_alike(fit_small):
    """XLA turns the same bits into other normal numbers, so the runs are alike and not equal."""
    history, other_history = fit_small()[1], fit_small(jit_compile=True)[1]
    for name in ("reconstruction_loss", "d_loss", "g_loss", "label_loss", "cycle_loss"):
        np.testing.assert_allclose(other_history[name], history[name], rtol=0.2, err_msg=name)


# What the steps of all flag files do, once each; the dense ones are small.
SLOW_FILES = (
    "best_semi_supervised",
    "best_clustering",
    "best_dimensionality_reduction",
    "freiburg_3_mnist_conv_y",
)
XLA_FILES = [
    "paper_supervised_gaussian_mixture_10000",
    *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_FILES),
]


@pytest.mark.parametrize("name", XLA_FILES)
def test_xla_compiles_the_step_of_a_flag_file(name):
    """On a GPU it does so by default; it knows not all of TensorFlow's operations."""
    words = ["--d_hidden=16", "--precision=float32"]
    words += ["--conv_widths=4,8" if "conv" in name else "--n_hidden=16"]
    copies = ["--d_distortion=0.2", "--consistency", "--distortion=0.2", "--vat_radius=0.5"]
    words += copies if name.startswith("paper_supervised") else []
    config = read_config(["main.py", f"--flagfile={ROOT / 'configs' / name}.flags", *words])
    random = np.random.default_rng(0)
    images, labels = random.integers(0, 256, (20, 28, 28, 1), np.uint8), np.arange(20) % 10
    model = build_model(config, SimpleNamespace(image_shape=(28, 28, 1), n_classes=10, has_attributes=False))
    model.jit_compile = True
    batch = tuple(map(tf.constant, (images, labels, images, labels)))
    before = values(model.encoder.trainable_variables)
    tf.function(model.train_step, jit_compile=True, autograph=False)(batch)
    assert int(model.step) == 1
    assert int(model.diverged_steps) == 0
    assert all(changed(before, model.encoder.trainable_variables))


def test_the_width_of_the_prior_reaches_what_is_drawn(make_model):
    model = make_model(model="unsupervised", prior="gaussian", n_z=4, prior_std=5.0)
    assert np.std(model.sample_prior(5000, seed=0)[0]) == pytest.approx(5, rel=0.05)
    assert type(model).from_config(model.get_config()).prior.std == 5.0


def test_how_the_step_is_compiled_and_called_depends_on_the_device(monkeypatch):
    config = read_config(["main.py", "--model=supervised"])
    interrupted = read_config(["main.py", "--model=supervised", "--checkpoint_every=10 minutes"])
    for gpus, xla, steps in ((0, False, 13), (1, True, 429), (2, False, 429)):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind, count=gpus: ["GPU"] * count)
        assert uses_xla(config) == xla
        assert steps_per_call(config, 429) == steps
        # Checkpoints come between two calls, and an epoch is finished that began elsewhere.
        assert steps_per_call(interrupted, 429) == 13
        assert steps_per_call(config, 429, done=33) == (33 if gpus else 11)
    assert uses_xla(read_config(["main.py", "--model=supervised", "--jit_compile=on"]))


def test_config_knows_which_decoders_see_labels(make_model):
    """It must refuse --PARR before TensorFlow, and with it the classes, are imported."""
    assert {name for name in MODELS if make_model(model=name).decodes_labels} == LABELLED_DECODERS


def test_optimizers_of_unknown_phases_are_refused(make_model):
    with pytest.raises(TypeError, match="ce_optimizer"):
        make_model().compile(ce_optimizer=FusedAdam())


@pytest.mark.parametrize("name", EACH_MODEL)
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
        assert len(ours) > 3  # more than iterations and learning rate: moments too
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
    monkeypatch.setattr("models.prediction.INFERENCE_BATCH", 7)
    np.testing.assert_allclose(model.encode(batch[0]), whole, rtol=1e-4, atol=1e-6)
    model.encode(batch[0])
    model.encode(batch[0].astype(np.float32) / 255)
    assert len(model._graphs) == 2  # for bytes and for floats, traced once each


def test_many_models_say_nothing_of_retracing(make_model, monkeypatch, batch, caplog):
    monkeypatch.setattr("models.prediction.INFERENCE_BATCH", 7)
    monkeypatch.setattr(tf.get_logger(), "propagate", True)
    caplog.set_level("WARNING", logger="tensorflow")
    for seed in range(6):
        make_model(seed=seed).reconstruct(batch[0][:7])
    assert "retracing" not in caplog.text


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

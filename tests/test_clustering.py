"""Clusters without labels, cluster heads in the plane, and labels of some images alone."""

import json

import cv2
import numpy as np
import pytest
import tensorflow as tf

import main
from data.loading import load_data
from evaluation import figures, pictures, plots
from models import CLUSTERING, LABEL_HEADS, MODELS, load_model
from models.adversarial_autoencoder import AdversarialAutoencoder
from models.augmentation import clean_and_noised
from models.dimensionality_reduction import too_close
from priors.gaussian import Gaussian
from priors.head_mixture import HeadMixture
from training.fit import train_and_evaluate
from training.history import read_history
from training.run import prepare_run
from training.settings import Config
from utils import registry

SMALL = ["--data", "digits", "--n_hidden", "32", "--batch_size", "128", "--n_epoch", "2"]
REDUCTION = "dimensionality_reduction"


def run(directory, *words):
    assert main.main(["main.py", "--run_dir", str(directory), *SMALL, *words]) == 0
    return json.loads((directory / "metrics.json").read_text())


def train_alone(model, active, rate=1e-2):
    for phase in model.phases:
        getattr(model, f"{phase}_optimizer").learning_rate = rate if phase == active else 0.0


# Models


def test_settings_know_which_models_have_label_heads(make_model):
    """The flags are checked before TensorFlow, and with it the classes, are imported."""
    assert {name for name in MODELS if hasattr(make_model(model=name), "classify")} == set(LABEL_HEADS)
    found = {name for name in MODELS if make_model(model=name, n_clusters=16).finds_clusters}
    assert found == set(CLUSTERING)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("n_clusters", [0, 16])
@pytest.mark.parametrize("cycle", [False, True])
def test_the_rates_are_those_of_the_phases(make_model, name, n_clusters, cycle):
    model = make_model("gaussian", 3, model=name, n_clusters=n_clusters, cycle=cycle)
    config = Config(model=name, n_clusters=n_clusters, cycle=cycle)
    if name != "clustering" or n_clusters:
        assert list(config.learning_rates(0)) == list(model.phases)
        assert model.n_classes == config.n_labels(10)


@pytest.mark.parametrize("name", CLUSTERING)
def test_clusters_see_no_labels(make_model, labelled_batch, name):
    model, twin = (make_model("gaussian", 3, model=name, n_clusters=16, cycle=True) for _ in range(2))
    images, labels = labelled_batch[:2]
    model.train_step((images, labels))
    twin.train_step((images, labels[::-1]))
    for a, b in zip(model.variables, twin.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert "ce" not in model.phases
    assert model.classify(images).shape == (40, 16)
    assert model.discriminator_shapes == {"discriminator_z": (3,), "discriminator_y": (16,)}
    style, one_hot = model.real_samples(labels, [1, 2])
    assert style.shape == (40, 3)
    assert set(np.unique(one_hot)) == {0, 1}
    assert one_hot.shape == (40, 16)


def test_the_clustering_model_is_the_semi_supervised_one_without_cross_entropy(make_model, labelled_batch):
    clustering = make_model("gaussian", 3, model="clustering", n_clusters=10, seed=3)
    semi = make_model("gaussian", 3, model="semi_supervised", seed=3)
    semi.ce_optimizer.learning_rate = 0.0
    clustering.train_step(labelled_batch[:2])
    semi.train_step(labelled_batch)
    for a, b in zip(clustering.trainable_variables, semi.trainable_variables, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("options", "phases"), [({}, "ae d g ce heads"), ({"n_clusters": 16}, "ae d g heads")]
)
def test_the_phases_that_move_the_heads(make_model, labelled_batch, options, phases):
    assert list(make_model("gaussian", 3, model=REDUCTION, **options).phases) == phases.split()
    for active in phases.split():
        model = make_model("gaussian", 3, model=REDUCTION, head_distance=50.0, **options)
        train_alone(model, active)
        model.heads.assign(np.array(model.heads) / 10)
        before = np.array(model.heads)
        model.train_step(labelled_batch)
        assert np.array_equal(before, model.heads) == (active not in ("ae", "heads")), active


def test_the_decoder_sees_head_and_style_added(make_model, batch):
    model = make_model("gaussian", 3, model=REDUCTION)
    images = batch[0]
    output = model.encoder(tf.cast(images, tf.float32) / 255).numpy()
    logits = np.exp(output[:, 3:] - output[:, 3:].max(axis=1, keepdims=True))
    probabilities = logits / logits.sum(axis=1, keepdims=True)
    codes = output[:, :3] + probabilities @ np.array(model.heads)
    np.testing.assert_allclose(model.encode(images), codes, atol=1e-4)
    np.testing.assert_allclose(model.classify(images), probabilities, atol=1e-5)
    assert model.decoder.in_shape == (3,)
    np.testing.assert_allclose(model.reconstruct(images), model.decode(codes), atol=1e-4)
    np.testing.assert_allclose(model.decode_heads(), model.decode(np.array(model.heads)), atol=1e-5)
    # D sees the style alone, and the label.
    style, label = model.fake_samples(output, None, [1, 2])
    np.testing.assert_array_equal(style, output[:, :3])
    np.testing.assert_allclose(label, probabilities, atol=1e-5)
    real, _ = model.real_samples(np.zeros(20_000), [1, 2])
    assert np.std(real, axis=0) == pytest.approx([1] * 3, rel=0.03)
    np.testing.assert_allclose(np.mean(real, axis=0), 0, atol=0.05)


def test_samples_of_the_dimensionality_reduction_lie_around_heads(make_model):
    model = make_model("gaussian", 3, model=REDUCTION)
    codes, labels = model.sample_prior(20_000, seed=1)
    for label, head in enumerate(np.array(model.heads)):
        np.testing.assert_allclose(codes[labels == label].mean(axis=0), head, atol=0.1)
    codes, labels = model.sample_prior(5, label=3, seed=1)
    assert set(labels) == {3}
    np.testing.assert_array_equal(model.generate(5, label=3, seed=1), model.decode(codes))
    clusters = make_model("gaussian", 3, model=REDUCTION, n_clusters=20)
    assert clusters.generate(2, label=19).shape == (2, 8, 8, 1)
    assert clusters.finds_clusters


def test_a_semi_supervised_model_shows_its_heads(make_model):
    model = make_model("gaussian", 3, model="clustering", n_clusters=4)
    expected = model.decode(np.zeros((4, 3)), np.arange(4))
    np.testing.assert_allclose(model.decode_heads(), expected, atol=1e-6)


def test_heads_that_are_too_close():
    heads = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    pairs = [(i, j) for i in range(6) for j in range(i)]
    expected = sum(max(0, 2 - np.linalg.norm(heads[i] - heads[j])) for i, j in pairs)
    assert 0 < sum(np.linalg.norm(heads[i] - heads[j]) < 2 for i, j in pairs) < len(pairs)
    assert float(too_close(tf.constant(heads), 2.0)) == pytest.approx(expected, rel=1e-5)
    assert float(too_close(tf.constant(heads), 0.0)) == 0
    with tf.GradientTape() as tape:
        variable = tf.Variable(heads)
        loss = too_close(variable, 2.0)
    # Each lacking pair is pushed apart with the same force, along its line.
    force = np.zeros((6, 3))
    for i, j in pairs:
        difference = heads[i] - heads[j]
        if (distance := np.linalg.norm(difference)) < 2:
            force[i] -= difference / distance
            force[j] += difference / distance
    np.testing.assert_allclose(tape.gradient(loss, variable), force, atol=1e-5)


def test_the_heads_come_to_be_apart(make_model, labelled_batch):
    model = make_model("gaussian", 2, model=REDUCTION, head_distance=3.0)
    model.heads.assign(np.random.default_rng(0).normal(size=(10, 2), scale=0.1))
    train_alone(model, "heads", 0.1)
    step = tf.function(lambda: model.train_step(labelled_batch), autograph=False)
    for _ in range(400):
        step()
    heads = np.array(model.heads)
    distances = np.linalg.norm(heads[:, None] - heads, axis=2)[~np.eye(10, dtype=bool)]
    assert distances.min() > 2.8


def test_mixture_around_heads_against_its_formula():
    random = np.random.default_rng(0)
    heads, codes = (random.normal(size=(n, 2), scale=2).astype(np.float32) for n in (5, 40))
    prior = HeadMixture(Gaussian(2, 5), tf.Variable(heads))
    squared = ((codes[:, None] - heads) ** 2).sum(axis=2)
    log_probs = -squared / 2 - np.log(2 * np.pi)
    expected = np.log(np.exp(log_probs).mean(axis=1))
    np.testing.assert_allclose(prior.log_prob(codes), expected, rtol=1e-4)
    prior.label_shares = np.float32(np.random.default_rng(1).dirichlet(np.ones(len(log_probs[0]))))
    expected = np.log(np.exp(log_probs) @ prior.label_shares)
    np.testing.assert_allclose(prior.log_prob(codes), expected, rtol=1e-4)
    labels = np.arange(40, dtype=np.uint8) % 5
    np.testing.assert_allclose(prior.log_prob(codes, labels), log_probs[np.arange(40), labels], rtol=1e-4)
    np.testing.assert_array_equal(prior.classify(codes), squared.argmin(axis=1))
    paths = prior.component_paths(7)
    assert paths.shape == (5, 7, 2)
    np.testing.assert_allclose(paths[:, 3], heads, atol=0.05)
    np.testing.assert_array_equal(paths[..., 1], np.repeat(heads[:, 1:], 7, axis=1))
    # A draw takes the heads where they are.
    prior.heads.assign(heads + 100)
    assert np.min(prior.sample(100, [1, 2])) > 80


def test_input_dropout_sets_its_share_of_the_pixels_to_0():
    images = np.full((50, 8, 8, 1), 255, np.uint8)
    clean, inputs = clean_and_noised(images, tf.constant([1, 2]), 0, 0.0, 0.2)
    assert np.all(clean == 1)
    assert np.mean(inputs == 0) == pytest.approx(0.2, abs=0.02)
    assert np.max(inputs) == pytest.approx(1.25)


def test_the_decoder_alone_goes_without_batch_norm(make_model):
    model = make_model("gaussian", 3, model="clustering", batch_norm=True, decoder_batch_norm=False)
    assert (len(model.encoder.norms), len(model.decoder.norms)) == (2, 0)


# Labels of some images


@pytest.mark.parametrize("prior", ["gaussian_mixture", "swiss_roll"])
def test_d_sees_which_images_have_no_label(make_model, prior):
    model = make_model(prior, unlabelled=True)
    assert model.discriminator_shapes == {"discriminator": (13,)}
    labels = np.arange(20_000, dtype=np.int32) % 10
    labels[::2] = 10
    real = model.real_samples(labels, [1, 2])[0].numpy()
    shown = real[:, 2:].argmax(axis=1)
    np.testing.assert_array_equal(real[:, 2:], np.eye(11)[shown])
    np.testing.assert_array_equal(shown == 10, labels == 10)
    places = model.prior.classify(real[:, :2]).numpy()
    assert np.mean(places == shown, where=shown < 10) > 0.97
    # Those without a label come from the whole prior.
    shares = np.bincount(places[shown == 10], minlength=10) / 10_000
    np.testing.assert_allclose(shares, 0.1, atol=0.015)
    fake = model.fake_samples(real[:, :2], labels, [1, 2])[0].numpy()
    np.testing.assert_array_equal(fake[:, 2:], np.eye(11)[labels])


def test_only_chosen_labels_are_shown(tmp_path):
    words = ["--num_samples", "200", "--n_z", "2", "--seed", "3", "--run_dir", str(tmp_path / "run")]
    prepared = prepare_run(main.read_config(["main.py", *SMALL, *words]))
    with prepared.lock:
        labels, shown = prepared.data.train_labels, prepared.shown_labels
        hidden = np.ones(len(labels), bool)
        hidden[prepared.labelled] = False
        assert np.all(shown[hidden] == 10)
        np.testing.assert_array_equal(shown[~hidden], labels[~hidden])
        assert np.bincount(labels[~hidden]).tolist() == [20] * 10


@pytest.mark.parametrize(("model", "labelled"), [("supervised", 64), ("semi_supervised", None)])
def test_half_of_a_batch_has_labels_where_d_sees_them(tmp_path, monkeypatch, model, labelled):
    class Seen(Exception):
        pass

    def fit(model, x, **arguments):
        raise Seen(next(iter(x)))

    monkeypatch.setattr(AdversarialAutoencoder, "fit", fit)
    words = ["--model", model, "--num_samples", "200", "--n_z", "2", "--run_dir", str(tmp_path / "run")]
    prepared = prepare_run(main.read_config(["main.py", *SMALL, *words]))
    with prepared.lock, pytest.raises(Seen) as seen:
        train_and_evaluate(prepared)
    batch = {name: chosen.numpy() for name, chosen in seen.value.args[0].items()}
    shown = np.isin(batch["images"], prepared.labelled).sum()
    if labelled:
        assert shown == labelled
        assert list(batch) == ["images"]
    else:  # those come apart, and the images are any
        assert 8 < shown < 40
        assert np.isin(batch["labelled"], prepared.labelled).all()


def test_without_num_samples_all_labels_are_shown(tmp_path):
    words = ["--n_z", "2", "--run_dir", str(tmp_path / "run")]
    prepared = prepare_run(main.read_config(["main.py", *SMALL, *words]))
    with prepared.lock:
        assert not prepared.config.unlabelled
        assert prepared.labelled is None
        assert prepared.shown_labels is prepared.data.train_labels


@pytest.mark.slow
def test_a_run_with_some_labels_and_its_flags_again(tmp_path):
    words = ["--prior", "gaussian_mixture", "--n_z", "2", "--num_samples", "300"]
    metrics = run(tmp_path / "run", *words)
    assert metrics["labelled_images"] == 300
    assert 0 < metrics["test_component_accuracy"] <= 1
    assert load_model(tmp_path / "run").settings.unlabelled
    # Labels that are not shown decide nothing.
    again = run(tmp_path / "again", f"--flagfile={tmp_path / 'run' / 'flags.txt'}")
    assert again["test_component_accuracy"] == metrics["test_component_accuracy"]


# Figures, pictures, whole runs


class Clustered:
    """A model whose "images" are rows of probabilities."""

    finds_clusters = True

    def classify(self, images):
        return images


def test_the_error_of_clusters_is_the_papers():
    """Each cluster takes the label of the validation image that belongs to it most surely."""
    validation = np.array(
        [[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.0, 1.0, 0.0], [0.5, 0.3, 0.2], [0.0, 0.9, 0.1]]
    )
    labels = np.array([7, 1, 2, 5, 3], np.uint8)
    clusters = figures.labels_of_clusters(Clustered(), validation, labels)
    assert clusters.tolist() == [7, 2, 5]
    test = np.array([[0.6, 0.4, 0.0], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.4, 0.5, 0.1]])
    assert figures.predicted_labels(test, clusters).tolist() == [7, 2, 5, 2]
    assert figures.error_percent(test, np.array([7, 2, 5, 7]), clusters) == 25
    of = type("Data", (), {})()
    of.test_images, of.test_labels = test, np.array([7, 2, 5, 7], np.uint8)
    of.validation_images, of.validation_labels = validation, labels
    measured = figures.of_classification(figures.Trained(Clustered(), of, None))
    assert measured["test_error_percent"] == 25
    assert measured["validation_error_percent"] == pytest.approx(60)  # 7, 7, 2, 7, 2 for 7, 1, 2, 5, 3
    assert measured["chosen_clusters"] == 3
    of.test_images, of.test_labels = test[[0, 1, 3]], of.test_labels[[0, 1, 3]]
    assert figures.of_classification(figures.Trained(Clustered(), of, None))["chosen_clusters"] == 2


def test_pictures_leave_out_empty_clusters(make_model, batch, monkeypatch, tmp_path):
    model = make_model("gaussian", 2, model="clustering", n_clusters=3, consistency=True)
    model.encoder.stacked[-1].bias.assign([0, 0, 0, 50, 0])
    model.cluster_shares.assign([0, 1, 0])
    data = type("Data", (), {"note": "", "label_names": ()})()
    data.test_images = data.validation_images = batch[0]
    data.test_labels = data.validation_labels = np.arange(len(batch[0])) % 10
    codes = figures.fixed_codes(model)
    expected = model.decode(codes, np.ones(len(codes), int))
    np.testing.assert_allclose(figures.decode_samples(model, codes, data), expected, atol=1e-6)
    drawn = []
    monkeypatch.setattr(plots, "save_beside", lambda *args, **options: drawn.append((args, options)))
    pictures.clusters(pictures.Sitting(None, data, model, tmp_path, codes, []))
    [((_, heads, members, *_), options)] = drawn
    np.testing.assert_array_equal(heads[[0, 2]], 0)
    np.testing.assert_allclose(heads[1], model.decode_heads()[1])
    members = members.reshape(3, pictures.N_MEMBERS, *batch[0].shape[1:])
    assert members[[0, 2]].max() == 0
    assert members[1].max() > 0
    labels = options["row_labels"]
    assert labels[0] == labels[2] == "-"
    assert int(labels[1]) in range(10)


MANIFOLDS = [f"manifold_label_{cluster}.png" for cluster in range(12)]


@pytest.mark.parametrize(
    ("name", "words", "pictures"),
    [
        (
            "clustering",
            ["--n_z", "2", "--n_clusters", "12", "--consistency", "--distortion", "0.2", "--PMLR"],
            ["clusters.png", "confusion.png", "prior.png", "codes.png", *MANIFOLDS],
        ),
        pytest.param(
            "clustering",
            ["--n_z", "2", "--cycle", "--joint_discriminator", "--batch_norm"],
            ["clusters.png"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            REDUCTION,
            ["--n_z", "2", "--n_clusters", "12", "--PMLR"],
            ["clusters.png", "codes.png", "manifold.png"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            REDUCTION,
            ["--n_z", "2", "--num_samples", "200", "--PMLR", "--cycle", "--animate"],
            ["codes.png", "prior.png", "confusion.png", "manifold_components.png"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            REDUCTION,
            ["--n_z", "10", "--num_samples", "200"],
            ["scatter_classes.png", "confusion.png"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_run_leaves_everything(tmp_path, name, words, pictures):
    directory = tmp_path / "run"
    metrics = run(directory, "--model", name, *words)
    for picture in pictures:
        assert cv2.imread(str(directory / "plots" / picture)).std() > 5, picture
    model, data = load_model(directory), load_data("digits")
    assert type(model) is registry.load(MODELS, name)
    probabilities = model.classify(data.test_images)
    n_labels = main.read_config(["main.py", "--model", name, *words]).n_labels(10)
    assert probabilities.shape == (len(data.test_images), n_labels)
    predictions = probabilities.argmax(axis=1)
    if model.finds_clusters:
        best = model.classify(data.validation_images).argmax(axis=0)
        predictions = data.validation_labels[best][predictions]
    wrong = np.mean(predictions != data.test_labels)
    assert metrics["test_error_percent"] == pytest.approx(100 * wrong)
    rows = read_history(directory / "history.csv")
    assert rows[-1]["val_error_percent"] == pytest.approx(metrics["validation_error_percent"])
    assert ("label_swap_accuracy" in metrics) == model.decodes_labels
    assert ("val_label_swap_accuracy" in rows[-1]) == model.decodes_labels
    assert (directory / "plots" / "clusters.png").exists() == model.finds_clusters
    assert ("test_component_accuracy" in metrics) == (name == REDUCTION and not model.finds_clusters)
    assert ("heads_loss" in rows[0]) == (name == REDUCTION)
    assert ("labelled_images" in metrics) == (not model.finds_clusters)


@pytest.mark.slow
def test_a_run_of_heads_goes_on(tmp_path):
    words = ["--model", REDUCTION, "--n_z", "2", "--n_clusters", "12"]
    run(tmp_path / "whole", *words, "--n_epoch", "4")
    run(tmp_path / "halves", *words)
    assert main.main(["main.py", "--resume", "--run_dir", str(tmp_path / "halves"), "--n_epoch", "4"]) == 0
    whole, halves = (load_model(tmp_path / name) for name in ("whole", "halves"))
    for a, b in zip(whole.variables, halves.variables, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("line", "mentioned"),
    [
        ("--model clustering --n_clusters 1", "--n_clusters must be at least 2, got 1"),
        ("--model clustering --n_clusters 0", "--n_clusters must be at least 2, got 0"),
        ("--model clustering --n_clusters -3", "n_clusters"),
        ("--model clustering --n_clusters 5000", "n_clusters"),
        (f"--model {REDUCTION} --n_clusters 1", "--n_clusters must be at least 2, got 1"),
        (f"--model {REDUCTION} --head_distance -1", "head_distance"),
        ("--input_dropout 1", "input_dropout"),
        ("--n_clusters 16", "--n_clusters has no effect with --model supervised"),
        ("--model clustering --num_samples 100", "--num_samples has no effect with --model clustering"),
        (f"--model {REDUCTION} --n_clusters 20 --num_samples 100", "has no effect with --n_clusters 20"),
        (f"--model {REDUCTION} --n_clusters 20 --ce_rate 2", "has no effect with --n_clusters 20"),
        ("--model clustering --head_distance 3", "has no effect with --model clustering"),
        ("--model clustering --unlabelled", "has no effect with --model clustering"),
        ("--decoder_batch_norm false", "has no effect with --batch_norm False"),
        (f"--model {REDUCTION} --PARR", "needs a decoder that sees the label"),
        ("--data digits --num_samples 9", "from 10, one per class, to 1319"),
    ],
)
def test_flags_that_do_not_fit(line, mentioned, tmp_path, capsys):
    assert main.main(["main.py", *line.split(), "--run_dir", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert mentioned in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_defaults_that_follow_from_the_model():
    def of(line):
        return main.read_config(["main.py", *line.split()])

    clustering, reduction = of("--model clustering"), of(f"--model {REDUCTION} --n_z 2")
    assert (clustering.n_clusters, clustering.joint_discriminator, clustering.cycle) == (16, False, True)
    assert (reduction.n_clusters, reduction.learns_labels, reduction.num_samples) == (0, True, 5000)
    assert not reduction.cycle
    assert of(f"--model {REDUCTION} --n_clusters 20").cycle
    assert not of("--model clustering --nocycle").cycle
    assert of("--num_samples 10000").unlabelled
    assert not of("--model semi_supervised --num_samples 100").unlabelled
    # What a run has noted repeats it.
    assert not of("--num_samples 5000 --unlabelled false").chooses_labelled

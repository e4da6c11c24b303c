from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from data.image_data import ImageData
from evaluation import curves, figures, pictures, plots


def directions_of_figures(n_z, seed):
    directions = np.random.default_rng(seed).normal(size=(figures.N_PROJECTIONS, n_z))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def test_sliced_wasserstein_is_the_mean_over_projections():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(500, 3)), rng.normal(size=(500, 3)) * 2 + 1
    expected = np.mean([stats.wasserstein_distance(a @ d, b @ d) for d in directions_of_figures(3, seed=4)])
    assert figures.sliced_wasserstein(a, b, seed=4) == pytest.approx(expected, rel=1e-9)


def test_sliced_wasserstein_of_a_shift_in_the_plane():
    # The mean of |cos| over directions is 2 / pi.
    a = np.random.default_rng(0).normal(size=(1000, 2))
    distance = figures.sliced_wasserstein(a, a + np.array([3.0, 0.0]), seed=0)
    assert distance == pytest.approx(3 * 2 / np.pi, rel=0.1)


def test_reconstruction_mse_is_the_mean_over_all_images_and_pixels(make_model, monkeypatch):
    model = make_model()
    images = np.random.default_rng(0).integers(0, 256, (2500, 8, 8, 1), np.uint8)
    codes = model.encode(images)
    expected = np.mean((model.decode(codes).astype(np.float64) - images / 255.0) ** 2)
    assert figures.reconstruction_mse(model, images, np.zeros(2500, int)) == pytest.approx(expected, rel=1e-4)


def test_perfect_codes_get_perfect_figures(make_model):
    """Codes drawn from the prior itself score its ceiling, at a distance near the floor."""
    model = make_model("gaussian_mixture")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3000, 8, 8, 1), np.uint8)
    labels = (np.arange(3000) % 10).astype(np.uint8)
    data = ImageData("noise", "", images, labels, images, labels, images, labels)
    codes = model.prior.sample(3000, [9, 9], labels).numpy()
    metrics = figures.evaluate(model, data, codes)
    assert metrics["test_component_accuracy"] == pytest.approx(
        metrics["component_accuracy_ceiling"], abs=0.01
    )
    assert metrics["prior_distance"] < 2 * metrics["prior_distance_floor"]
    assert metrics["prior_distance_given_labels"] < 2 * metrics["prior_distance_floor"]
    # Codes that ignore the prior do not.
    metrics = figures.evaluate(model, data, rng.normal(size=(3000, 2)).astype(np.float32))
    assert metrics["test_component_accuracy"] < 0.3
    assert metrics["prior_distance"] > 4 * metrics["prior_distance_floor"]


def test_the_distance_of_training_codes_is_of_training_images(make_model):
    """Test images are all alike, so that their codes are one point; those of training are noise."""
    model = make_model()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2500, 8, 8, 1), np.uint8)
    labels = np.zeros(2500, np.uint8)
    data = ImageData(
        "noise", "", images, labels, images[:9], labels[:9], images[:1].repeat(1200, 0), labels[:1200]
    )
    metrics = figures.evaluate(model, data, model.encode(data.test_images))
    codes = model.encode(images)
    chosen = np.random.default_rng(0).choice(2500, 1200, replace=False)
    sample = model.sample_prior(1200, seed=-1)[0]
    expected = np.mean(
        [
            stats.wasserstein_distance(codes[chosen] @ d, sample @ d)
            for d in directions_of_figures(2, model.settings.seed)
        ]
    )
    assert metrics["train_prior_distance"] == pytest.approx(expected, rel=1e-3)
    assert metrics["prior_distance"] != pytest.approx(expected, rel=1e-2)


def test_fewer_training_images_than_test_images_are_all_taken(make_model):
    model = make_model()
    images = np.random.default_rng(0).integers(0, 256, (80, 8, 8, 1), np.uint8)
    codes = model.encode(images)
    np.testing.assert_allclose(
        figures.random_codes(model, images[:30], 50, seed=3), codes[:30], rtol=1e-5, atol=1e-6
    )
    of = figures.Trained(model, SimpleNamespace(train_images=images[:30]), codes[30:])
    sample = of.prior_sample(0)[:30]
    expected = figures.sliced_wasserstein(codes[:30], sample, model.settings.seed)
    assert figures.of_prior(of)["train_prior_distance"] == pytest.approx(expected, rel=1e-4)


def test_label_entropies():
    certain = np.eye(10, dtype=np.float32)
    assert figures.label_entropies(certain) == pytest.approx((np.log(10), 0))
    assert figures.label_entropies(np.full((4, 10), 0.1)) == pytest.approx((np.log(10), np.log(10)))
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(10), 50)
    expected = stats.entropy(p.mean(axis=0)), stats.entropy(p, axis=1).mean()
    assert figures.label_entropies(p) == pytest.approx(expected)


def test_error_percent():
    assert figures.error_percent(np.eye(10)[[0, 1, 2, 3]], np.array([0, 1, 2, 4])) == 25


def test_styles_switch_one_attribute_at_a_time(tmp_path, monkeypatch):
    """The decoder draws the code and the attributes that it is given."""
    drawn = {}

    def save_beside(path, images, others, titles, note, column_labels):
        drawn.update(others=others, column_labels=column_labels)

    monkeypatch.setattr(plots, "save_beside", save_beside)
    model = SimpleNamespace(
        decodes_labels=True,
        finds_clusters=False,
        n_classes=3,
        decode=lambda codes, rows: np.hstack([codes, rows]),
    )
    labels = np.array([[0, 1, 0], [1, 1, 0]], np.uint8)
    data = SimpleNamespace(
        has_attributes=True,
        label_names=("hat", "tie", "hair"),
        test_labels=labels,
        test_images=np.zeros((2, 4, 4, 1), np.uint8),
        note="",
    )
    codes = np.array([[5.0], [7.0]])
    pictures.styles(pictures.Sitting(None, data, model, tmp_path, codes, []))
    np.testing.assert_array_equal(
        drawn["others"],
        [
            *([5, 0, 1, 0], [5, 1, 1, 0], [5, 0, 0, 0], [5, 0, 1, 1]),
            *([7, 1, 1, 0], [7, 0, 1, 0], [7, 1, 0, 0], [7, 1, 1, 1]),
        ],
    )
    assert drawn["column_labels"] == ["as it is", "0 hat", "1 tie", "2 hair"]


@pytest.mark.parametrize(
    ("further", "panels"),
    [
        ({}, []),
        (
            {"val_component_accuracy": 0.5, "consistency_loss": 0.3},
            ["Codes in their class's part of the prior", "Consistency of copies"],
        ),
        (
            {"val_error_percent": 3.0, "label_loss": 0.1, "cycle_accuracy": 0.9},
            ["Validation error in percent", "Labelled images", "Labels obeyed"],
        ),
    ],
)
def test_the_curves_have_a_panel_of_each_kind_of_figure_that_there_is(tmp_path, monkeypatch, further, panels):
    saved = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, *others, **named: saved.append(figure))
    row = {"d_loss": 1.3, "d_accuracy_real": 0.5, "g_loss": 0.7, "reconstruction_loss": 0.1}
    row |= {"val_reconstruction_mse": 0.1, "ae_learning_rate": 1e-3, **further}
    curves.save_curves(tmp_path / "curves.png", [{"epoch": epoch, **row} for epoch in (1.0, 2.0)])
    shown = [axes for axes in saved[0].axes if axes.get_visible()]
    usual = ["Adversarial losses", "D's accuracy", "Reconstruction error", "Learning rate"]
    assert [axes.get_title() for axes in shown] == [*usual, *panels]
    drawn = [line.get_label() for axes in shown for line in axes.lines if len(line.get_xdata()) == 2]
    equilibria = {name for name in drawn if name.startswith("equilibrium")}
    assert equilibria == {f"equilibrium of {player}" for player in ("d, 1.386", "g, 0.693", "d, 0.500")}
    assert set(drawn) - equilibria == row.keys()

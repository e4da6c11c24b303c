"""The reader of labels, and the figures that it gives: they must tell who obeys a label from who does not."""

import dataclasses
import json
import os

import cv2
import numpy as np
import pytest

import main
from data.image_data import ImageData
from data.loading import load_data
from evaluation.figures import MAX_DECODED, Trained, evenly, label_figures, labels_shown, of_labels, per_label
from models import load_model
from training.history import read_history
from training.label_reader import label_reader


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


@pytest.fixture(scope="module")
def reader(digits):
    return label_reader(digits)


# Of a model without clusters.
ITSELF = {label: label for label in range(10)}


class Stamps:
    """A decoder of a known kind: a mean digit of the label, or of a number that is the style's first axis.

    Args:
        obeys: share of the styles for which the label counts.
    """

    def __init__(self, digits, obeys):
        self.digits = np.stack(
            [digits.train_images[digits.train_labels == k].mean(axis=0) / 255 for k in range(10)]
        ).astype(np.float32)
        self.obeys = obeys

    def decode(self, styles, labels):
        obeying = np.arange(len(styles)) < self.obeys * len(styles)
        return self.digits[np.where(obeying, labels, styles[:, 0].astype(int))]

    def generate(self, n, label, seed):
        styles = np.random.default_rng(abs(seed)).integers(0, 10, (n, 1))
        return self.decode(styles, np.full(n, label))


def test_reader_knows_real_digits(digits, reader):
    wrong = reader.read(digits.test_images) != digits.test_labels
    assert reader.test_error_percent == pytest.approx(100 * np.mean(wrong))
    assert reader.test_error_percent < 3
    # Bytes, and floats from 0 to 1, are the same images.
    as_floats = digits.test_images / np.float32(255)
    np.testing.assert_array_equal(reader.read(as_floats), reader.read(digits.test_images))


@pytest.mark.parametrize("obeys", [1.0, 0.6, 0.0])
def test_figures_tell_how_often_a_label_is_obeyed(digits, reader, obeys):
    styles = np.arange(200)[:, None] % 10
    figures = label_figures(Stamps(digits, obeys), styles, ITSELF, reader)
    # Of those that do not obey, one in ten shows the label by chance.
    expected = obeys + 0.1 * (1 - obeys)
    assert figures["label_swap_accuracy"] == pytest.approx(expected, abs=1e-6)
    assert figures["generated_label_accuracy"] == pytest.approx(expected, abs=0.02)
    assert figures["label_swap_accuracy_worst"] <= figures["label_swap_accuracy"] + 1e-9
    assert figures["reader_test_error_percent"] == reader.test_error_percent


def test_the_worst_label_shows_where_the_mean_hides_it(digits, reader):
    stamps = Stamps(digits, 1.0)
    stamps.digits[7] = stamps.digits[1]
    figures = label_figures(stamps, np.zeros((20, 1)), ITSELF, reader)
    assert figures["label_swap_accuracy"] == pytest.approx(0.9)
    assert figures["label_swap_accuracy_worst"] == figures["generated_label_accuracy_worst"] == 0


def test_a_cluster_is_to_show_the_label_it_gets(digits, reader):
    """Cluster 4 is empty; 0 and 2 hold the 8s, 1 the 3s, 3 the 5s, though it is drawn as a 6."""

    class Clusters(Stamps):
        finds_clusters = True

        def decode(self, styles, labels):
            return super().decode(styles, np.array([8, 3, 8, 6, 0])[labels])

    held = np.eye(5)[[0, 1, 2, 3, 3]] * np.array([0.9, 0.9, 0.9, 0.6, 0.9])[:, None]
    shown = labels_shown(Clusters(digits, 1.0), held, np.array([8, 3, 8, 1, 5]))
    assert shown == {0: 8, 1: 3, 2: 8, 3: 5}
    figures = label_figures(Clusters(digits, 1.0), np.zeros((20, 1)), shown, reader)
    assert figures["label_swap_accuracy"] == figures["generated_label_accuracy"] == 0.75
    assert figures["label_swap_accuracy_worst"] == 0


def test_many_clusters_share_the_images_that_are_decoded(reader):
    """A thousand clusters at 3,000 images each would take longer than their training."""

    class Counting:
        decodes_labels, finds_clusters, images = True, True, 0

        def decode(self, styles, labels):
            self.images += len(styles)
            return np.zeros((len(styles), 28, 28, 1), np.float32)

        def generate(self, n, label, seed):
            return self.decode(np.zeros((n, 1)), label)

    assert [per_label(2000, 30), per_label(2000, 40), per_label(1000, 10**6)] == [2000, 1500, 1]
    model, n_clusters = Counting(), 300
    blank, labels = np.zeros((n_clusters, 28, 28, 1), np.uint8), np.arange(n_clusters) % 10
    data = ImageData("blank", "", blank, labels, blank, labels, blank, labels)
    of = Trained(model, data, np.zeros((10_000, 1)), reader)
    vars(of)["validation_probabilities"] = np.eye(n_clusters)  # an image in each
    assert 0 <= of_labels(of)["label_swap_accuracy"] < 0.5
    assert model.images == 2 * MAX_DECODED


def test_reader_is_trained_once_and_kept_beside_the_data(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("training.label_reader.MIN_STEPS", 10)
    few = {f"train_{part}": getattr(digits, f"train_{part}")[:200] for part in ("images", "labels")}
    data = dataclasses.replace(digits, folder=str(tmp_path), **few)
    first = label_reader(data)
    (path,) = tmp_path.glob("aae_reader_digits_*.npz")
    assert "once for all runs" in capsys.readouterr().out
    again = label_reader(data)
    assert capsys.readouterr().out == ""
    for a, b in zip(first.network.get_weights(), again.network.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    # Whatever the file has become, the reader is a trained one.
    path.write_bytes(path.read_bytes()[:-500])
    assert label_reader(data).test_error_percent == first.test_error_percent
    assert "damaged and is trained anew" in capsys.readouterr().out
    # Other images have a reader of their own; where the folder cannot be written, the user's cache has it.
    other = dataclasses.replace(data, folder=str(tmp_path / "a file"), test_images=data.test_images[::-1])
    (tmp_path / "a file").write_text("")
    label_reader(other)
    assert len(list((tmp_path / "cache" / "aae").glob("aae_reader_digits_*.npz"))) == 1


def test_there_is_no_reader_without_classes(capsys):
    images, attributes = np.zeros((9, 8, 8, 3), np.uint8), np.zeros((9, 4), np.uint8)
    data = ImageData("faces", "", *[images, attributes] * 3, n_classes=4)
    assert label_reader(data) is None
    assert "faces has attributes instead of classes" in capsys.readouterr().out
    data = ImageData("walls", "", *[images, attributes[:, 0]] * 3, n_classes=1)
    assert label_reader(data) is None
    assert "one class" in capsys.readouterr().out


def test_items_are_chosen_evenly():
    assert evenly(np.arange(10), 4).tolist() == [0, 3, 6, 9]
    assert evenly(np.arange(3), 4).tolist() == [0, 1, 2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A semi-supervised run on the digits, long enough for the decoder to obey."""
    directory = tmp_path_factory.mktemp("labels") / "run"
    words = ["--model", "semi_supervised", "--data", "digits", "--n_z", "4", "--num_samples", "200"]
    words += ["--n_hidden", "128", "--n_epoch", "14", "--batch_size", "32", "--PARR", "True"]
    assert main.main(["main.py", "--run_dir", str(directory), *words]) == 0
    return directory


def test_a_trained_decoder_obeys_the_label(trained, digits, reader):
    """Without the joint discriminator and the cycle the label is obeyed for a part of the styles only."""
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["label_swap_accuracy"] > 0.9
    assert metrics["generated_label_accuracy"] > 0.9
    # The model that was saved is the one that was measured.
    model = load_model(trained)
    assert labels_shown(model, None, digits.validation_labels) == ITSELF
    figures = label_figures(model, model.encode(digits.test_images), ITSELF, reader)
    for name, value in figures.items():
        assert metrics[name] == pytest.approx(value), name


def test_a_semi_supervised_run_leaves_everything(trained, digits):
    for name in ["config.json", "flags.txt", "history.csv", "metrics.json", "model.keras"]:
        assert (trained / name).stat().st_size > 0
    for name in ["reconstructions", "samples", "curves", "scatter_classes", "styles", "confusion"]:
        assert cv2.imread(str(trained / "plots" / f"{name}.png")).std() > 5, name

    config = json.loads((trained / "config.json").read_text())
    labelled = config["labelled_indices"]
    assert labelled == sorted(set(labelled))
    assert np.bincount(digits.train_labels[labelled]).tolist() == [20] * 10

    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["labelled_images"] == 200
    wrong = load_model(trained).classify(digits.test_images).argmax(axis=1) != digits.test_labels
    assert metrics["test_error_percent"] == pytest.approx(100 * np.mean(wrong))
    assert 0 <= metrics["mean_entropy_of_predictions"] <= metrics["entropy_of_mean_prediction"] <= np.log(10)
    assert "test_component_accuracy" not in metrics
    rows = read_history(trained / "history.csv")
    assert {"d_loss", "cycle_loss", "label_loss", "ce_learning_rate"} <= rows[0].keys()


def test_the_test_split_is_read_at_the_end_alone(trained):
    rows = read_history(trained / "history.csv")
    assert {"val_error_percent", "val_label_swap_accuracy"} <= rows[0].keys()
    assert not [name for name in rows[0] if "test" in name]
    metrics = json.loads((trained / "metrics.json").read_text())
    assert 0 <= metrics["validation_error_percent"] < 95
    assert rows[-1]["val_error_percent"] == pytest.approx(metrics["validation_error_percent"])


def test_tensorboard_has_the_final_figures(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"final/label_swap_accuracy", "final/generated_label_accuracy", "final/test_error_percent"} <= tags
    assert {"val_error_percent", "styles"} <= tags


def test_styles_are_drawn_without_a_flag(trained):
    assert os.path.getsize(trained / "plots" / "styles.png") > 0

"""What a run says: a line an epoch, the meaning of its figures, whether it fits into memory."""

import json
import re

import numpy as np
import pytest
import tensorflow as tf

import main
from evaluation import plots, report
from training import memory
from training.progress import EpochLines, duration, epoch_line
from utils.errors import UserError

METRICS = {
    "test_reconstruction_mse": 0.02345,
    "prior_distance": 0.047,
    "prior_distance_floor": 0.0138,
    "wall_seconds": 660.0,
    "train_images_per_second": 1234.4,
}


def test_figures_in_words():
    lines = report.summary(METRICS)
    assert "prior distance 0.047, 3.4 times what two samples of it differ by" in lines
    of_training = report.summary(METRICS | {"train_prior_distance": 0.0207})
    assert f"{lines[1]} (training images 1.5 times)" in of_training
    assert "trained in 11.0 minutes, at 1234 images a second" in lines
    assert not any("label" in line or "component" in line for line in lines)
    of_labels = {
        "test_error_percent": 2.114,
        "validation_error_percent": 2.5,
        "chosen_clusters": 15.0,
        "label_swap_accuracy": 0.9861,
        "label_swap_accuracy_worst": 0.97,
        "generated_label_accuracy": 0.974,
        "generated_label_accuracy_worst": 0.95,
        "test_component_accuracy": 0.93,
        "component_accuracy_ceiling": 0.984,
    }
    text = "\n".join(report.summary(METRICS | of_labels))
    for words in (
        "test error 2.11 %",
        "15 clusters hold",
        "clusters obeyed by 98.6 % of the styles of test images (worst cluster 97.0 %)",
        "clusters obeyed by 97.4 % of the samples (worst cluster 95.0 %)",
        "98.4 %",
    ):
        assert words in text
    del of_labels["chosen_clusters"]
    assert "labels obeyed by 97.4 % of the samples (worst label 95.0 %)" in report.summary(
        METRICS | of_labels
    )


def test_only_pictures_that_are_there_are_named(tmp_path):
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "samples.png").touch()
    lines = report.where_to_look(tmp_path)
    assert str(tmp_path) in lines[0]
    assert [line.split()[0] for line in lines[1:]] == ["plots/samples.png"]


@pytest.mark.parametrize(
    "logs",
    [
        {"d_loss": 1.386, "g_loss": 0.693, "val_component_accuracy": 0.934},
        {"d_z_loss": 1.386, "d_y_loss": 1.386, "g_loss": 0.693, "val_error_percent": 2.5},
        {"d_loss": 1.1, "g_loss": 1.3, "val_error_percent": 2.5, "val_label_swap_accuracy": 0.99},
        {
            "d_z_loss": 1.386,
            "d_y_loss": 1.386,
            "g_loss": 0.693,
            "val_error_percent": 2.5,
            "val_label_swap_accuracy": 0.99,
        },
    ],
)
def test_a_line_about_an_epoch_is_short_and_begins_with_what_matters(logs):
    logs |= {"val_reconstruction_mse": 0.0235, "ae_learning_rate": 1e-3, "label_loss": 0.1, "cycle_loss": 0.2}
    line = epoch_line(99_999, 99_999, logs, 35_000.0)
    assert len(line) <= 120
    assert line.endswith("9.7 h left")
    headline = line.split(": ")[1].split(",")[0]
    assert headline in ("component accuracy 93.4 %", "validation error 2.50 %")
    # A figure that does not fit is left out, not cut.
    for n_epochs in (1, 10, 100, 1000, 99_999):
        figures = epoch_line(n_epochs, n_epochs, logs, 35_000.0).split(": ")[1].split(", ")[:-1]
        assert all(
            re.fullmatch(r"[A-Za-z_ ]+ (\d+\.\d+ %|\d\.\d\d(\d\d)?|1\.0e-03)", part) for part in figures
        )


def test_times_are_said_as_people_do():
    assert [duration(s) for s in (5.2, 99, 700, 7200)] == ["5 s", "99 s", "12 min", "2.0 h"]


def test_tracing_is_no_training(monkeypatch, make_model):
    """The first call takes 9 seconds, of which it traces 8; the next 4 take one each."""
    now = [0.0]
    monkeypatch.setattr("training.progress.time.perf_counter", lambda: now[0])
    lines, model = EpochLines(1, images_per_step=10, quiet=True), make_model()
    lines.set_model(model)
    lines.on_epoch_begin(0)
    for call in range(5):
        now[0] += 9 if call == 0 else 1
        model.step.assign_add(2)
        lines.on_train_batch_end(2 * call + 1)
        if call == 0:
            assert lines.images_per_second == pytest.approx(2 * 10 / 9)  # all there is
    assert lines.images_per_second == pytest.approx(8 * 10 / 4)


def test_an_impossible_model_is_refused_with_the_numbers(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 2 * 10**9)
    words = ["--data", "digits", "--n_hidden", "60000", "--run_dir", str(tmp_path / "run")]
    assert main.main(["main.py", *words]) == 2
    error = capsys.readouterr().err
    assert "2.0 GB of memory are free" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "line", ["", "--network conv --n_z 10", "--model semi_supervised --n_z 10 --cycle false"]
)
def test_the_estimate_is_that_of_the_model(line, make_model):
    """Within a tenth of the variables of model and optimizers, and the largest gradient."""
    from training.fit import build_model

    config = main.read_config(["main.py", *line.split(), "--n_hidden", "300"])
    from data.loading import load_data

    data = load_data("digits")
    model = build_model(config, data)
    optimizers = [getattr(model, f"{phase}_optimizer") for phase in model.phases]
    variables = [v for owner in (model, *optimizers) for v in owner.variables]
    held = sum(4 * int(tf.size(v.value)) for v in variables)
    gradients = max(sum(4 * int(tf.size(v.value)) for v in phase) for phase in model.phases.values())
    estimate = memory.training_bytes(config, data.image_shape, data.n_classes)
    assert estimate == pytest.approx(held + gradients, rel=0.1)


def test_there_is_memory():
    assert memory.available_bytes() > 10**7
    with pytest.raises(UserError, match="GB of memory are free"):
        memory.refuse_what_cannot_fit(main.read_config(["", "--n_hidden", "65536"]), (10**4, 10**4, 3), 10)


def test_codes_outside_of_the_plane_are_seen(tmp_path):
    """An empty plane would say nothing."""
    codes = np.random.default_rng(0).normal(size=(200, 2)) + 100
    plots.save_codes(tmp_path / "outside.png", codes, np.arange(200) % 10, 3.0, "")
    plots.save_codes(tmp_path / "inside.png", codes - 100, np.arange(200) % 10, 6.0, "")
    import cv2

    def blue(name):  # the points of the inset
        picture = cv2.imread(str(tmp_path / name)).astype(int)[400:, 300:]
        return int(((picture[..., 0] - picture[..., 2]) > 60).sum())

    assert blue("outside.png") > 200


def test_no_title_is_cut(tmp_path):
    import cv2

    for title, note in (("wide " * 40, ""), ("", "wide " * 40)):
        plots.save_image_grid(tmp_path / "grid.png", np.ones((4, 8, 8, 1)), 2, title, note)
        picture = cv2.imread(str(tmp_path / "grid.png"))
        assert (picture[:, :3] == 255).all()
        assert (picture[:, -3:] == 255).all()


def test_resuming_a_complete_run_says_so(tmp_path, capsys):
    words = ["--data", "digits", "--n_hidden", "8", "--n_epoch", "1", "--run_dir", str(tmp_path / "run")]
    assert main.main(["main.py", *words]) == 0
    first = capsys.readouterr().out
    assert "epoch 1/1: MSE " in first
    assert "reconstruction error 0." in first
    assert "plots/reconstructions.png" in first
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    words = ["--run_dir", str(tmp_path / "run"), "--likelihood", "--likelihood_samples", "200"]
    assert main.main(["main.py", "--resume", *words]) == 0
    output = capsys.readouterr().out
    assert "The training is complete, 1 epochs" in output
    again = json.loads((tmp_path / "run" / "metrics.json").read_text())
    # What it measures in addition, of 784 pixels; all else stays, the speed of the training too.
    assert -1000 < again["log_likelihood"] < 1000
    assert f"log-likelihood {again['log_likelihood']:.1f} +- " in output
    assert metrics.items() <= again.items()

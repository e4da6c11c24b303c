"""Whole runs through main.py, on the embedded digits unless said otherwise."""

import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT, needs_mnist

import main
from models import load_model
from priors import PRIORS
from utils.callbacks import read_history

SMALL = ["--data", "digits", "--n_hidden", "32", "--n_epoch", "2"]
FILES = ["config.json", "flags.txt", "history.csv", "metrics.json", "model.keras"]
PLANAR_PICTURES = ["prior.png", "codes.png", "manifold.png", "manifold_components.png"]


def run(directory, *words):
    return main.main(["main.py", "--run_dir", str(directory), *words])


def weights(directory):
    return [np.asarray(variable.value) for variable in load_model(directory).variables]


@pytest.mark.parametrize("prior", PRIORS)
def test_a_run_leaves_everything(tmp_path, capsys, prior):
    assert run(tmp_path / "run", *SMALL, "--prior", prior, "--n_z", "2", "--PMLR", "True") == 0
    directory = tmp_path / "run"
    for name in FILES:
        assert (directory / name).stat().st_size > 0
    for name in ["reconstructions.png", "samples.png", "curves.png", *PLANAR_PICTURES]:
        # Figures, not blank sheets.
        assert cv2.imread(str(directory / "plots" / name)).std() > 5, name
    assert [path.name for path in sorted((directory / "plots" / "previews").iterdir())] == [
        "codes_00001.png",
        "samples_00001.png",
    ]
    assert len(list((directory / "checkpoints").iterdir())) == 2
    # Nothing half-written is left behind.
    assert not list(directory.rglob("*.tmp*"))

    metrics = json.loads((directory / "metrics.json").read_text())
    assert 0 < metrics["test_reconstruction_mse"] < 0.3
    assert 0 <= metrics["test_component_accuracy"] <= 1
    assert metrics["component_accuracy_ceiling"] > 0.95
    assert metrics["prior_distance"] > metrics["prior_distance_floor"] > 0
    assert metrics["train_images_per_second"] > 0
    assert metrics["data"]["name"] == "digits"
    config = json.loads((directory / "config.json").read_text())
    assert config["flags"]["prior"] == prior
    assert config["data"] == metrics["data"]
    assert str(directory) in capsys.readouterr().out

    rows = read_history(directory / "history.csv")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[0]["ae_learning_rate"] == pytest.approx(1e-3)
    assert rows[0]["d_learning_rate"] == pytest.approx(2e-4)
    assert rows[1]["reconstruction_loss"] < rows[0]["reconstruction_loss"]
    assert load_model(directory).generate(4, label=3).shape == (4, 28, 28, 1)


def test_seed_a_command_that_crashed_there(tmp_path):
    """--prior gaussian --n_z 20: no plane to draw, no label regions to be accurate about."""
    assert run(tmp_path / "run", *SMALL, "--prior", "gaussian", "--n_z", "20") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "test_component_accuracy" not in metrics
    assert not any((tmp_path / "run" / "plots" / name).exists() for name in PLANAR_PICTURES)


def test_flags_txt_repeats_the_run_and_another_seed_does_not(tmp_path):
    words = [*SMALL, "--prior", "swiss_roll", "--n_z", "4", "--n_epoch", "1", "--seed", "5"]
    assert run(tmp_path / "first", *words) == 0
    flagfile = f"--flagfile={tmp_path / 'first' / 'flags.txt'}"
    assert run(tmp_path / "again", flagfile) == 0
    assert run(tmp_path / "other", flagfile, "--seed", "6") == 0
    first, again, other = (weights(tmp_path / name) for name in ("first", "again", "other"))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    kernels = [i for i, weight in enumerate(first) if weight.ndim == 2]
    assert not any(np.array_equal(first[i], other[i]) for i in kernels)


def test_resume_equals_the_uninterrupted_run(tmp_path):
    words = [*SMALL, "--prior", "gaussian_mixture", "--n_z", "2"]
    assert run(tmp_path / "whole", *words, "--n_epoch", "3") == 0
    assert run(tmp_path / "parts", *words, "--n_epoch", "1") == 0
    assert run(tmp_path / "parts", "--resume", "--n_epoch", "3") == 0
    for a, b in zip(weights(tmp_path / "whole"), weights(tmp_path / "parts"), strict=True):
        np.testing.assert_array_equal(a, b)
    whole, parts = ((tmp_path / name / "history.csv").read_text() for name in ("whole", "parts"))
    assert whole == parts
    # A run that was killed after its last epoch still gets its pictures; epochs cannot be taken back.
    (tmp_path / "parts" / "metrics.json").unlink()
    assert run(tmp_path / "parts", "--resume") == 0
    figures = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "parts")]
    for name in ("test_reconstruction_mse", "prior_distance", "test_component_accuracy"):
        assert figures[0][name] == figures[1][name]
    before = (tmp_path / "parts" / "config.json").read_text()
    assert run(tmp_path / "parts", "--resume", "--n_epoch", "2") == 2
    assert (tmp_path / "parts" / "config.json").read_text() == before


def test_tensorboard_shows_scalars_pictures_and_histograms(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert run(tmp_path / "run", *SMALL, "--prior", "gaussian_mixture", "--n_z", "2") == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"d_loss", "g_loss", "val_reconstruction_mse", "ae_learning_rate", "codes"} <= tags
    assert {"preview/samples", "preview/codes", "reconstructions", "samples"} <= tags
    assert [event.step for event in events.Tensors("d_loss")] == [1, 2]


def test_diverging_training_stops_with_one_line(tmp_path, capsys):
    words = ["--prior", "gaussian_mixture", "--n_z", "2", "--lr_start", "1e30"]
    assert run(tmp_path / "run", *SMALL, *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "NaN or infinite in epoch 1" in lines[0]
    assert "--lr_start" in lines[0]
    assert not (tmp_path / "run" / "model.keras").exists()
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_substitute_is_announced_everywhere(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("data.loading._reachable", lambda host: False)
    (tmp_path / "empty").mkdir()
    words = ["--data_dir", str(tmp_path / "empty"), "--n_hidden", "8", "--n_epoch", "1"]
    assert run(tmp_path / "run", *words) == 0
    assert "SUBSTITUTE DATA" in capsys.readouterr().out
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert "SUBSTITUTE DATA" in config["data"]["note"]
    # The note is red, and nothing else in this picture is.
    picture = cv2.imread(str(tmp_path / "run" / "plots" / "samples.png")).astype(int)
    assert ((picture[..., 2] - picture[..., 0]) > 100).any()


def test_colour_images(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("data_batch_1.bin", 200), ("test_batch.bin", 40)):
        records = rng.integers(0, 256, (count, 3073), np.uint8)
        records[:, 0] = np.arange(count) % 10
        (tmp_path / name).write_bytes(records.tobytes())
    words = ["--data", "CIFAR_10", "--data_dir", str(tmp_path), "--n_hidden", "16", "--n_epoch", "1"]
    assert run(tmp_path / "run", *words) == 0
    assert load_model(tmp_path / "run").generate(2).shape == (2, 32, 32, 3)


@needs_mnist
def test_mnist_from_the_shell(tmp_path):
    """A short real run, as a user types it."""
    command = [sys.executable, "main.py", "--model", "supervised", "--prior", "gaussian_mixture"]
    command += ["--n_z", "2", "--data", "MNIST", "--n_epoch", "2", "--n_hidden", "300"]
    command += ["--run_dir", str(tmp_path / "run")]
    result = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["data"]["test_images"] == 10_000
    # The mean image alone has an error of 0.067.
    assert metrics["test_reconstruction_mse"] < 0.062
    # Chance is 0.1.
    assert metrics["test_component_accuracy"] > 0.4

    # A fresh process needs to know nothing but where the run is.
    script = f"from models import load_model; print(load_model({str(tmp_path / 'run')!r}).generate(2).shape)"
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout == "(2, 28, 28, 1)\n", result.stderr[-2000:]


@pytest.mark.slow
@needs_mnist
@pytest.mark.parametrize("prior", ["gaussian_mixture", "swiss_roll"])
def test_mnist_codes_find_their_component(tmp_path, prior):
    words = ["--data", "mnist", "--prior", prior, "--n_z", "2", "--n_epoch", "5"]
    assert run(tmp_path / "run", *words) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test_component_accuracy"] > 0.90

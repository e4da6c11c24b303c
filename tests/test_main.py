"""Whole runs through main.py, on the embedded digits unless said otherwise."""

import builtins
import contextlib
import gc
import io
import json
import os
import shutil
import subprocess
import sys

import chaos
import cv2
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT, needs_mnist

import main
from data.loading import load_data
from evaluation.figures import reconstruction_mse
from models import load_model
from training.history import read_history
from training.label_reader import label_reader
from training.run import prepare_run
from training.schedules import count_plateaus

SMALL = ["--data", "digits", "--n_hidden", "32", "--batch_size", "128", "--n_epoch", "2"]
PLANAR = ["--n_z", "2", "--PMLR", "True", "--prior"]
FILES = ["config.json", "flags.txt", "history.csv", "metrics.json", "model.keras"]
PLANAR_PICTURES = ["prior.png", "codes.png", "manifold.png", "manifold_components.png"]


def run(directory, *words):
    return main.main(["main.py", "--run_dir", str(directory), *words])


def weights(directory):
    return [np.asarray(variable.value) for variable in load_model(directory).variables]


@pytest.fixture(scope="module")
def planar(tmp_path_factory):
    """A run whose code is a plane, to be read by several tests, and what it printed."""
    directory, output = tmp_path_factory.mktemp("planar") / "run", io.StringIO()
    with contextlib.redirect_stdout(output):
        assert run(directory, *SMALL, *PLANAR, "gaussian_mixture") == 0
    return directory, output.getvalue()


def test_a_run_leaves_everything(planar):
    assert_everything_is_there(*planar, "gaussian_mixture")


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["gaussian", "swiss_roll"])
def test_a_run_with_another_prior_leaves_everything(tmp_path, capsys, prior):
    assert run(tmp_path / "run", *SMALL, *PLANAR, prior) == 0
    assert_everything_is_there(tmp_path / "run", capsys.readouterr().out, prior)


def assert_everything_is_there(directory, output, prior):
    for name in FILES:
        assert (directory / name).stat().st_size > 0
    pictures = ["reconstructions", "samples", "curves", "interpolations", "neighbours", "outliers"]
    for name in [*(f"{picture}.png" for picture in pictures), *PLANAR_PICTURES]:
        # Figures, not blank sheets.
        assert cv2.imread(str(directory / "plots" / name)).std() > 5, name
    assert [path.name for path in sorted((directory / "plots" / "previews").iterdir())] == [
        "codes_00001.png",
        "samples_00001.png",
    ]
    # Twenty steps share one.
    assert [path.name for path in (directory / "checkpoints").iterdir()] == ["epoch_00002.keras"]
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
    assert str(directory) in output

    rows = read_history(directory / "history.csv")
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[0]["ae_learning_rate"] == pytest.approx(1e-3)
    assert rows[0]["d_learning_rate"] == pytest.approx(2e-4)
    assert rows[1]["reconstruction_loss"] < rows[0]["reconstruction_loss"]
    assert load_model(directory).generate(4, label=3).shape == (4, 28, 28, 1)


def test_a_scenario_of_the_second_seed_leaves_everything(tmp_path):
    """With small widths, and the learning rate falling after every epoch that brings nothing."""
    words = [f"--flagfile={ROOT / 'configs' / 'freiburg_3_mnist_conv_y.flags'}", "--data", "digits"]
    words += ["--conv_widths", "4,8,8", "--d_hidden", "16", "--lr_patience", "1", "--n_epoch", "3"]
    words += ["--n_z", "3", "--traversal_axes", "3", "--PARR"]
    assert run(tmp_path / "run", *words) == 0
    plots = tmp_path / "run" / "plots"
    for name in ["samples.png", "styles.png", "scatter_classes.png", "scatter_logits.png"]:
        assert cv2.imread(str(plots / name)).std() > 5, name
    animations = {f"traversal_z3_label_{label}.png" for label in range(10)} | {"style.png"}
    assert {path.name for path in (plots / "animations").iterdir()} == animations
    rows = read_history(tmp_path / "run" / "history.csv")
    assert {"d_skipped", "g_skipped"} <= rows[0].keys()
    # The rate of each epoch follows from the errors of those before.
    for epoch, row in enumerate(rows):
        falls = count_plateaus([earlier["val_reconstruction_mse"] for earlier in rows[:epoch]], 1)
        assert row["g_learning_rate"] == pytest.approx(2e-4 / 5**falls)
    # model.keras makes what was measured, so batch norm's averages are in it.
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    digits, model = load_data("digits"), load_model(tmp_path / "run")
    error = reconstruction_mse(model, digits.test_images, digits.test_labels)
    assert error == pytest.approx(metrics["test_reconstruction_mse"], rel=1e-6)


@pytest.mark.slow
def test_plateau_schedule_survives_resume(tmp_path):
    """With so small a rate the error never falls, so the rate does, again and again."""
    words = [*SMALL[:4], "--model", "unsupervised", "--n_z", "3", "--balance"]
    words += ["--lr_schedule", "plateau", "--lr_patience", "2", "--lr_start", "1e-9", "--lr_floor", "3e-11"]
    assert run(tmp_path / "whole", *words, "--n_epoch", "6") == 0
    assert run(tmp_path / "parts", *words, "--n_epoch", "3") == 0
    assert run(tmp_path / "parts", "--resume", "--n_epoch", "6") == 0
    histories = [read_history(tmp_path / name / "history.csv") for name in ("whole", "parts")]
    assert histories[0] == histories[1]
    rates = [row["ae_learning_rate"] for row in histories[0]]
    assert rates == pytest.approx([1e-9, 1e-9, 1e-9, 2e-10, 2e-10, 4e-11], rel=1e-3)


@pytest.mark.parametrize("count", ["9", "1320"])
def test_impossible_numbers_of_labels_are_refused(tmp_path, capsys, count):
    words = ["--model", "semi_supervised", "--num_samples", count]
    assert run(tmp_path / "run", *SMALL, *words) == 2
    assert "from 10, one per class, to 1319, all" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("count", [10, 1319])
def test_from_one_label_per_class_to_all(tmp_path, count):
    words = ["--model", "semi_supervised", "--num_samples", f"{count}", "--recipe", "paper"]
    words += ["--data", "digits", "--run_dir", str(tmp_path / "run")]
    prepared = prepare_run(main.read_config(["main.py", *words]))
    with prepared.lock:
        config = json.loads((tmp_path / "run" / "config.json").read_text())
        assert config["labelled_indices"] == prepared.labelled.tolist()
        assert len(config["labelled_indices"]) == count
        assert config["flags"]["optimizer"] == "sgd"


@pytest.mark.slow
def test_unsupervised_run(tmp_path):
    words = ["--model", "unsupervised", "--prior", "swiss_roll", "--n_z", "2", "--PMLR", "True"]
    assert run(tmp_path / "run", *SMALL, *words) == 0
    for name in ["samples.png", "codes.png", "manifold.png"]:
        assert cv2.imread(str(tmp_path / "run" / "plots" / name)).std() > 5, name
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "test_component_accuracy" not in metrics
    assert "test_error_percent" not in metrics


@pytest.mark.slow
def test_flags_txt_repeats_the_run_and_another_seed_does_not(tmp_path, planar):
    first, _ = planar
    flagfile = f"--flagfile={first / 'flags.txt'}"
    assert run(tmp_path / "again", flagfile) == 0
    assert run(tmp_path / "other", flagfile, "--seed", "6", "--PMLR", "False") == 0
    assert chaos.differences(first, tmp_path / "again") == []
    differing = chaos.differences(first, tmp_path / "other")
    assert {"history.csv differs", "metrics.json differs"} <= set(differing)
    first, again, other = (weights(path) for path in (first, tmp_path / "again", tmp_path / "other"))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    kernels = [i for i, weight in enumerate(first) if weight.ndim == 2]
    assert not any(np.array_equal(first[i], other[i]) for i in kernels)


@pytest.mark.parametrize("damage", ["truncated", "another model"])
def test_resume_refuses_a_checkpoint_that_is_not_its_own(tmp_path, capsys, planar, damage):
    shutil.copytree(planar[0], tmp_path / "run")
    [path] = (tmp_path / "run" / "checkpoints").glob("*.keras")
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    else:
        shutil.copy(ROOT / "tests" / "old_run" / "model.keras", path)
    assert run(tmp_path / "run", "--resume", "--n_epoch", "3") == 2
    output = capsys.readouterr()
    assert output.err.startswith("main.py: error: ")
    assert output.err.count("\n") == 1
    assert path.name in output.out + output.err


def test_tensorboard_shows_scalars_pictures_and_histograms(planar):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(planar[0] / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"d_loss", "g_loss", "val_reconstruction_mse", "ae_learning_rate", "codes"} <= tags
    assert {"preview/samples", "preview/codes", "reconstructions", "samples"} <= tags
    assert [event.step for event in events.Tensors("d_loss")] == [1, 2]
    # Pictures are the files themselves; where all is grey, so is the file.
    path = planar[0] / "plots" / "samples.png"
    width, height, png = tf.make_ndarray(events.Tensors("samples")[0].tensor_proto)
    assert png == path.read_bytes()
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).shape == (int(height), int(width))
    assert cv2.imread(str(path.with_name("codes.png")), cv2.IMREAD_UNCHANGED).ndim == 3


def test_diverging_training_stops_with_one_line(tmp_path, capsys):
    words = ["--prior", "gaussian_mixture", "--n_z", "2", "--lr_start", "1e38"]
    assert run(tmp_path / "run", *SMALL, *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    # The first layer overflows, so the second adds infinities of both signs: NaN, whatever the kernel.
    assert "NaN or infinite in epoch 1, step 1, " in lines[0]
    assert "--lr_start" in lines[0]
    assert "no checkpoint yet" in lines[0]
    assert not (tmp_path / "run" / "model.keras").exists()
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.parametrize(("given", "taken"), [(None, "true"), ("false", "false")])
def test_gpu_memory_is_taken_as_needed_unless_the_user_says_otherwise(monkeypatch, given, taken):
    monkeypatch.setattr(os, "environ", {} if given is None else {"TF_FORCE_GPU_ALLOW_GROWTH": given})
    main.start_tensorflow()
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == taken


def test_figures_come_of_exact_products(tmp_path, monkeypatch):
    class Seen(Exception):
        pass

    def evaluate(*_):
        raise Seen(tf.config.experimental.tensor_float_32_execution_enabled())

    monkeypatch.setattr("training.fit.evaluate", evaluate)
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    with pytest.raises(Seen) as seen:
        run(tmp_path / "run", *SMALL, "--n_z", "2", "--prior", "gaussian")
    assert seen.value.args == (False,)
    assert tf.config.experimental.tensor_float_32_execution_enabled() == before


def test_scikit_learn_is_kept_from_keras_alone(monkeypatch):
    """What is None there cannot be imported: it must not stay."""
    seen = []
    monkeypatch.delitem(sys.modules, "sklearn", raising=False)
    listed = tf.config.list_physical_devices
    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda: seen.append(sys.modules.get("sklearn", 0)) or listed()
    )
    main.start_tensorflow()
    assert seen == [None]
    assert "sklearn" not in sys.modules


def test_python_looks_for_no_cycles_in_tensorflow(monkeypatch):
    """It is frozen once: a second time, what a finished run has left would be, and never be freed."""
    imported, enabled = builtins.__import__, []

    def import_again(name, *args):
        if name == "tensorflow":
            enabled.append(gc.isenabled())
            sys.modules.setdefault(name, tf)
        return imported(name, *args)

    monkeypatch.setattr(builtins, "__import__", import_again)
    monkeypatch.delitem(sys.modules, "tensorflow")
    kept, counts = [], [gc.get_freeze_count()]
    for _ in range(2):
        kept.append([[] for _ in range(1000)])
        main.start_tensorflow()
        counts.append(gc.get_freeze_count())
    assert enabled[0] is False
    assert gc.isenabled()
    assert counts[1] >= counts[0] + 1000
    assert counts[2] < counts[1] + 1000


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


def test_colour_images_and_a_command_that_crashed_the_first_seed(tmp_path):
    """--prior gaussian --n_z 20: no plane to draw, no label regions to be accurate about."""
    rng = np.random.default_rng(0)
    for name, count in (("data_batch_1.bin", 200), ("test_batch.bin", 40)):
        records = rng.integers(0, 256, (count, 3073), np.uint8)
        records[:, 0] = np.arange(count) % 10
        (tmp_path / name).write_bytes(records.tobytes())
    words = ["--data", "CIFAR_10", "--data_dir", str(tmp_path), "--n_hidden", "16", "--n_epoch", "1"]
    assert run(tmp_path / "run", *words, "--prior", "gaussian", "--n_z", "20") == 0
    assert load_model(tmp_path / "run").generate(2).shape == (2, 32, 32, 3)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "test_component_accuracy" not in metrics
    assert not any((tmp_path / "run" / "plots" / name).exists() for name in PLANAR_PICTURES)


@needs_mnist
def test_mnist_from_the_shell(tmp_path):
    """A short real run, as a user types it."""
    command = [sys.executable, "main.py", "--model", "supervised", "--prior", "gaussian_mixture"]
    command += ["--n_z", "2", "--data", "MNIST", "--n_epoch", "1", "--n_hidden", "300"]
    command += ["--run_dir", str(tmp_path / "run")]
    result = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["data"]["test_images"] == 10_000
    # The mean image alone has an error of 0.067.
    assert metrics["test_reconstruction_mse"] < 0.062
    # Chance is 0.1.
    assert metrics["test_component_accuracy"] > 0.4
    assert load_model(tmp_path / "run").generate(2).shape == (2, 28, 28, 1)


@pytest.mark.slow
@needs_mnist
@pytest.mark.parametrize("prior", ["gaussian_mixture", "swiss_roll"])
def test_mnist_codes_find_their_component(tmp_path, prior):
    words = ["--data", "mnist", "--prior", prior, "--n_z", "2", "--n_epoch", "5"]
    assert run(tmp_path / "run", *words) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test_component_accuracy"] > 0.90


@pytest.mark.slow
@needs_mnist
def test_a_conditional_model_obeys_the_label_by_default(tmp_path):
    words = ["--model", "conditional", "--data", "mnist", "--prior", "truncated_gaussian", "--n_z", "5"]
    assert run(tmp_path / "run", *words, "--n_hidden", "200", "--d_hidden", "200", "--n_epoch", "8") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert min(metrics["label_swap_accuracy"], metrics["generated_label_accuracy"]) > 0.85
    assert metrics["test_reconstruction_mse"] < 0.028


@pytest.mark.slow
@needs_mnist
def test_decoded_digits_are_those_of_their_label(tmp_path):
    """In the first seed the labels never reached the decoder: 'condition 0' was a page of 8s."""
    words = ["--model", "semi_supervised", "--data", "mnist", "--n_z", "2", "--num_samples", "5000"]
    words += ["--precision", "bfloat16"]
    assert run(tmp_path / "run", *words, "--n_epoch", "30", "--lr_mid_epoch", "22") == 0
    mnist, model = load_data("mnist", os.environ["AAE_DATA_DIR"]), load_model(tmp_path / "run")
    reader = label_reader(mnist)
    assert reader.test_error_percent < 2
    shares = [np.mean(reader.read(model.generate(1000, label=label)) == label) for label in range(10)]
    assert min(shares) >= 0.95, shares

import dataclasses
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

from benchmarks import report
from benchmarks.limit import add_scaled
from benchmarks.operations import optimizer_bytes, step_flops
from benchmarks.sizes import Size
from benchmarks.train_step import main
from models.fused_optimizers import FusedAdam

SHAPE = {"n_pixels": 64, "n_z": 2, "n_classes": 10, "n_hidden": 16}  # that of `make_model`


def test_operations_are_those_of_the_traced_train_function(make_model, batch):
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
    graph = make_model().make_train_function().get_concrete_function(iterator).graph
    assert matrix_product_flops(graph) == sum(step_flops(len(batch[0]), **SHAPE).values())


def matrix_product_flops(graph):
    """Operations of the MatMul nodes of a FuncGraph, and of the functions in it, that are executed.

    Tracing also leaves nodes that nothing depends on, which TensorFlow prunes.
    """
    flops, seen = 0, set()
    waiting = [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    while waiting:
        op = waiting.pop()
        if op.name in seen:
            continue
        seen.add(op.name)
        waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
        if op.type == "MatMul":
            summed = op.inputs[0].shape[0 if op.get_attr("transpose_a") else 1]
            flops += 2 * summed * op.outputs[0].shape.num_elements()
    return flops + sum(matrix_product_flops(function.graph) for function in graph._functions.values())


def test_bytes_are_those_of_three_adams():
    # 64-16-16-2, 2-16-16-64 and 12-16-16-1, with biases; AE and G both update the encoder.
    encoder, decoder, d = 65 * 16 + 17 * 16 + 17 * 2, 3 * 16 + 17 * 16 + 17 * 64, 13 * 16 + 17 * 16 + 17
    assert optimizer_bytes(**SHAPE) == 28 * (2 * encoder + decoder + d)


def test_triad_reaches_every_element():
    a, b = np.ones(100_000, np.float32), np.full(100_000, 1e6, np.float32)
    add_scaled((a, b))
    np.testing.assert_allclose(a, 2.0, rtol=1e-6)


@pytest.fixture
def torch_step():
    """Builds the step of the opponent for the model of `make_model`; keywords as of `TorchStep`."""
    pytest.importorskip("torch")
    from benchmarks.torch_step import TorchStep

    def make(keep_prob=0.9, d_noise=0.15, **kwargs):
        config = Size(SHAPE["n_hidden"], 40).config()
        config = dataclasses.replace(config, keep_prob=keep_prob, d_noise=d_noise)
        return TorchStep(config, SHAPE["n_pixels"], SHAPE["n_classes"], **kwargs)

    return make


def test_one_step_in_pytorch_is_one_step_here(make_model, torch_step, batch, monkeypatch):
    import torch

    images, labels = batch
    epsilon = 1e-5
    model = make_model(keep_prob=1.0, noise_std=0.0, d_noise=0.0)
    real = model.real_samples(labels, [1, 2])[0].numpy()
    monkeypatch.setattr(model, "real_samples", lambda labels, seed: [tf.constant(real)])
    rates = Size(16, 40).config().learning_rates(0)
    model.compile(**{f"{phase}_optimizer": FusedAdam(rate, epsilon=epsilon) for phase, rate in rates.items()})
    # PyTorch adds epsilon after the correction of the second moment, TensorFlow before.
    step = torch_step(keep_prob=1.0, d_noise=0.0, noise_std=0.0, epsilon=epsilon / math.sqrt(1 - 0.999))
    step.real_samples = lambda labels: torch.from_numpy(real)
    pairs = [
        (variable, parameter)
        for name in ("encoder", "decoder", "discriminator")
        for variable, parameter in zip(
            getattr(model, name).trainable_variables, getattr(step, name).parameters(), strict=True
        )
    ]
    before = [np.array(variable) for variable, _ in pairs]
    with torch.no_grad():
        for (_, parameter), value in zip(pairs, before, strict=True):
            parameter.copy_(torch.from_numpy(value.T))

    model.train_step(batch)
    step(torch.from_numpy(images), torch.from_numpy(labels).long())
    for (variable, parameter), value in zip(pairs, before, strict=True):
        assert np.abs(np.array(variable) - value).max() > 1e-4
        np.testing.assert_allclose(parameter.detach().numpy().T, variable, rtol=0, atol=1e-5)
    logged = [float(tracker.result()) for tracker in model.train_trackers]
    assert sorted(step.metrics.tolist()) == pytest.approx(sorted(logged), abs=1e-5)


def test_pytorch_computes_no_gradient_that_nobody_needs(torch_step, batch):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    step = torch_step()
    with FlopCounterMode(display=False) as counter:
        step(torch.from_numpy(batch[0]), torch.from_numpy(batch[1]).long())
    by_operation = counter.get_flop_counts()["Global"]
    products = sum(n for operation, n in by_operation.items() if "bmm" not in str(operation))  # the prior
    assert products == sum(step_flops(40, **SHAPE).values())


def test_ratios_are_medians_of_pairs():
    """The machine is ten times slower in the second round, for both."""
    blocks = [(1.0, 2.0), (10.0, 20.0), (1.0, 3.0)]
    rounds = [{"a": [{"seconds": a, "images": 6}], "b": [{"seconds": b, "images": 6}]} for a, b in blocks]
    assert report.paired_ratio(rounds, "a", "b") == pytest.approx(2.0)
    assert report.median_rate(rounds, "b") == pytest.approx(2.0)
    assert report.best_of(rounds, ["b", "a", "missing"]) == "a"


def test_verdicts():
    assert report.verdict(1.1, 1.2, 1.4) == "missed"
    assert report.verdict(1.2, 1.2, 1.4) == "met"
    assert report.verdict(1.4, 1.2, 1.4) == "aim reached"
    assert report.verdict(0.6, 0.5, 0.2, larger_is_better=False) == "missed"


@pytest.mark.parametrize(
    "words",
    [["--only", "stepp"], ["--rounds", "0"], ["--rounds", "x"], ["--fast"], ["--data_dir", "nowhere"]],
)
def test_user_errors_are_one_line(words, capsys):
    assert main(["train_step", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("train_step: error: ")
    assert error.count("\n") == 1


def run_quickly(results, sections):
    """Runs the command itself, with tiny models and without PyTorch: what it printed, and its JSON file."""
    command = [sys.executable, "-m", "benchmarks.train_step", "--quick", "--rounds", "1"]
    command += ["--only", sections, "--results", str(results)]
    environment = {**os.environ, "AAE_DATA_DIR": ""}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    (path,) = results.glob("*.json")
    return result.stdout, json.loads(path.read_text())


def test_steps_in_turn(tmp_path):
    printed, measured = run_quickly(tmp_path, "step,fit,pipeline,memory")
    (size,) = measured["sizes"]
    names = {"bare", "stock Adam", "bfloat16", "limit", "fit", "pipeline"}
    assert set(size["rounds"][0]) == set(size["images_per_second"]) == names
    assert len(size["rounds"][0]["bare"]) == 2
    assert size["ratios"]["bare / bare"] == 1
    assert set(size["left_out"]) == {"PyTorch eager", "PyTorch compiled"}
    assert all(peak > 1e8 for peak in size["peak_memory_bytes"].values())
    assert "without PyTorch eager" in printed
    assert "Images: random" in printed


@pytest.mark.slow
def test_start_and_scaling(tmp_path):
    _, measured = run_quickly(tmp_path, "startup,scaling")
    assert 0 < measured["startup"]["--help"]["median"] < measured["startup"]["first step"]["median"]
    assert [curve["x"] for curve in measured["scaling"]] == ["hidden units", "batch", "training images"]
    assert all(seconds > 0 for curve in measured["scaling"] for seconds in curve["seconds"])
    assert (tmp_path / "scaling.png").stat().st_size > 10_000

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
from benchmarks.cases import CASES, INFERENCE_BATCH, premade_batches, random_images
from benchmarks.limit import add_scaled
from benchmarks.operations import Layer, has_branches, networks, optimizer_bytes, step_flops
from benchmarks.tensorflow_steps import BareStep, FitEpochs, Reconstruct, captured_fit, held_and_chosen
from benchmarks.train_step import main, start_workers
from models import prediction
from models.phased_model import PhasedModel
from training.fit import build_model

# One case of each kind of step, as small as --quick makes it.
SHRUNK = {
    case.name: case.shrunk() for case in CASES if case.name not in ("digits", "h1000_batch512", "h3000")
}
IMAGES = random_images("random", (28, 28, 1), 600)


@pytest.fixture(scope="module", params=SHRUNK)
def case(request):
    """A configuration and its data."""
    case = SHRUNK[request.param]
    return case.config(), case.images(IMAGES)


@pytest.fixture(scope="module")
def graph(case):
    return traced_train_function(*case)


def traced_train_function(config, data):
    batch = tuple(array[0] for array in premade_batches(config, data))
    iterator = iter(tf.data.Dataset.from_tensors(batch).repeat())
    return build_model(config, data).make_train_function().get_concrete_function(iterator).graph


def test_operations_are_those_of_the_traced_train_function(case, graph):
    config, data = case
    needed = sum(step_flops(config, data.image_shape, data.n_classes).values())
    assert traced_flops(graph) == needed + beyond_need(config, data.n_classes)


def test_operations_of_the_consistency():
    case = SHRUNK["semi_supervised"]
    counted = [
        step_flops(case.with_flags(consistency=on).config(), (28, 28, 1), 10) for on in ("false", "true")
    ]
    # 784-16-16-10: forward and back, of the image and of its copy; the first layer's inputs need no gradient.
    layers = [784 * 16, 16 * 16, 16 * 10]
    expected = 2 * 2 * 32 * (sum(layers) + 2 * sum(layers) - layers[0])
    assert counted[1] == {**counted[0], "consistency": expected}
    config = case.with_flags(consistency="true", vat_radius="1").config()
    # Once forward and back to the copies, without gradients of weights.
    pushed = 2 * 32 * 2 * sum(layers)
    assert step_flops(config, (28, 28, 1), 10) == {**counted[1], "vat": pushed}
    # Clusters are learnt in the cycle only where there are no copies.
    clusters = dataclasses.replace(config, model="clustering", n_clusters=10)
    learned = step_flops(clusters, (28, 28, 1), 10)
    assert learned["consistency"] == expected
    assert learned["vat"] == pushed
    assert learned["cycle"] == counted[0]["cycle"]
    alone = step_flops(dataclasses.replace(clusters, consistency=False, vat_radius=0.0), (28, 28, 1), 10)
    assert alone["cycle"] == learned["cycle"] + 2 * 32 * sum(layers)


def test_operations_of_the_consistency_of_codes():
    case = SHRUNK["h1000"].with_flags(consistency="true")
    config, data = case.config(), case.images(IMAGES)
    needed = step_flops(config, data.image_shape, data.n_classes)
    # 784-16-16-2 of half of 32 images, whose copies are pushed.
    assert needed["vat"] == 2 * 16 * 2 * (784 * 16 + 16 * 16 + 16 * 2)
    traced = traced_flops(traced_train_function(config, data))
    assert traced == sum(needed.values()) + beyond_need(config, data.n_classes)


def beyond_need(config, n_classes):
    """Operations that TensorFlow adds, since a layer has one kernel for all its inputs and outputs.

    Where labels stand beside the code, they get a gradient too: in D, and in a conditional decoder. And the
    passes through the encoder for the labels alone take the style along, or the other way round.
    """
    batch = 2 * config.batch_size
    if config.model == "semi_supervised":
        cross_entropy = 3 * 2 * min(config.num_samples, config.batch_size) * config.n_hidden * config.n_z
        of_labels, of_styles = (
            2 * batch * config.n_hidden * config.n_z,
            batch // 2 * config.n_hidden * n_classes,
        )
        return cross_entropy + of_labels + of_styles
    # Where they pick an output they are no factor of any product.
    in_d = 0 if has_branches(config) else batch * n_classes * (config.d_hidden or config.n_hidden)
    if config.model == "supervised":
        return in_d
    # The decoder's first kernel covers the smallest feature map: half the side, since it has two widths.
    side = 14 if n_classes == 10 else 16
    return in_d + batch * n_classes * side**2 * 8


def traced_flops(graph, padding=False):
    """Operations of the products in a FuncGraph, and in the functions in it, that are executed.

    Tracing also leaves nodes that nothing depends on, which TensorFlow prunes. With `padding`, products
    with a padding's zeros count too. Sums over the batch, which bias gradients are, do not, although they
    are written as products with a row of ones.
    """
    flops, seen = 0, set()
    waiting = [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    while waiting:
        op = waiting.pop()
        if op.name in seen:
            continue
        seen.add(op.name)
        waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
        if op.type in ("MatMul", "BatchMatMulV2") and op.outputs[0].shape[-2] > 1:
            transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
            summed = op.inputs[0].shape[-2 if transposed else -1]
            flops += 2 * summed * op.outputs[0].shape.num_elements()
        elif "Conv" in op.type:
            flops += convolution_flops(op, padding)
    return flops + sum(traced_flops(function.graph, padding) for function in graph._functions.values())


def convolution_flops(op, padding):
    """Operations of a convolution, or of one of its two gradients, whose products are the same ones."""
    place = ["Conv2DBackpropInput", "Conv2DBackpropFilter", "Conv2D"].index(op.type)
    tensors = list(op.inputs)
    # Convolved are images and kernel to outputs; each of the three is the result of one type.
    tensors[place:] = [op.outputs[0], *tensors[place + 1 :]]
    images, kernel, outputs = tensors
    batch, height, width, _ = images.shape
    if padding:
        pairs = math.prod(outputs.shape[1:3]) * math.prod(kernel.shape[:2])
    else:
        # Each output of ones convolved with ones is the number of its pixels inside of the image.
        ones = tf.ones([1, height, width, 1]), tf.ones([*kernel.shape[:2], 1, 1])
        inside = tf.nn.conv2d(*ones, op.get_attr("strides"), op.get_attr("padding").decode())
        pairs = int(tf.reduce_sum(inside))
    return 2 * batch * pairs * math.prod(kernel.shape[2:])


def test_products_with_the_padding_are_left_out():
    # 3 taps over 4 pixels: the two at the ends have 2 of them inside; 4 taps, stride 2: 3 of 4 inside.
    assert Layer(5, 7, kernel=3, stride=1, side=4).products == 5 * 7 * (2 + 3 + 3 + 2) ** 2
    assert Layer(5, 7, kernel=4, stride=2, side=4).products == 5 * 7 * (3 + 3) ** 2
    assert Layer(5, 7, kernel=4, stride=4, side=4).products == 5 * 7 * 4**2
    assert Layer(5, 7).products == 5 * 7


def test_bytes_are_those_of_the_optimizers():
    def bytes_of(name, shape, n_classes):
        return optimizer_bytes(SHRUNK[name].config(), shape, n_classes)

    # 64-16-16-2, 2-16-16-64 and 2-16-16-10, with biases; AE and G both update the encoder with Adam.
    encoder, decoder, d = 65 * 16 + 17 * 16 + 17 * 2, 3 * 16 + 17 * 16 + 17 * 64, 3 * 16 + 17 * 16 + 17 * 10
    assert bytes_of("h1000", (8, 8, 1), 10) == 28 * (2 * encoder + decoder + d)
    # 64-16-16-20 three times, 20-16-16-64 twice, and 20-16-16-1, with SGD.
    encoder, decoder, d = 65 * 16 + 17 * 16 + 17 * 20, 21 * 16 + 17 * 16 + 17 * 64, 21 * 16 + 17 * 16 + 17
    assert bytes_of("semi_supervised", (8, 8, 1), 10) == 20 * (3 * encoder + 2 * decoder + d)
    # 3 x 3 x 1 x 4, 4 x 4 x 4 x 8, 4 x 4 x 8 x 5 and back from 15, with biases and two norms each.
    encoder = 10 * 4 + (64 + 1) * 8 + (128 + 1) * 5 + 2 * (4 + 8)
    decoder = (240 + 1) * 8 + (128 + 1) * 4 + 37 + 2 * (8 + 4)
    d = 16 * 500 + 501 * 500 + 501
    assert bytes_of("conv28", (8, 8, 1), 10) == 28 * (2 * encoder + decoder + d)


def test_weights_are_those_of_the_models(case):
    config, data = case
    model = build_model(config, data)
    encoder, decoder, discriminators = networks(config, data.image_shape, data.n_classes)
    lists = [encoder, decoder, *discriminators]
    for layers, network in zip(
        lists, [model.encoder, model.decoder, *model.discriminators.values()], strict=True
    ):
        assert sum(layer.weights for layer in layers) == sum(
            math.prod(variable.shape) for variable in network.trainable_variables
        )


def test_triad_reaches_every_element():
    a, b = np.ones(100_000, np.float32), np.full(100_000, 1e6, np.float32)
    add_scaled((a, b))
    np.testing.assert_allclose(a, 2.0, rtol=1e-6)


@pytest.fixture
def torch_step():
    """Builds the step of the opponent."""
    pytest.importorskip("torch")
    from benchmarks.torch_step import STEPS

    def make(config, data, **kwargs):
        return STEPS[config.model](config, data.image_shape, data.n_classes, **kwargs)

    return make


def torch_order(value):
    """A kernel of Keras (H, W, I, O), (H, W, O, I) if transposed, or (I, O), with PyTorch's order of axes."""
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def paired_weights(model, step):
    """Each variable of the model and the parameter of PyTorch that is the same."""
    theirs = [step.encoder, step.decoder, *step.discriminators]
    pairs = []
    for network, stack in zip(
        [model.encoder, model.decoder, *model.discriminators.values()], theirs, strict=True
    ):
        norms = [module for module in stack if "BatchNorm" in type(module).__name__]
        others = [module for module in stack if module not in norms]
        parameters = [parameter for module in [*others, *norms] for parameter in module.parameters()]
        pairs += zip(network.trainable_variables, parameters, strict=True)
    return pairs


@pytest.mark.parametrize(
    ("name", "last_losses", "further"),
    [
        *((name, (0.69, 0.69), {}) for name in SHRUNK),
        ("conv28", (0.4, 1.0), {}),  # D waits
        ("conv28", (1.0, 0.4), {}),  # G waits
        ("conv28", (0.69, 0.69), {"d_penalty": 3}),
        ("h1000", (0.69, 0.69), {"d_penalty": 3}),
    ],
)
def test_one_step_in_pytorch_is_one_step_here(name, last_losses, further, torch_step, monkeypatch):
    import torch

    case = SHRUNK[name].with_flags(keep_prob=1, d_noise=0, noised="false", init_std=0, **further)
    config, data = case.config(), case.images(IMAGES)
    epsilon = 1e-5
    model = build_model(config, data)
    # PyTorch adds epsilon after the correction of the second moment, TensorFlow before.
    step = torch_step(config, data, epsilon=epsilon / math.sqrt(1 - 0.999))
    for phase, rate in config.learning_rates(0).items():
        optimizer = getattr(model, f"{phase}_optimizer")
        optimizer.learning_rate, optimizer.epsilon = rate, epsilon
    model.last_losses.assign(last_losses)
    step.last_losses = last_losses
    batch = tuple(array[0] for array in premade_batches(config, data))
    reals = model.real_samples(batch[1], [1, 2])
    monkeypatch.setattr(model, "real_samples", lambda labels, seed: reals)
    step.real_samples = lambda labels: [torch.from_numpy(np.array(real)) for real in reals]
    if limit := config.d_distortion:
        seed = tf.random.fold_in(tf.random.fold_in(model.step_seeds(config.seed, 1)[0], 4), 3)
        draws = tf.random.stateless_uniform([6, 16], seed, -limit, limit).numpy()
        step.distortion_draws = lambda count: torch.from_numpy(draws.T.reshape(16, 2, 3).copy())
    if config.model == "semi_supervised":
        drawn, labels = np.array(model.prior.sample(16, [3, 4])), np.arange(32) % 10
        monkeypatch.setattr(model.prior, "sample", lambda *args: drawn)
        monkeypatch.setattr(model.prior, "sample_labels", lambda *args: labels)
        step.cycle_draws = lambda *args: (torch.from_numpy(drawn), torch.from_numpy(labels))
    pairs = paired_weights(model, step)
    before = [np.array(variable) for variable, _ in pairs]
    with torch.no_grad():
        for (_, parameter), value in zip(pairs, before, strict=True):
            parameter.copy_(torch.from_numpy(torch_order(value)))

    model.train_step(batch)
    step(*map(as_tensor, batch))
    d_waits = last_losses == (0.4, 1.0)
    # A ReLU of the small conv28 lies within rounding of its kink, and the processor decides on which side it
    # falls: PyTorch's own steps in float32 and in float64 differ by 1.8 % of a kernel's move.
    tolerance = 0.03 if config.network == "conv" else 0.01
    for (variable, parameter), value in zip(pairs, before, strict=True):
        moved = np.linalg.norm(variable - value)
        if value.ndim > 1:
            assert (moved == 0) == (d_waits and variable.path.startswith("discriminator"))
        # A bias before batch norm has no gradient but what rounding leaves: so the second term.
        difference = np.linalg.norm(torch_order(np.array(variable)) - parameter.detach().numpy())
        assert difference < tolerance * moved + 1e-6, variable.path
    logged = [float(tracker.result()) for tracker in model.train_trackers]
    assert step.metrics.tolist() == pytest.approx(logged, abs=1e-4)


def test_pytorch_reconstructs_what_is_reconstructed_here(case, tmp_path):
    torch = pytest.importorskip("torch")
    from benchmarks.torch_step import Reconstruct as TorchReconstruct
    from benchmarks.torch_step import reconstructed

    config, data = case
    assert INFERENCE_BATCH == prediction.INFERENCE_BATCH
    (name,) = (name for name, other in SHRUNK.items() if other.config() == config)
    ours, theirs = (kind(SHRUNK[name], data, tmp_path) for kind in (Reconstruct, TorchReconstruct))
    with torch.no_grad():
        for variable, parameter in paired_weights(ours.model, theirs.step):
            parameter.copy_(torch.from_numpy(torch_order(np.array(variable))))
        images = reconstructed(theirs.step, theirs.images[:7], theirs.labels[:7])
    expected = ours.model.reconstruct(ours.images[:7], ours.labels[:7])
    if images.ndim == 4:
        images = images.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(images.reshape(expected.shape), expected, atol=1e-3)
    assert ours.run(0)["images"] == theirs.run(0)["images"] == len(data.train_images)


def as_tensor(array):
    import torch

    return torch.from_numpy(array) if array.ndim == 4 else torch.from_numpy(array).long()


def test_pytorch_computes_no_gradient_that_nobody_needs(case, graph, torch_step):
    from torch.utils.flop_counter import FlopCounterMode

    config, data = case
    step = torch_step(config, data)
    with FlopCounterMode(display=False) as counter:
        step(*(as_tensor(array[0]) for array in premade_batches(config, data)))
    by_operation = counter.get_flop_counts()["Global"]
    products = sum(n for operation, n in by_operation.items() if "bmm" not in str(operation))  # the prior
    assert products == traced_flops(graph, padding=True)


@pytest.mark.parametrize(
    ("batch_size", "steps"),
    [
        pytest.param(32, 10, id="two calls of five"),
        pytest.param(9, 7, id="fit takes single steps, since an epoch has 61"),
    ],
)
def test_bare_step_counts_the_images_of_whole_calls(batch_size, steps, tmp_path):
    bare = BareStep(SHRUNK["h1000"].with_flags(batch_size=batch_size), IMAGES, tmp_path)
    before = int(bare.model.step)
    assert bare.run(7)["images"] == steps * batch_size
    assert int(bare.model.step) - before == steps


def test_bare_step_finds_the_premade_batches_among_what_it_holds(case):
    premade = premade_batches(*case)
    held, batches = held_and_chosen(premade)
    for i in range(len(premade[0])):
        gathered = PhasedModel._gathered({name: chosen[i] for name, chosen in batches.items()}, held)
        assert len(gathered) == len(premade)
        for found, expected in zip(gathered, premade, strict=True):
            np.testing.assert_array_equal(found, expected[i])


def test_ratios_are_medians_of_pairs():
    """The machine is ten times slower in the second round, for both."""
    blocks = [(1.0, 2.0), (10.0, 20.0), (1.0, 3.0)]
    rounds = [{"a": [{"seconds": a, "images": 6}], "b": [{"seconds": b, "images": 6}]} for a, b in blocks]
    assert report.paired_ratio(rounds, "a", "b") == pytest.approx(2.0)
    assert report.median_rate(rounds, "b") == pytest.approx(2.0)
    assert report.best_of(rounds, ["b", "a", "missing"]) == "a"


@pytest.mark.parametrize(
    ("instructions", "case", "expected"),
    [
        (("avx2",), "h3000", {"PyTorch best": 1.40, "limit": 0.90}),
        (("avx2", "avx512f"), "h3000", {"PyTorch best": 1.55, "limit": 0.90}),
        (("avx2", "avx512f", "avx512_bf16"), "h3000", {"PyTorch best": 1.55, "limit": 0.90, "bare": 1.35}),
        (("avx2",), "conv28", {"PyTorch best": 1.25}),
        (("avx2",), "conv32", {"PyTorch best": 1.15}),
    ],
)
def test_targets_are_those_of_the_kind_of_processor(instructions, case, expected, monkeypatch):
    monkeypatch.setattr(report.processor, "instructions", lambda: instructions)
    config = next(one for one in CASES if one.name == case).config()
    of_steps = [t for t in report.TARGETS if t.holds_for(config) and t.contender in ("bare", "bfloat16")]
    assert {target.reference: target.at_least for target in of_steps} == expected


def test_verdicts():
    assert report.verdict(1.1, 1.2, 1.4) == "missed"
    assert report.verdict(1.2, 1.2, 1.4) == "met"
    assert report.verdict(1.4, 1.2, 1.4) == "aim reached"
    assert report.verdict(0.6, 0.5, 0.2, larger_is_better=False) == "missed"


@pytest.mark.parametrize(
    "words",
    [
        ["--only", "stepp"],
        ["--cases", "conv2"],
        ["--rounds", "0"],
        ["--rounds", "x"],
        ["--fast"],
        ["--data_dir", "nowhere"],
    ],
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


def test_fit_is_measured_as_users_get_it(tmp_path):
    case = SHRUNK["h1000"]
    model, arguments = captured_fit(case.config(), case.images(IMAGES), tmp_path)
    assert model.step == 0
    assert arguments["steps_per_epoch"] == len(case.images(IMAGES).train_images) // case.config().batch_size
    assert "Previews" in [type(callback).__name__ for callback in arguments["callbacks"]]


def test_short_epochs_are_measured_from_checkpoint_to_checkpoint(tmp_path):
    case = {case.name: case for case in CASES}["digits"].shrunk()
    contender = FitEpochs(case, case.images(IMAGES), tmp_path)
    # 1,319 images are 41 steps: three epochs share a checkpoint, fifteen a preview.
    assert contender.run(0)["images"] == 3 * 41 * 32
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch_00006.keras"]
    previews = {path.name for path in (tmp_path / "plots" / "previews").iterdir()}
    assert previews == {"samples_00015.png", "codes_00015.png"}


@pytest.mark.parametrize(
    ("name", "in_hardware", "gpus", "measured"),
    [
        ("conv28", True, (), True),
        ("conv28", False, (), False),
        ("conv28", False, ("NVIDIA A",), True),
        ("h1000", False, (), True),
    ],
)
def test_what_says_nothing_on_this_machine_is_left_out(monkeypatch, name, in_hardware, gpus, measured):
    class Idle:
        def __init__(self, target, options):
            pass

        def ask(self, *words):
            pass

        def answer(self):
            pass

    monkeypatch.setattr("benchmarks.train_step.Worker", Idle)
    monkeypatch.setattr("utils.processor.multiplies_bfloat16", lambda: in_hardware)
    monkeypatch.setattr("utils.processor.gpus", lambda: gpus)
    workers, left_out = start_workers(SHRUNK[name], None, {"step"}, quick=True)
    # Convolutions in bfloat16 take minutes in software; the limit is measured on the processor.
    assert ("bfloat16" in workers) == measured == ("bfloat16" not in left_out)
    assert ("limit" in workers) == (not gpus) == ("limit" not in left_out)


@pytest.mark.slow
def test_steps_in_turn(tmp_path):
    printed, measured = run_quickly(tmp_path, "step,fit,pipeline,inference,memory")
    (case,) = measured["cases"]
    names = {"bare", "stock optimizer", "bfloat16", "limit", "fit", "pipeline", "reconstruct"}
    assert set(case["rounds"][0]) == set(case["images_per_second"]) == names
    assert len(case["rounds"][0]["bare"]) == 2
    assert case["ratios"]["bare / bare"] == 1
    assert set(case["left_out"]) == {"PyTorch eager", "PyTorch compiled", "PyTorch reconstruct"}
    assert all(peak > 1e8 for peak in case["peak_memory_bytes"].values())
    assert "without PyTorch eager" in printed
    assert "Images: random" in printed


@pytest.mark.slow
def test_start_and_scaling(tmp_path):
    _, measured = run_quickly(tmp_path, "startup,scaling")
    waited = {name: times["median"] for name, times in measured["startup"].items()}
    assert 0 < waited["--help"] < min(waited["first step"], waited["first step, streamed"])
    assert 0 < waited["figures and pictures"] < waited["with animations, digits"]
    assert [curve["x"] for curve in measured["scaling"]] == ["hidden units", "batch", "training images"]
    assert all(seconds > 0 for curve in measured["scaling"] for seconds in curve["seconds"])
    assert (tmp_path / "scaling.png").stat().st_size > 10_000

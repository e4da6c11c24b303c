"""Exported models, read by processes that do not know this project."""

import contextlib
import functools
import importlib.util
import io
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT

import main
from models import export as exporting
from models import load_model
from utils.errors import UserError

needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("tf2onnx", "onnxruntime")),
    reason="requirements-export.txt is not installed",
)
FORMATS = ["saved_model", pytest.param("onnx", marks=needs_onnx)]
KINDS = {
    "unsupervised": {"prior": "gaussian", "n_z": 3},
    "supervised": {"prior": "gaussian_mixture"},
    "semi_supervised": {"prior": "gaussian", "n_z": 3},
    "conditional": {"prior": "truncated_gaussian", "attributes": True, "n_classes": 4},
}
QUICK, SLOW = ["conditional"], ["unsupervised", "supervised", "semi_supervised"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A copy of a trained run of a semi-supervised model, one that comes with the project."""
    return shutil.copytree(ROOT / "examples" / "mnist_styles", tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def exported(run):
    """Exports the run to a format, once; returns it."""

    @functools.cache
    def export(format):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            assert main.main(["main.py", "--export", format, "--run_dir", str(run)]) == 0
        assert re.search(r"agree with the model within \d\.\de-0[6-9]", output.getvalue())
        return run

    return export


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", [*QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW)])
def test_every_part_agrees_with_the_model(make_model, tmp_path, kind, format):
    model = make_model(model=kind, precision="bfloat16" if kind == "supervised" else "float32", **KINDS[kind])
    differences = model.export(tmp_path / "out", format)
    names = {"encoder", "encoder_uint8", "decoder", "generator"}
    if kind == "semi_supervised":
        names |= {"classifier", "classifier_uint8"}
    assert differences.keys() == names
    assert max(differences.values()) < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


ALONE = {
    "saved_model": """
import tensorflow as tf
parts = tf.saved_model.load(folder).signatures
def use(name, **inputs):
    (output,) = parts[name](**{key: tf.constant(value) for key, value in inputs.items()}).values()
    return output.numpy()
new = use("generator", count=np.int32(7), seed=np.int32(5), label=np.int32(2))
""",
    "onnx": """
import onnxruntime
def use(name, **inputs):
    return onnxruntime.InferenceSession(f"{folder}/{name}.onnx").run(None, inputs)[0]
numbers = np.arange(7)
new = use("generator", numbers=numbers, labels=numbers * 0 + 2)
""",
}
CHECKS = """
for count in (1, 1000):
    images, codes, rows = (given[name][:count] for name in ("images", "codes", "rows"))
    found = [
        ("images_codes", use("encoder_uint8", images=images)),
        ("images_codes", use("encoder", images=images.astype(np.float32) / 255)),
        ("probabilities", use("classifier_uint8", images=images)),
        ("probabilities", use("classifier", images=images.astype(np.float32) / 255)),
        ("decoded", use("decoder", codes=codes, labels=rows)),
    ]
    for name, output in found:
        assert np.abs(output - given[name][:count]).max() < 1e-5, name
assert np.abs(new - given["generated"]).max() < 1e-5
"""
# The card's example follows.
AFTER = """
assert again.shape == new.shape == (2, 28, 28, 1) and codes.shape == (2, 10)
import sys
assert not {"models", "priors", "utils", "training"} & set(sys.modules)
"""


@pytest.mark.parametrize("format", FORMATS)
def test_a_process_without_this_project_gets_the_same(exported, tmp_path, format):
    """On 1,000 images, from the command line to the files; the card's example runs, too."""
    run = exported(format)
    there = tmp_path / "there"
    shutil.copytree(run / "export" / format, there)
    model = load_model(run)
    images = np.random.default_rng(0).integers(0, 256, (1000, 28, 28, 1), np.uint8)
    codes, labels = model.sample_prior(1000, seed=1)
    generated = model.generate(7, 2, seed=5)
    if format == "onnx":
        generated = model.decode(model.sample_prior(10_000, seed=0)[0][:7], [2] * 7)
    given = {
        "images": images,
        "images_codes": model.encode(images),
        "probabilities": model.classify(images),
        "codes": codes,
        "rows": np.eye(10, dtype=np.float32)[labels],
        "decoded": model.decode(codes, labels),
        "generated": generated,
    }
    np.savez(there / "given.npz", **given)
    example = re.search(r"```python\n(.*?)```", (there / "README.md").read_text(), re.DOTALL)[1]
    begin = "import numpy as np\nfolder, given = 'model', dict(np.load('given.npz'))\n"
    command = [sys.executable, "-c", begin + ALONE[format] + CHECKS + example + AFTER]
    done = subprocess.run(command, cwd=there, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("format", FORMATS)
def test_the_card_says_what_hubs_read(exported, format):
    run = exported(format)
    card = (run / "export" / format / "README.md").read_text()
    front = dict(line.split(": ", 1) for line in card.split("---")[1].strip().splitlines())
    assert json.loads(front["datasets"]) == ["mnist"]
    assert front["license"] == "mit"
    assert {"adversarial-autoencoder", "semi_supervised", "gaussian"} <= set(json.loads(front["tags"]))
    assert "| test_error_percent |" in card
    assert "--num_samples=1000" in card
    assert str(run) not in card
    assert "data_dir" not in card


def refusal(capsys, *words):
    assert main.main(["main.py", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_what_cannot_be_exported_is_one_line(run, tmp_path, capsys, monkeypatch):
    assert "onnx or saved_model" in refusal(capsys, "--export", "tflite", "--run_dir", str(run))
    assert "needs the --run_dir" in refusal(capsys, "--export", "onnx")
    assert "--n_z has no effect" in refusal(capsys, "--export", "onnx", "--run_dir", str(run), "--n_z", "2")
    assert "is no folder" in refusal(capsys, "--export", "saved_model", "--run_dir", str(tmp_path / "absent"))
    (tmp_path / "empty").mkdir()
    assert "holds no run" in refusal(capsys, "--export", "saved_model", "--run_dir", str(tmp_path / "empty"))
    shutil.copy(run / "config.json", tmp_path / "empty")
    message = refusal(capsys, "--export", "saved_model", "--run_dir", str(tmp_path / "empty"))
    assert "no trained model yet" in message
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "requirements-export.txt" in refusal(capsys, "--export", "onnx", "--run_dir", str(run))


def test_what_the_converters_raise_is_one_line(run, capsys, monkeypatch):
    def fail(parts, folder):
        raise RuntimeError("no such operation\nand more")

    monkeypatch.setitem(exporting.WRITERS, "saved_model", (fail, None))
    message = refusal(capsys, "--export", "saved_model", "--run_dir", str(run))
    assert "cannot become saved_model: no such operation" in message
    assert not list((run / "export").glob(".*"))


def test_mistakes_are_found_before_tensorflow(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import main;"
        "assert main.main(['main.py', '--export', 'saved_model', '--run_dir', sys.argv[2]]) == 2;"
        "assert 'tensorflow' not in sys.modules"
    )
    command = [sys.executable, "-c", code, str(ROOT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_part_that_differs_is_not_kept(make_model, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "TOLERANCE", -1.0)
    with pytest.raises(UserError, match="nothing is kept"):
        make_model().export(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_parts_are_compared_with_exact_products(make_model, tmp_path, monkeypatch):
    inexact, difference = [], exporting._difference

    def noted(*arguments):
        inexact.append(tf.config.experimental.tensor_float_32_execution_enabled())
        return difference(*arguments)

    monkeypatch.setattr(exporting, "_difference", noted)
    make_model().export(tmp_path / "out")
    assert inexact
    assert not any(inexact)


def test_another_format_is_a_value_error(make_model, tmp_path):
    with pytest.raises(ValueError, match="saved_model or onnx, got 'h5'"):
        make_model().export(tmp_path / "out", "h5")

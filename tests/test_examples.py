"""The models and the notebook that come with the project."""

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT

import main
from evaluation import compare
from experiments.experiment import settings_of
from training.saved_config import read_saved_config

EXAMPLES = ROOT / "examples"
NAMES = ("mnist_2d", "mnist_styles")
# What docs/outputs.md tells the users of a notebook, run where another module has the name of one of ours.
ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
from models import load_model
import numpy as np
with np.load(sys.argv[1] + "/examples/mnist_test.npz") as file:
    images, labels = file["x_test"], file["y_test"]
plane = load_model(sys.argv[1] + "/examples/mnist_2d")
print(np.mean(plane.prior.classify(plane.encode(images)).numpy() == labels))
styled = load_model(sys.argv[1] + "/examples/mnist_styles")
print(np.mean(styled.classify(images).argmax(axis=1) == labels))
swapped = styled.decode(np.repeat(styled.encode(images[:50]), 10, axis=0), np.tile(np.arange(10), 50))
print(np.mean(styled.classify(swapped).argmax(axis=1) == np.tile(np.arange(10), 50)))
print(len(plane.optimizers if hasattr(plane, "optimizers") else []), plane.encoder.weights[0].dtype)
"""


def test_the_models_work_from_any_directory(tmp_path):
    (tmp_path / "utils.py").write_text("raise ImportError('another utils')")
    command = [sys.executable, "-c", ELSEWHERE, str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    placed, read, obeyed, kind = done.stdout.splitlines()
    assert float(placed) > 0.9
    assert float(read) > 0.95
    assert float(obeyed) > 0.95
    assert kind.endswith("float32")


@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_small_says_its_figures_and_names_no_place(name):
    folder = EXAMPLES / name
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_500_000
    metrics = json.loads((folder / "metrics.json").read_text())
    card = (folder / "README.md").read_text()
    for figure in re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", card, re.MULTILINE):
        assert f"{metrics[figure[0]]:.4g}" == figure[1]
    assert card.count("| `") >= 4
    assert "CC BY-SA 3.0" in card
    config = json.loads((folder / "config.json").read_text())
    assert config["flags"]["run_dir"] == config["flags"]["data_dir"] == ""
    for path in files:
        content = path.read_bytes()
        assert b"/work" not in content
        assert b"/home" not in content


@pytest.mark.parametrize("name", NAMES)
def test_the_command_of_an_example_still_has_its_settings(name):
    card = (EXAMPLES / name / "README.md").read_text()
    (command,) = re.findall(r"^`python (main\.py .*)`$", card, re.MULTILINE)
    saved, _ = read_saved_config(EXAMPLES / name)
    assert settings_of(main.read_config(shlex.split(command))) == settings_of(saved)


def test_the_examples_can_be_compared(tmp_path, capsys):
    words = [str(EXAMPLES / name) for name in NAMES]
    assert compare.main(["compare", *words, "--out", str(tmp_path)]) == 0
    assert "| --model | supervised | semi_supervised |" in capsys.readouterr().out


def test_the_notebook_is_stored_without_outputs():
    cells = json.loads((EXAMPLES / "tour.ipynb").read_text())["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    monkeypatch.delenv("AAE_DATA_DIR", raising=False)
    notebook = nbformat.read(EXAMPLES / "tour.ipynb", 4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(EXAMPLES)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    text = "".join(output.get("text", "") for output in outputs)
    (placed,) = re.findall(r"([\d.]+)% of the codes", text)
    (obeyed,) = re.findall(r"given in (\d+)% of them", text)
    assert float(placed) > 90
    assert float(obeyed) > 90
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 6
    errors = [float(number) for number in re.findall(r"reconstruction error ([\d.]+)", text)]
    assert errors == sorted(errors)
    assert np.diff(errors).min() > 0

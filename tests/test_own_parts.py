"""Priors and models of the user's own, named on the command line: `--prior package.module:Class`."""

import importlib
import json
import sys

import numpy as np
import pytest

import main
from models import load_model
from priors import PRIORS
from priors.prior import Prior, check_prior
from training.export import prepare_export
from utils import registry

MODULE = """
import keras
import numpy as np
import tensorflow as tf
from models.supervised import SupervisedAAE
from models.unsupervised import UnsupervisedAAE
from models.semi_supervised import SemiSupervisedAAE
from priors.prior import Prior


class Ring(Prior):
    @property
    def uses_labels(self):
        return False

    def sample(self, count, seed, labels=None):
        angles = tf.random.stateless_uniform([count], seed, 0, 2 * np.pi)
        return 2 * tf.stack([tf.cos(angles), tf.sin(angles)], axis=1)


class Restless(Ring):
    def sample(self, count, seed, labels=None):
        return tf.random.normal([count, 2])


@keras.saving.register_keras_serializable(package="aae")
class QuietAAE(UnsupervisedAAE):
    def fake_samples(self, codes, labels, seed):
        return (0 * codes,)


class UnnamedAAE(UnsupervisedAAE):
    pass


class HalfAAE(SemiSupervisedAAE):
    pass


number = 3
"""
RING, QUIET = "mine.parts:Ring", "mine.parts:QuietAAE"


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A package of the user's in the working directory, which has not been imported yet."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("")
    (tmp_path / "mine" / "parts.py").write_text(MODULE)
    (tmp_path / "mine" / "broken.py").write_text("import no_such_module")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    forget()
    yield tmp_path
    forget()


def forget():
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


def run(*words):
    return main.main(["main.py", *words])


def refusal(capsys, *words):
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    return error


def test_a_run_with_classes_of_ones_own(mine, capsys):
    own = ["--prior", RING, f"--model={QUIET}", "--run_dir", "run"]
    assert run(*own, "--data", "digits", "--n_hidden", "16", "--n_z", "2", "--n_epoch", "1") == 0
    config = json.loads((mine / "run" / "config.json").read_text())
    assert (config["flags"]["prior"], config["flags"]["model"]) == (RING, QUIET)
    model = load_model("run")
    assert type(model).__name__ == "QuietAAE"
    np.testing.assert_allclose(np.linalg.norm(model.sample_prior(9, seed=1)[0], axis=1), 2, rtol=1e-5)
    # It goes on, and leaves the program, only where the command line names the code.
    assert run("--resume", "--n_epoch", "2", *own) == 0
    capsys.readouterr()
    assert f"--prior {RING} is code" in refusal(capsys, "--resume", "--run_dir", "run")
    (mine / "x.flags").write_text(f"--prior={RING}\n--model={QUIET}\n")
    assert "is code" in refusal(capsys, "--resume", "--run_dir", "run", "--flagfile=x.flags")
    assert f"add --prior {RING}" in refusal(capsys, "--export", "saved_model", "--run_dir", "run")
    assert prepare_export(main.read_config(["main.py", "--export", "saved_model", *own]))[0].prior == RING


def test_no_model_file_imports_code(mine, make_model, monkeypatch):
    monkeypatch.syspath_prepend(mine)
    make_model(prior=RING, model="unsupervised").save("model.keras")
    forget()
    with pytest.raises(ValueError, match=r"its prior is mine\.parts:Ring: import mine\.parts first"):
        load_model("model.keras")
    assert "mine" not in sys.modules
    importlib.import_module("mine.parts")
    assert load_model("model.keras").n_z == 2


MISTAKES = {
    "--prior absent.module:Ring": "there is no module absent.module",
    "--prior mine.absent:Ring": "there is no module mine.absent",
    "--prior mine.parts.absent:Ring": "there is no module mine.parts.absent",
    "--prior mine.parts:Absent": "cannot be imported",
    "--prior mine.broken:Ring": "no_such_module",
    "--prior mine.parts:number": "is no subclass of priors.prior.Prior",
    "--prior mine.parts:QuietAAE": "is no subclass of priors.prior.Prior",
    "--model mine.parts:Ring": "is no subclass of models.adversarial_autoencoder",
    "--model mine.parts:UnnamedAAE": "register_keras_serializable",
    "--model mine.parts:HalfAAE": "semi-supervised",
    "--prior mine.parts:Restless": "does not depend on its seed alone",
    "--prior mine.parts:Ring --n_z 3": "sample returns float32 (100, 2), not float32 (100, 3)",
    "--prior mine/parts:Ring": "is not one of",
    "--prior :Ring": "is not one of",
}


@pytest.mark.parametrize(("line", "mentioned"), MISTAKES.items())
def test_mistakes_are_one_line(mine, capsys, line, mentioned):
    words = [*line.split(), *([] if "--n_z" in line else ["--n_z", "2"])]
    assert mentioned in refusal(capsys, *words, "--data", "digits", "--run_dir", "run")
    assert not (mine / "run").exists()


@pytest.mark.parametrize("name", PRIORS)
@pytest.mark.parametrize("n_z", [2, 6])
def test_the_priors_of_the_program_keep_what_is_asked_of_them(name, n_z):
    check_prior(registry.load(PRIORS, name)(n_z, 10))


def test_a_prior_that_breaks_it():
    class Wrong(Prior):
        def sample(self, count, seed, labels=None):
            return np.full((count, self.n_z), np.nan, np.float32)

    with pytest.raises(ValueError, match="not finite"):
        check_prior(Wrong(2, 10))

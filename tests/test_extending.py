"""What users add costs one class or function and one registry line: each is added here from outside."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import main
from data import DATASETS
from data.image_data import ImageData
from evaluation import figures, pictures, plots
from models import MODELS, NETWORKS, RECONSTRUCTIONS, load_model
from models.layers import Dense
from models.networks import DenseNetwork
from models.unsupervised import UnsupervisedAAE
from priors import PRIORS
from priors.prior import Prior
from training.settings import Config
from utils.settings import setting


class Ring(Prior):
    """Codes on a circle of radius 2."""

    @property
    def uses_labels(self):
        return False

    def sample(self, count, seed, labels=None):
        angles = tf.random.stateless_uniform([count], seed, 0, 2 * np.pi)
        return 2 * tf.stack([tf.cos(angles), tf.sin(angles)], axis=1)


@keras.saving.register_keras_serializable(package="aae")
class QuietAAE(UnsupervisedAAE):
    """D sees nothing but zeros."""

    def fake_samples(self, codes, labels, seed):
        return (0 * codes,)


@keras.saving.register_keras_serializable(package="aae")
class OneLayer(DenseNetwork):
    """A network of a single layer."""

    def stack(self):
        return [self.layer(Dense, int(np.prod(self.out_shape)), last=True)]


ONE_LAYER = OneLayer, OneLayer


def stripes(folders):
    """Images of one column each, whose number is the label."""
    labels = np.arange(120, dtype=np.uint8) % 4
    images = np.zeros((120, 8, 8, 1), np.uint8)
    images[np.arange(120), :, 2 * labels] = 255
    pair = images, labels
    return ImageData.from_official_split("stripes", "made up", pair, pair, n_classes=4)


def absolute_error(images, reconstructions):
    """Mean absolute error."""
    return tf.reduce_mean(tf.abs(images - reconstructions))


def brightness(of):
    """Mean of the reconstructions."""
    return {"brightness": float(of.model.reconstruct(of.data.test_images).mean())}


def darkest(of):
    """The darkest samples."""
    images = of.model.decode(of.fixed_codes)
    plots.save_image_grid(of.plots / "darkest.png", images[np.argsort(images.mean(axis=(1, 2, 3)))], 10, "")


@pytest.fixture
def added(monkeypatch):
    """One of each, each by one line."""
    monkeypatch.setitem(PRIORS, "ring", f"{__name__}:Ring")
    monkeypatch.setitem(MODELS, "quiet", f"{__name__}:QuietAAE")
    monkeypatch.setitem(DATASETS, "stripes", f"{__name__}:stripes")
    monkeypatch.setitem(NETWORKS, "one_layer", f"{__name__}:ONE_LAYER")
    monkeypatch.setitem(RECONSTRUCTIONS, "absolute", f"{__name__}:absolute_error")
    monkeypatch.setattr(figures, "FIGURES", [*figures.FIGURES, brightness])
    monkeypatch.setattr(pictures, "PICTURES", [*pictures.PICTURES, darkest])


def test_one_of_each_from_outside(added, tmp_path):
    words = ["--prior", "ring", "--model", "quiet", "--data", "stripes", "--network", "one_layer"]
    words += ["--reconstruction", "absolute", "--n_z", "2", "--batch_size", "50", "--n_epoch", "1"]
    assert main.main(["main.py", "--run_dir", str(tmp_path / "run"), *words]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 < metrics["brightness"] < 1
    assert metrics["data"]["name"] == "stripes"
    assert (tmp_path / "run" / "plots" / "darkest.png").stat().st_size > 0
    model = load_model(tmp_path / "run")
    assert isinstance(model, QuietAAE)
    assert len(model.encoder.stacked) == 1
    radii = np.linalg.norm(model.sample_prior(100, seed=1)[0], axis=1)
    np.testing.assert_allclose(radii, 2, rtol=1e-5)


def test_a_setting_is_one_line():
    """It becomes a flag with help, a limit, a place in the saved configuration and an argument."""
    import dataclasses

    from training.help import help_text
    from utils import flags
    from utils.errors import UserError
    from utils.settings import check

    @dataclasses.dataclass(frozen=True)
    class More(Config):
        temperature: float = setting(1.0, "Of the softmax.", "model", above=0)

    assert flags.read(More, ["--temperature", "0.5"]).values["temperature"] == 0.5
    with pytest.raises(UserError, match=r"--temperature must be above 0, got -1\.0"):
        check(More(temperature=-1.0))
    assert "temperature" in dataclasses.asdict(More())
    assert "--keep_prob" in help_text()

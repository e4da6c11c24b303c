"""Files that an earlier version wrote, in tests/old_run: they load, compute what they did, and go on."""

import shutil

import numpy as np
from conftest import ROOT

import main
from data.loading import load_data
from models import load_model
from models.semi_supervised import SemiSupervisedAAE
from models.supervised import SupervisedAAE
from training.history import read_history

OLD_RUN = ROOT / "tests" / "old_run"


def test_an_old_model_computes_what_it_did():
    model = load_model(OLD_RUN)
    codes = model.encode(load_data("digits").test_images[:3])
    np.testing.assert_allclose(
        codes, [[5.088194, 17.916763], [5.929498, 20.785994], [4.352599, 15.389850]], 1e-4
    )
    pixels = model.decode([[0, 0], [1, -1]])[:, 10, 10:13, 0]
    expected = [[0.522378, 0.487681, 0.490594], [0.514622, 0.486171, 0.489651]]
    np.testing.assert_allclose(pixels, expected, rtol=1e-4)


def test_an_old_run_goes_on(tmp_path):
    """Although the digits differ by a grey level from those that OpenCV gave that processor."""
    directory = shutil.copytree(OLD_RUN, tmp_path / "run")
    assert main.main(["main.py", "--resume", "--run_dir", str(directory), "--n_epoch", "3"]) == 0
    rows, old = read_history(directory / "history.csv"), read_history(OLD_RUN / "history.csv")
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [{name: row[name] for name in old[0]} for row in rows[:2]] == old
    assert int(load_model(directory).step) == 3 * (1319 // 50)


def test_what_did_not_exist_then_is_not_done_now(make_model):
    """A semi-supervised model of before had two discriminators and no cycle."""
    config = make_model("gaussian", 3, model="semi_supervised").get_config()
    for name in ("joint_discriminator", "cycle", "noised"):
        del config[name]
    config |= {
        "conv_widths": [16, 32],
        "noise_std": 0.0,
        "trainable": True,
        "dtype": {"class_name": "DTypePolicy"},
    }
    model = SemiSupervisedAAE.from_config(config)
    assert list(model.discriminator_shapes) == ["discriminator_z", "discriminator_y"]
    assert "cycle" not in model.phases
    assert model.settings.conv_widths == "16,32"
    assert model.settings.input_noise == 0


def test_labels_were_input_of_d(make_model):
    config = make_model(model="supervised", d_label="output").get_config()
    del config["d_label"]
    assert SupervisedAAE.from_config(config).discriminator.stack_input_shape == (2 + 10,)

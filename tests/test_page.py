"""The report of a run, its commands, and what TensorBoard gets of it: one trained run, on data with names."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import tensorflow as tf
from conftest import ROOT
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

import main
from evaluation import animations, meanings, page
from evaluation.labels import class_name, plain_name
from training.commands import named_flags

NAMES = ("<b>zero</b>", "one & only", "two\ttabs", "three", 'f"our')


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run in a directory whose name has to be escaped, resumed once: 3 epochs."""
    folder = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 5
    images = rng.integers(0, 50, (120, 8, 8), np.uint8) + (40 * labels[:, None, None]).astype(np.uint8)
    pair = {"x_train": images, "y_train": labels, "x_test": images[:60], "y_test": labels[:60]}
    np.savez(folder / "named.npz", class_names=np.array(NAMES), **pair)
    directory = folder / "a <run> & more"
    words = (
        "--n_hidden 16 --batch_size 40 --model dimensionality_reduction --num_samples 50 --n_z 2 --n_epoch 2"
    )
    words = ["--data", "npz", "--data_dir", str(folder / "named.npz"), "--n_epoch", "2", *words.split()]
    assert main.main(["main.py", *words, "--run_dir", str(directory)]) == 0
    assert main.main(["main.py", "--resume", "--n_epoch", "3", "--run_dir", str(directory)]) == 0
    return directory


class Reader(HTMLParser):
    """Tags with their attributes, and all text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_the_page_has_all_and_needs_nothing(run):
    text = (run / "report.html").read_text()
    read = Reader(text)
    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "link", "iframe", "b"})
    images = [attrs["src"] for tag, attrs in read.tags if tag == "img"]
    assert len(images) == len(list((run / "plots").glob("*.png")))
    assert all(src.startswith("data:image/") for src in images)
    assert all(attrs["alt"] for tag, attrs in read.tags if tag == "img")
    links = [attrs["href"] for tag, attrs in read.tags if tag == "a"]
    assert all(link.startswith("plots/") and (run / link).exists() for link in links)
    assert not re.search(r"url\(|@import|https?://", text)
    metrics = json.loads((run / "metrics.json").read_text())
    for name in metrics:
        assert name == "data" or name in read.text
    shown = ("0 <b>zero</b>", "1 one & only", "2 two?tabs", '4 f"our', "a <run> & more")
    for words in (*shown, "--resume", "load_model("):
        assert words in read.text
    assert not list(run.glob(".report*"))


def test_a_large_picture_is_shrunk_and_what_does_not_fit_is_linked(tmp_path, monkeypatch):
    (tmp_path / "plots").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (400, 1600, 3), np.uint8)
    for name in ("samples", "curves", "own"):
        cv2.imwrite(str(tmp_path / "plots" / f"{name}.png"), noise)
    (tmp_path / "plots" / "none.png").write_bytes(bytes(400_000))
    monkeypatch.setattr(page, "MAX_PAGE_BYTES", 900_000)
    figures = {"prior_distance": 1.0, "prior_distance_floor": 1.0, "test_reconstruction_mse": 0.5}
    page.write_page(tmp_path, page.Page("title", "a note", figures, (), {}, []))
    text = (tmp_path / "report.html").read_text()
    shown = re.findall(r'src="data:image/jpeg;base64,([^"]*)"', text)
    assert 1 <= len(shown) < 3
    assert len(text) < 4 / 3 * 900_000 + 10_000
    for name in ("own", "none"):
        assert f'<a href="plots/{name}.png">plots/{name}.png</a>' in text
    assert "a note" in text


def test_every_figure_and_every_picture_has_its_meaning(run):
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics.keys() - {"data"} <= meanings.FIGURES.keys()
    documented = (ROOT / "docs" / "outputs.md").read_text()
    for name in meanings.FIGURES:
        assert f"`{name}`" in documented, name
    for name in meanings.PICTURES:
        assert f"`plots/{name.replace('LABEL', '3')}.png`" in documented, name
    assert {path.stem for path in (run / "plots").glob("*.png")} <= meanings.PICTURES.keys()
    assert set(meanings.FIRST) <= meanings.PICTURES.keys()


@pytest.mark.parametrize(
    "line",
    [
        "",
        "--model semi_supervised --recipe short --num_samples 100 --keep_prob 0.9 --n_epoch 100",
        "--model supervised --num_samples 5001 --prior gaussian --g_rate 0.2 --n_z 2",
        "--recipe paper --batch_size 128 --optimizer adam --PMLR --n_z 2",
        "--model dimensionality_reduction --n_clusters 12 --n_z 10",
        "--lr_schedule plateau --lr_patience 3 --seed 4",
    ],
)
def test_the_command_of_the_page_means_the_same_run(line, monkeypatch):
    monkeypatch.delenv("AAE_DATA_DIR", raising=False)
    config = main.read_config(["main.py", *line.split()])
    named = named_flags(config)
    assert len(named) <= 12
    assert main.read_config(["main.py", *(f"--{name}={value}" for name, value in named.items())]) == config


def events(run):
    accumulator = EventAccumulator(str(run / "tensorboard"), {"tensors": 0})
    accumulator.Reload()
    return accumulator


def test_tensorboard_has_the_flags_beside_the_figures(run):
    read = events(run)
    assert read.PluginTagToContent("hparams").keys() == {metadata.SESSION_START_INFO_TAG}
    content = read.PluginTagToContent("hparams")[metadata.SESSION_START_INFO_TAG]
    flags = metadata.parse_session_start_info_plugin_data(content).hparams
    assert flags["model"].string_value == "dimensionality_reduction"
    assert flags["n_epoch"].number_value == 3  # not the 2 of before
    assert flags["cycle"].bool_value is False
    assert not {"run_dir", "data_dir", "resume"} & set(flags)
    (error,) = read.Tensors("final/test_error_percent")
    metrics = json.loads((run / "metrics.json").read_text())
    assert tf.make_ndarray(error.tensor_proto) == pytest.approx(metrics["test_error_percent"], rel=1e-5)


def test_the_projector_has_codes_labels_and_thumbnails(run):
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    folder = run / "tensorboard"
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    codes = np.loadtxt(folder / embedding.tensor_path, delimiter="\t")
    with np.load(run.parent / "named.npz") as data:
        images, labels = data["x_test"], data["y_test"]
    from models import load_model

    np.testing.assert_allclose(codes, load_model(run).encode(images[..., None]), rtol=1e-3, atol=1e-3)
    lines = (folder / embedding.metadata_path).read_text().splitlines()
    assert lines[0].split("\t") == ["image", "class", "read as"]
    assert [line.split("\t")[1] for line in lines[1:]] == [plain_name(label, NAMES) for label in labels]
    sprite = cv2.imread(str(folder / embedding.sprite.image_path))
    height = width = 8
    assert list(embedding.sprite.single_image_dim) == [width, height]
    np.testing.assert_array_equal(sprite[:height, width : 2 * width, 0], images[1])


def test_names_are_bounded_and_are_no_formulas():
    assert plain_name(3, ()) == "3"
    assert plain_name(0, ("x" * 100,)) == "0 " + "x" * 20
    assert class_name(0, ("$a$\n",)) == r"0 \$a\$?"


def test_animations_name_classes_and_attributes():
    class Model:
        n_z, n_classes, attributes, decodes_labels = 2, 3, False, True

        def sample_prior(self, count, seed):
            return np.zeros((count, 2)), None

        def decode(self, codes, labels):
            return np.zeros((len(codes), 28, 28, 1))

        def encode(self, images):
            return np.zeros((len(images), 2))

    model, names = Model(), ("cat", "dog", "owl")
    ((_, frames, _),) = animations.moving_labels(model, None, names)
    captions = [caption for caption, _ in frames]
    assert captions[0] == "0 cat"
    assert captions[3] == "0 cat > 1 dog"
    model.attributes = True

    @dataclasses.dataclass
    class Data:
        test_images = np.zeros((10, 28, 28, 1), np.uint8)
        test_labels = np.zeros((10, 3), np.uint8)

    ((_, frames, _),) = animations.moving_labels(model, Data(), names)
    (_, named), *_ = frames
    ((_, frames, _),) = animations.moving_labels(model, Data())
    (_, plain), *_ = frames
    margin = named.shape[1] - plain.shape[1]
    assert margin > 20
    for row in np.split(named[:, :margin], 3):
        assert (row < 100).any()

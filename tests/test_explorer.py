"""What the explorer does without a browser, and without Gradio."""

import asyncio
import base64
import importlib.util
import socket

import cv2
import numpy as np
import pytest

import main
from data.loading import DataNotFound, load_data, without_downloads
from explorer import lines, own_images
from explorer.guard import MAX_BODY, Guard
from explorer.subject import Subject
from training import exploration
from training.settings import Config
from utils.errors import UserError

# Lines.


def test_the_great_circle_turns_evenly_from_one_end_to_the_other():
    first, last = np.array([2.0, 0, 0]), np.array([0, 4.0, 0])
    points = lines.great_circle(first, last, 5)
    np.testing.assert_allclose(points[[0, -1]], [first, last], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), [2, 2.5, 3, 3.5, 4])
    angles = np.degrees(np.arctan2(points[:, 1], points[:, 0]))
    np.testing.assert_allclose(angles, [0, 22.5, 45, 67.5, 90], atol=1e-10)


@pytest.mark.parametrize("last", [[0, 0], [3, 3], [-2, -2]], ids=["origin", "same way", "opposite"])
def test_where_there_is_no_arc_the_line_is_straight(last):
    first, last = np.array([1.0, 1.0]), np.array(last, float)
    points = lines.great_circle(first, last, 4)
    np.testing.assert_allclose(points, lines.straight(first, last, 4))
    np.testing.assert_allclose(points[[0, -1]], [first, last])


# A picture of one's own.


def drawing(box, side=200, ink=0, paper=255):
    """A rectangle of ink (top, left, bottom, right) on paper, uint8 (side, side, 3)."""
    picture = np.full((side, side, 3), paper, np.uint8)
    picture[box[0] : box[2], box[1] : box[3]] = ink
    return picture


@pytest.mark.parametrize("colours", [{"ink": 0, "paper": 255}, {"ink": 255, "paper": 0}])
def test_a_drawing_becomes_a_digit_of_mnist(colours):
    image = own_images.like_the_data(drawing((10, 20, 110, 70), **colours), "mnist", (28, 28, 1))
    rows, columns = np.nonzero(image[..., 0] > 127)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (20, 10)
    assert image.max() == 255
    weights = image[..., 0].astype(float)
    assert abs(np.average(np.arange(28), weights=weights.sum(axis=1)) - 13.5) <= 1
    assert abs(np.average(np.arange(28), weights=weights.sum(axis=0)) - 13.5) <= 1


def test_mnist_is_centred_by_mass_and_stays_inside():
    picture = drawing((0, 0, 150, 150), side=300)
    picture[150:280, 0:4] = 0  # a long thin tail pulls the box, not the mass
    image = own_images.like_the_data(picture, "mnist", (28, 28, 1))[..., 0].astype(float)
    assert image.sum() > 0
    assert abs(np.average(np.arange(28), weights=image.sum(axis=1)) - 14) <= 1.5
    box = np.nonzero(image.sum(axis=1))[0]
    assert (box[0] + box[-1]) / 2 > 14.5


def test_small_digits_fill_the_image():
    image = own_images.like_the_data(drawing((10, 20, 110, 70)), "digits", (28, 28, 1))
    rows, columns = np.nonzero(image[..., 0] > 127)
    assert (rows.min(), rows.max()) == (0, 27)
    assert abs(columns.mean() - 13.5) <= 0.5


def test_the_layouts_are_those_of_the_digits():
    data = load_data("digits")
    heights = [np.ptp(np.nonzero(image[..., 0] > own_images.INK)[0]) + 1 for image in data.test_images]
    assert np.median(heights) == 28 * own_images.LAYOUTS["digits"][0]


def test_the_middle_of_a_photograph_is_taken():
    picture = np.zeros((40, 100, 3), np.uint8)
    picture[:, 30:70] = (10, 200, 90)
    image = own_images.like_the_data(picture, "celeb_a", (16, 16, 3))
    assert image.shape == (16, 16, 3)
    assert (image == (10, 200, 90)).all()
    assert own_images.like_the_data(picture, "npz", (16, 16, 1)).shape == (16, 16, 1)


def test_nothing_drawn_is_said():
    with pytest.raises(UserError, match="nothing in the picture"):
        own_images.like_the_data(drawing((0, 0, 0, 0)), "mnist", (28, 28, 1))


def data_url(content):
    return "data:image/png;base64," + base64.b64encode(content).decode()


def test_what_comes_from_the_page_is_read():
    picture = drawing((10, 20, 110, 70), ink=7)
    content = cv2.imencode(".png", picture)[1].tobytes()
    np.testing.assert_array_equal(own_images.picture_of(data_url(content)), picture)


@pytest.mark.parametrize("text", [data_url(b"only a text"), "data:,x", "", None, 7, "base64,%%%", ["a"]])
def test_what_is_no_picture_is_refused(text):
    with pytest.raises(UserError, match=r"no picture|larger than"):
        own_images.picture_of(text)


def test_large_pictures_are_refused_unread():
    with pytest.raises(UserError, match="larger than 10 MB"):
        own_images.picture_of("base64," + "A" * (own_images.MAX_BYTES * 4 // 3 + 200))


# The guard.


def answer(method="POST", **headers):
    """The status and headers of a request, and whether the application behind the guard saw it."""
    sent, seen = [], []

    async def app(scope, receive, send):
        seen.append(scope)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    asyncio.run(Guard(app)({"type": "http", "method": method, "headers": lines}, None, send))
    return sent[0]["status"], dict(sent[0]["headers"]), bool(seen)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, {"content_length": str(MAX_BODY)}),
        (413, {"content_length": str(MAX_BODY + 1)}),
        (413, {"content_length": str(10**9)}),
        (413, {"content_length": "-1"}),
        (411, {"transfer_encoding": "chunked"}),
        (411, {}),
    ],
)
def test_large_bodies_are_refused_before_they_are_read(status, headers):
    got, others, seen = answer(**headers)
    assert (got, seen) == (status, status == 200)
    assert b"default-src 'self'" in others[b"content-security-policy"]


def test_pages_are_asked_for_without_a_body():
    assert answer("GET")[::2] == (200, True)


# The model that is explored.

KINDS = {
    "unsupervised": {"prior": "gaussian", "n_z": 3},
    "supervised": {"prior": "gaussian_mixture"},
    "semi_supervised": {"prior": "gaussian", "n_z": 3, "joint_discriminator": True},
    "conditional": {"prior": "swiss_roll"},
    "attributes": {"model": "conditional", "prior": "gaussian", "attributes": True, "n_classes": 4},
    "clustering": {"prior": "gaussian", "n_clusters": 5},
    "dimensionality_reduction": {"prior": "gaussian"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_is_explored(make_model, batch, kind):
    model = make_model(**{"model": kind, **KINDS[kind]})
    subject = Subject(model, "digits")
    image, code = batch[0][0], subject.sample()
    label = [1, 2] if model.attributes else 1
    row = subject.rows(label) if model.decodes_labels else None
    decoded, others = subject.with_all_labels(code, row)
    reference = model.decode(code[None], None if row is None else row[None])[0]
    np.testing.assert_array_equal(decoded, np.round(255 * reference))
    assert len(others) == (model.n_classes if model.decodes_labels else 0)
    if model.decodes_labels:
        assert subject.label_of(row) == label
        changed = subject.rows([1]) if model.attributes else subject.rows(2)
        np.testing.assert_array_equal(others[2][1], subject.decode(code, changed))
    read = subject.read_row(image, label)
    again = model.reconstruct(image[None], *([] if read is None else [read[None]]))[0]
    np.testing.assert_allclose(subject.decode(model.encode(image[None])[0], read), 255 * again, atol=0.51)
    opinions = subject.opinions(image, label)
    assert all(0 < value < 1 for value in opinions.values())
    tries_all = kind in ("supervised", "conditional")
    assert list(opinions) == (subject.names if tries_all else ["the code"])
    if tries_all:
        logit = model.judge(image[None], np.array([3]))[0]
        assert opinions[subject.names[3]] == pytest.approx(1 / (1 + np.exp(-logit)))
    probabilities = subject.probabilities(image)
    assert (probabilities is None) == (not hasattr(model, "classify"))
    assert probabilities is None or sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert subject.has_arcs == (KINDS[kind]["prior"] == "gaussian" and kind != "dimensionality_reduction")
    assert bool(subject.place(code)) == model.labels_have_places
    drawn = model.sample_prior(100_000, seed=5)[0].mean(axis=0)
    np.testing.assert_allclose(subject.mean, drawn, atol=0.25)


def test_wrong_numbers_are_refused(make_model):
    subject = Subject(make_model(model="conditional"), "digits")
    for values in ([1.0], [1.0, float("nan")], [1.0, "a"], None, [[1.0, 2.0]]):
        with pytest.raises(UserError, match="no code"):
            subject.code(values)
    for label in (10, -1, None, "1", 1.5):
        with pytest.raises(UserError, match="no label"):
            subject.rows(label)
    with pytest.raises(UserError, match="numbers from"):
        subject.test_image(0)


# What is said before TensorFlow is imported.


def refusal(capsys, *words):
    assert main.main(["main.py", "--explore", *words]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line


def test_without_gradio_one_line_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install -r requirements-explore.txt" in refusal(capsys, "--run_dir", str(tmp_path))


@pytest.fixture
def with_gradio(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "gradio" or find(name))


@pytest.mark.usefixtures("with_gradio")
def test_a_run_is_needed(capsys, tmp_path):
    assert "needs the --run_dir" in refusal(capsys)
    assert "holds no run" in refusal(capsys, "--run_dir", str(tmp_path))
    assert "--n_z has no effect with --explore" in refusal(capsys, "--run_dir", "x", "--n_z", "3")
    assert "--explore_port must be from 1 to 65535" in refusal(
        capsys, "--run_dir", "x", "--explore_port", "0"
    )


def test_a_port_in_use_is_said():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port}: Address already in use. Choose another"):
            exploration._refuse_used_port(Config(explore_port=port))


def test_data_is_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with without_downloads(), pytest.raises(DataNotFound, match="No mnist in"):
        load_data("mnist", str(tmp_path))

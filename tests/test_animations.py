"""The decoder of these tests paints the code and the label that it gets, so that every cell can be read."""

import types

import cv2
import numpy as np
import pytest

from evaluation import animations

LIMIT = 2.0
SHADE = 0.5 / (animations.GREYS - 1) + 0.002  # pictures have so few greys, and whole numbers


class PaintingModel:
    """Each image is 1 x (n_z + K): the axes from 0 at -LIMIT to 1 at LIMIT, and the label row."""

    def __init__(self, n_z, n_classes=0, attributes=False):
        self.n_z, self.n_classes, self.attributes = n_z, n_classes, attributes
        self.decodes_labels = n_classes > 0
        limits = np.full(n_z, LIMIT)
        self.prior = types.SimpleNamespace(support=lambda: (-limits, limits))

    def decode(self, codes, labels=None):
        assert len(codes) <= 1000
        parts = [codes / LIMIT / 2 + 0.5, *([] if labels is None else [labels])]
        return np.concatenate(parts, axis=1)[:, None, :, None].astype(np.float32)

    def encode(self, images):
        return np.linspace(-LIMIT, LIMIT, len(images) * self.n_z).reshape(len(images), self.n_z)

    def sample_prior(self, n, seed):
        return self.encode(np.zeros((n, 1))), None


DATA = types.SimpleNamespace(
    note="",
    test_images=np.zeros((12, 1, 1, 1), np.uint8),
    test_labels=np.array([[1, 0, 0], [0, 1, 1]] * 6, np.uint8),
)


def draw_traversals(directory, *arguments, **named):
    animations.draw(directory, animations.traversals(*arguments, **named))


def draw_moving_labels(directory, *arguments):
    animations.draw(directory, animations.moving_labels(*arguments))


def read(path):
    """Frames without captions, float (F, H, W) in [0, 1], of an animation without colours."""
    whole, animation = cv2.imreadanimation(str(path))
    assert whole
    frames = np.stack(animation.frames)[:, animations.CAPTION_HEIGHT :]
    assert set(np.ravel(animation.durations)) == {animations.MILLISECONDS}
    assert frames.ndim == 3
    return frames / 255


def test_an_axis_is_swept_forward_and_back_while_the_others_form_a_grid(tmp_path):
    draw_traversals(tmp_path, PaintingModel(3), DATA, axes=[1], n_samples=3)
    assert [path.name for path in tmp_path.iterdir()] == ["traversal_z2.png"]
    frames = read(tmp_path / "traversal_z2.png")
    assert frames.shape == (20, 3, 9)
    cells = frames.reshape(20, 3, 3, 3)  # frame, row, column, axis
    sweep = np.linspace(0, 1, 11)
    expected = np.concatenate([sweep, sweep[-2:0:-1]])
    np.testing.assert_allclose(
        cells[..., 1], np.broadcast_to(expected[:, None, None], (20, 3, 3)), atol=SHADE
    )
    np.testing.assert_allclose(cells[:, :, 0, 0], np.broadcast_to([0, 0.5, 1], (20, 3)), atol=SHADE)
    np.testing.assert_allclose(cells[:, 0, :, 2], np.broadcast_to([0, 0.5, 1], (20, 3)), atol=SHADE)


def test_of_five_axes_two_number_the_blocks(tmp_path):
    draw_traversals(tmp_path, PaintingModel(5), DATA, n_samples=2)
    assert len(list(tmp_path.iterdir())) == 5
    frames = read(tmp_path / "traversal_z1.png")
    gap = animations.GAP
    assert frames.shape == (20, 4 + gap, 20 + gap)
    # Without the gaps: block row, row, block column, column, axis.
    frame = np.delete(np.delete(frames[0], range(2, 2 + gap), 0), range(10, 10 + gap), 1)
    cells = frame.reshape(2, 2, 2, 2, 5)
    for axis, place in ((1, 0), (2, 2), (3, 1), (4, 3)):
        along = np.moveaxis(cells[..., axis], place, -1)
        np.testing.assert_array_equal(along, np.broadcast_to([0.0, 1.0], along.shape))
    assert not frames[:, 2 : 2 + gap].any()


@pytest.mark.parametrize("n_z", [1, 2, 4])
def test_smaller_codes(tmp_path, n_z):
    draw_traversals(tmp_path, PaintingModel(n_z), DATA, n_samples=3)
    assert len(list(tmp_path.iterdir())) == n_z
    height, width = {1: (1, 1), 2: (1, 3 * 2), 4: (3, 3 * 3 * 4 + 2 * animations.GAP)}[n_z]
    assert read(tmp_path / "traversal_z1.png").shape == (20, height, width)


def test_classes_have_a_file_each(tmp_path):
    draw_traversals(tmp_path, PaintingModel(2, n_classes=3), DATA, axes=[0], n_samples=2)
    assert len(list(tmp_path.iterdir())) == 3
    for label in range(3):
        cells = read(tmp_path / f"traversal_z1_label_{label}.png").reshape(20, 2, 5)
        np.testing.assert_array_equal(cells[..., 2:], np.broadcast_to(np.eye(3)[label], (20, 2, 3)))


def test_large_codes_sweep_every_axis_in_its_own_cell(tmp_path):
    draw_traversals(tmp_path, PaintingModel(12), DATA)
    assert [path.name for path in tmp_path.iterdir()] == ["traversal.png"]
    frames = read(tmp_path / "traversal.png")
    cells = frames.reshape(20, 2, 10, 12)  # frame, row, column, axis
    cells = cells.reshape(20, 20, 12)[:, :12]
    for axis in range(12):
        others = np.delete(cells[:, axis], axis, axis=1)
        np.testing.assert_allclose(others, 0.5, atol=SHADE)
        np.testing.assert_allclose(cells[:11, axis, axis], np.linspace(0, 1, 11), atol=SHADE)


def test_labels_morph_while_styles_stay(tmp_path):
    model = PaintingModel(2, n_classes=3)
    draw_moving_labels(tmp_path, model, DATA)
    cells = read(tmp_path / "style.png").reshape(-1, 5, 5, 5)  # frame, row, column, axes and label
    assert len(cells) == 21  # ten steps from each label to the next; it does not run back
    styles = model.sample_prior(25, 0)[0].reshape(5, 5, 2) / LIMIT / 2 + 0.5
    np.testing.assert_allclose(cells[..., :2], np.broadcast_to(styles, (21, 5, 5, 2)), atol=SHADE)
    for frame, row in (
        (0, [1, 0, 0]),
        (5, [0.5, 0.5, 0]),
        (10, [0, 1, 0]),
        (13, [0, 0.7, 0.3]),
        (20, [0, 0, 1]),
    ):
        np.testing.assert_allclose(cells[frame, ..., 2:], np.broadcast_to(row, (5, 5, 3)), atol=SHADE)


def test_each_row_switches_its_own_attribute(tmp_path):
    draw_moving_labels(tmp_path, PaintingModel(2, n_classes=3, attributes=True), DATA)
    cells = read(tmp_path / "style.png").reshape(20, 3, 10, 5)  # frame, attribute, image, axes and attributes
    for row in range(3):
        np.testing.assert_allclose(
            cells[:11, row, :, 2 + row], np.linspace(0, 1, 11)[:, None] * np.ones(10), atol=SHADE
        )
        kept = [a for a in range(3) if a != row]
        np.testing.assert_array_equal(
            cells[:, row][..., [2 + a for a in kept]],
            np.broadcast_to(DATA.test_labels[:10, kept], (20, 10, 2)),
        )


def test_colours_stay_what_they_are(tmp_path):
    sheet = np.zeros((4, 5, 3), np.uint8)
    sheet[..., 0], sheet[..., 2] = 200, 10
    animations.save_animation(tmp_path / "colours.png", [("red", sheet), ("again", sheet)])
    _, animation = cv2.imreadanimation(str(tmp_path / "colours.png"))
    pixels = animation.frames[0][animations.CAPTION_HEIGHT :, :, :3]
    np.testing.assert_array_equal(pixels, np.broadcast_to([10, 0, 200], pixels.shape))  # OpenCV's BGR


def test_a_file_that_cannot_be_written_is_told_and_every_name_announced(tmp_path):
    names = []
    wanted = list(animations.traversals(PaintingModel(3), DATA))
    with pytest.raises(OSError, match="missing"):
        animations.draw(tmp_path / "missing", wanted, progress=names.append)
    animations.draw(tmp_path, animations.traversals(PaintingModel(3), DATA), progress=names.append)
    assert names[-3:] == [f"traversal_z{axis}.png" for axis in (1, 2, 3)]

"""What the page shows: images as data URLs, the coding plane, animations."""

import base64
import functools
import html
import tempfile
import threading
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure

from evaluation import plots
from evaluation.animations import save_animation
from evaluation.plots import tile

# The plane's axes within its picture: left, bottom, width, height, as shares.
AXES = (0.09, 0.08, 0.89, 0.9)
PLANE_INCHES, PLANE_DPI = 6.2, 100
SAVED_SIDE = 224  # pixels, at least, of an image in a file that is downloaded
# The state of matplotlib's pyplot is one for all threads.
PYPLOT = threading.Lock()


def data_url(content, kind="image/png"):
    """Bytes as the address of what they are."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def png(image):
    """An image, uint8 (H, W, C), as the bytes of a PNG."""
    image = image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", image)[1].tobytes()


def shown(image, caption="", name="", large=False):
    """HTML of an image, uint8 (H, W, C), with a text below; as it is, and enlarged by the browser alone.

    Args:
        name: the id of the element, or "".
    """
    kind, place = "aae-large" if large else "aae-small", f' id="{name}"' if name else ""
    text = html.escape(caption)
    return (
        f'<figure class="{kind}"><img{place} src="{data_url(png(image))}" alt="{text or "image"}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def row(figures):
    """HTML of several `shown` images in lines that wrap."""
    return f'<div class="aae-row">{"".join(figures)}</div>'


def numbers(code):
    """The first numbers of a code (n_z,) as text."""
    return ", ".join(f"{value:.2f}" for value in code[:6]) + (", …" if len(code) > 6 else "")


def place(subject, code, axes):
    """HTML without looks: where on the plane of two axes a code lies, as shares of the picture's sides."""
    if code is None or axes is None:
        return '<span class="aae-place"></span>'
    x, y = (float(np.clip(code[axis] / subject.limit, -1, 1)) for axis in axes)
    left, bottom, width, height = AXES
    return (
        f'<span class="aae-place" data-left="{left + width * (x + 1) / 2:.5f}" '
        f'data-top="{1 - bottom - height * (y + 1) / 2:.5f}"></span>'
    )


def point(subject, left, top):
    """The coordinates on the plane of a point of its picture, given as shares of its sides."""
    begin, bottom, width, height = AXES
    x, y = 2 * (float(left) - begin) / width - 1, 2 * (1 - float(top) - bottom) / height - 1
    return tuple(subject.limit * float(np.clip(value, -1, 1)) for value in (x, y))


@functools.lru_cache(maxsize=64)
def plane(subject, axes):
    """HTML of the plane of two axes: the prior's samples in grey, the test codes by class, a mark to move."""
    figure = Figure(figsize=(PLANE_INCHES, PLANE_INCHES), dpi=PLANE_DPI)
    drawn = figure.add_axes(AXES)
    samples = subject.model.sample_prior(3000, seed=-1)[0][:, axes]
    drawn.scatter(*samples.T, s=14, color="0.8", linewidths=0, alpha=0.6)
    if subject.data:
        codes, labels = subject.test_codes
        with PYPLOT:
            plots.draw_codes(drawn, codes[:, axes], labels, subject.limit, subject.data.label_names)
    if axes == (0, 1) and subject.model.n_z == 2 and hasattr(subject.model, "heads"):
        drawn.plot(*np.array(subject.model.heads).T, "kx", markersize=8)
    limit = subject.limit
    drawn.set(xlim=(-limit, limit), ylim=(-limit, limit))
    drawn.set(xlabel=f"$z_{{{axes[0] + 1}}}$", ylabel=f"$z_{{{axes[1] + 1}}}$")
    drawn.grid(alpha=0.3)
    with tempfile.TemporaryDirectory() as folder:
        figure.savefig(path := Path(folder, "plane.png"))
        content = path.read_bytes()
    return (
        f'<div class="aae-plane"><img src="{data_url(content)}" draggable="false" alt="plane of the codes">'
        '<span class="aae-mark"></span></div>'
    )


def enlarged(images):
    """Images (N, H, W, C) with every pixel as a block, so that they are of a size to look at."""
    factor = max(1, -(-SAVED_SIDE // max(images.shape[1:3])))
    return images.repeat(factor, axis=1).repeat(factor, axis=2)


def downloads(images, captions):
    """HTML of links to a sheet and to an animation of images, uint8 (N, H, W, C), that lie in them."""
    sheet = png(tile(enlarged(images), len(images)))
    with tempfile.TemporaryDirectory() as folder:
        save_animation(
            path := Path(folder, "between.png"), list(zip(captions, enlarged(images), strict=True))
        )
        animation = path.read_bytes()
    links = (("between.png", "Download as PNG", sheet), ("between_moving.png", "as animation", animation))
    return "".join(
        f'<a class="aae-download" download="{name}" href="{data_url(content)}">{text}</a>'
        for name, text, content in links
    )

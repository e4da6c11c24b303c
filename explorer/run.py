"""Run: the figures, curves and pictures of the run, and of another one beside it."""

import tempfile
from pathlib import Path

import cv2
import gradio as gr
import numpy as np

from evaluation.compare import read_finished, save_comparison, table
from explorer import pictures
from explorer.parts import told
from utils.errors import UserError
from utils.untrusted import read_limited

MAX_BYTES = 2**24  # of a picture
NONE = "none"


class Run:
    """The page.

    Args:
        directory: of the run.
    """

    def __init__(self, directory):
        self._directory = Path(directory).resolve()
        # Those that lie beside it, by their names alone: the browser names no other folders.
        beside = sorted(path.parent for path in self._directory.parent.glob("*/metrics.json"))
        self._others = {path.name: path for path in beside if path != self._directory}
        other = gr.Dropdown(
            [NONE, *self._others], value=NONE, label="Another run beside it", elem_id="other-run"
        )
        with gr.Row():
            with gr.Column(min_width=300, scale=2):
                curves = gr.HTML(elem_classes="aae-pictures", elem_id="curves")
            with gr.Column(min_width=300):
                figures = gr.Markdown(elem_id="figures")
        looks = {"columns": 2, "object_fit": "contain", "format": "png", "height": "auto"}
        gr.Gallery(drawn(self._directory), label=self._directory.name, **looks)
        second = gr.Gallery(label="the other", visible=False, **looks)
        curves.value, figures.value = self._compared([self._directory])
        other.input(self._beside, other, [curves, figures, second], show_progress="minimal")

    @told
    def _beside(self, name):
        if name != NONE and name not in self._others:
            raise UserError(f"There is no run {name}.")
        others = [] if name == NONE else [self._others[name]]
        gallery = (
            gr.Gallery(drawn(others[0]), label=name, visible=True) if others else gr.Gallery(visible=False)
        )
        return *self._compared([self._directory, *others]), gallery

    def _compared(self, directories):
        """HTML with the curves of runs, and Markdown with their figures, or with what is wrong."""
        try:
            runs = [read_finished(str(path)) for path in directories]
        except UserError as error:
            return "", str(error)
        with tempfile.TemporaryDirectory() as folder, pictures.PYPLOT:
            save_comparison(path := Path(folder, "curves.png"), runs)
            content = path.read_bytes()
        return f'<img src="{pictures.data_url(content)}" alt="curves and samples">', table(runs)


def drawn(directory):
    """Pairs of a picture, uint8 (H, W, 3), of plots/ and its name, of those that can be read."""
    found = []
    for path in sorted((directory / "plots").glob("*.png")):
        try:
            content = read_limited(path, MAX_BYTES)
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR_RGB)
        except (OSError, cv2.error):
            continue
        if image is not None:
            found.append((image, path.stem))
    return found

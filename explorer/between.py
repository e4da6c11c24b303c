"""Between two images: the images that lie on the way from the code of one to that of another."""

import gradio as gr
import numpy as np

from explorer import lines, pictures
from explorer.parts import SOON, told
from utils.errors import UserError

MAX_STEPS = 30
OWN, TEST = "your image", "test image"
WAYS = {"straight line": lines.straight, "great circle": lines.great_circle}


class Between:
    """The page.

    Args:
        subject: a `Subject`.
        own: the `YourImage`.
    """

    def __init__(self, subject, own):
        self.subject = subject
        kinds = [TEST, OWN] if subject.data else [OWN]
        ends = []
        with gr.Row():
            for name, number in (("From", 0), ("To", 1)):
                with gr.Column(min_width=260), gr.Group():
                    ends.append(gr.Radio(kinds, value=kinds[0], label=name))
                    count = len(subject.data.test_images) if subject.data else 1
                    title = f"Its number, 0 to {count - 1}"
                    ends.append(
                        gr.Number(
                            min(number, count - 1), label=title, precision=0, visible=subject.data is not None
                        )
                    )
            with gr.Column(min_width=260):
                steps = gr.Slider(3, MAX_STEPS, value=9, step=1, label="Number of images")
                ways = list(WAYS) if subject.has_arcs else list(WAYS)[:1]
                way = gr.Radio(ways, value=ways[0], label="Way")
                go = gr.Button("Show the way", variant="primary", elem_id="go-between")
        result = gr.HTML("", elem_id="between")
        go.click(
            self._drawn,
            [*ends, steps, way, own.image, *own.labels],
            result,
            api_name="between",
            **SOON,
        )

    @told
    def _drawn(self, kind, number, other_kind, other_number, steps, way, own, *labels):
        of = self.subject
        if not isinstance(steps, (int, float)) or not 2 <= steps <= MAX_STEPS:
            raise UserError(f"The number of images must be from 2 to {MAX_STEPS}, got {steps}.")
        if way not in WAYS:
            raise UserError(f"There is no way {way}.")
        ends = [
            self._end(kind, number, own, labels),
            self._end(other_kind, other_number, own, labels),
        ]
        images = np.stack([image for image, _ in ends])
        codes = WAYS[way](*of.model.encode(images), int(steps))
        rows = None
        if of.model.decodes_labels:
            rows = lines.straight(*(row for _, row in ends), int(steps))
        decoded = of.decode_all(codes, rows)
        shares = [f"{round(100 * share)} %" for share in np.linspace(0, 1, int(steps))]
        figures = [
            pictures.shown(images[0], "from"),
            *(pictures.shown(image, share) for image, share in zip(decoded, shares, strict=True)),
            pictures.shown(images[1], "to"),
        ]
        return pictures.row(figures) + f"<p>{pictures.downloads(decoded, shares)}</p>"

    def _end(self, kind, number, own, labels):
        """An image, and what the decoder sees beside its code, or None."""
        of = self.subject
        if kind == OWN:
            if own is None:
                raise UserError("There is no image of yours yet: draw one, or drop a picture.")
            return own, of.read_row(own, labels[0] if labels else None)
        image, label = of.test_image(number)
        label = np.flatnonzero(label).tolist() if of.model.attributes else int(label)
        return image, of.read_row(image, label)

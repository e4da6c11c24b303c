"""Your image: what the model makes of a picture that is drawn or dropped."""

import gradio as gr

from explorer import pictures
from explorer.own_images import MAX_BYTES, like_the_data, picture_of
from explorer.parts import SOON, chosen, label_choice, told

PAD = """<div class="aae-pad"><canvas id="pad" width="280" height="280"></canvas>
<p>Draw here, or drop a picture.</p>
<p><button type="button">Clear</button><label>Choose a picture<input type="file" accept="image/*"></label></p>
<p role="alert"></p></div>"""
MAX_SHOWN = 5  # labels with their probabilities


class YourImage:
    """The page, and what others need of it.

    Attributes:
        image: state, the picture as an image of the data set, uint8 (H, W, C), or None.
        labels: list of the component that says what it shows, or empty where the model reads it.
    """

    def __init__(self, subject):
        self.subject = subject
        self.image = gr.State(None)
        model = subject.model
        with gr.Row():
            with gr.Column(min_width=300):
                pad = gr.HTML(PAD, elem_id="pad-area", js_on_load=f"aaePad(element, trigger, {MAX_BYTES})")
                self.labels = [] if hasattr(model, "classify") else label_choice(subject, "your image")
            with gr.Column(min_width=300):
                self._result = gr.HTML(
                    "<p>Here comes what the model makes of it.</p>",
                    elem_id="your-result",
                    js_on_load="watch('value', () => aaeFollow('your-result', 'your-plane'))",
                )
                self.move = gr.Button("Move from there", variant="primary", elem_id="move", interactive=False)
                self._probabilities = gr.Label(
                    label=f"Which {'cluster' if model.finds_clusters else 'label'} the model reads",
                    num_top_classes=MAX_SHOWN,
                    visible=hasattr(model, "classify"),
                )
                self._opinions = gr.Label(
                    label="D takes the code for the prior's", num_top_classes=MAX_SHOWN, show_heading=False
                )
            if model.n_z > 1:
                with gr.Column(min_width=300, elem_classes="aae-fixed"):
                    gr.HTML(pictures.plane(subject, (0, 1)), elem_id="your-plane", js_on_load=None)
        outputs = [self.image, self._result, self._probabilities, self._opinions, self.move]
        pad.select(self._taken, self.labels, outputs, api_name="picture", **SOON)
        for component in self.labels:
            component.input(self._again, [self.image, *self.labels], outputs, **SOON)

    @told
    def _taken(self, event: gr.EventData, *labels):
        picture = picture_of(event.picture)
        image = like_the_data(picture, self.subject.data_name, self.subject.model.image_shape)
        return self._judged(image, labels)

    @told
    def _again(self, image, *labels):
        return gr.skip() if image is None else self._judged(image, labels)

    def _judged(self, image, labels):
        of = self.subject
        code, label = of.model.encode(image[None])[0], labels[0] if labels else None
        again = of.decode(code, of.read_row(image, label))
        both = [
            pictures.shown(image, "the model sees", "seen"),
            pictures.shown(again, "and rebuilds", "reconstruction"),
        ]
        axes = (0, 1) if of.model.n_z > 1 else None
        parts = [
            f'<div class="aae-double">{pictures.row(both)}</div>',
            f"<p>Its code is ({pictures.numbers(code)}). {of.place(code)}</p>",
            pictures.place(of, code, axes),
        ]
        probabilities, opinions = of.probabilities(image), of.opinions(image, label)
        return [image, "".join(parts), probabilities, opinions, gr.Button(interactive=True)]

    def leads_to(self, walk, tabs):
        """Makes the button show the image's code in `walk`, whose page `tabs` then opens."""

        @told
        def go(image, *values):
            axes, labels = values[: len(walk.axes)], values[len(walk.axes) :]
            of = self.subject
            row = of.read_row(image, labels[0] if labels else None)
            places = tuple(int(axis) - 1 for axis in axes) or (0, 1)[: of.model.n_z]
            label = [] if row is None else [of.label_of(row)]
            # The walk's own labels are those that it can choose, so the row is made of them.
            row = chosen(of, label)
            return [
                gr.Tabs(selected="walk"),
                *walk.show(of.model.encode(image[None])[0], places, row),
                *label,
            ]

        inputs = [self.image, *walk.axes, *self.labels]
        self.move.click(go, inputs, [tabs, *walk.outputs, *walk.labels], **SOON)

"""Walk: a point of the code is moved, and decoded at once."""

import gradio as gr
import numpy as np

from explorer import pictures
from explorer.parts import AT_ONCE, SOON, chosen, label_choice, refused, told
from utils.errors import UserError

FOLLOW = "aaeFollow('decoded', 'plane')"  # has the plane's mark go where the code is
ANSWERED = "window.dispatchEvent(new Event('aae-answer'))"  # has the plane ask what waits
MAX_SLIDERS = 12  # axes; the others are chosen by their number


class Walk:
    """The page, and what others need of it.

    Attributes:
        code: state, the code as a list of n_z numbers.
        axes: list of the components that choose the axes of the plane, or empty.
        labels: list of the component that chooses the label, or empty.
        outputs: components that `show` gives values for.
    """

    def __init__(self, subject):
        self.subject = subject
        n_z = subject.model.n_z
        self.code = gr.State(subject.mean.tolist())
        with gr.Row():
            if n_z > 1:
                with gr.Column(min_width=300):
                    self.axes, self._plane = self._make_plane(n_z)
            else:
                self.axes, self._plane = [], None
            with gr.Column(min_width=300):
                self.picture = gr.HTML(
                    self._picture(subject.mean, self._first_row, (0, 1)[:n_z]),
                    elem_id="decoded",
                    js_on_load=f"{FOLLOW}; watch('value', () => {{ {FOLLOW}; {ANSWERED} }})",
                )
                with gr.Row():
                    new = gr.Button("New sample", variant="primary", elem_id="new-sample")
                    back = gr.Button("Back to the mean")
                self.labels = label_choice(subject, "the image")
        self._sliders = self._make_sliders(n_z)
        self._more = self._make_more(n_z)
        self.outputs = [self.code, self.picture, *self._sliders]
        inputs = [self.code, *self.axes, *self.labels]
        new.click(self._new, inputs, self.outputs, **AT_ONCE)
        back.click(self._back, inputs, self.outputs, **AT_ONCE)
        for component in (*self.axes, *self.labels):
            component.input(self._again, inputs, self.outputs, **AT_ONCE)
        if self._plane:
            # The plane itself asks one question at a time, so none may be dropped.
            one = {**AT_ONCE, "trigger_mode": "multiple"}
            self._plane.select(self._pointed, inputs, self.outputs, api_name="point", **one)
            for axis in self.axes:
                axis.input(self._draw_plane, self.axes, self._plane, **AT_ONCE)
        moved = [self.code, *self.axes, *self.labels, *self._sliders]
        for slider in self._sliders:
            # While an answer is awaited the last of many moves may be dropped; the release is not.
            for event in (slider.input, slider.release):
                event(self._slid, moved, [self.code, self.picture], **AT_ONCE)
        if self._more:
            self._more[0].input(self._value_of, [self.code, self._more[0]], self._more[1], **SOON)
            self._more[1].input(self._numbered, [self.code, *self.axes, *self.labels, *self._more],
                                self.outputs, **SOON)  # fmt: skip

    @property
    def _first_row(self):
        of = self.subject
        return of.rows([] if of.model.attributes else 0) if of.model.decodes_labels else None

    def _make_plane(self, n_z):
        axes = []
        if n_z > 2:
            with gr.Row():
                for title, value in (("Axis to the right", 1), ("Axis upwards", 2)):
                    axes.append(gr.Dropdown(list(range(1, n_z + 1)), value=value, label=title, min_width=120))
        plane = gr.HTML(
            pictures.plane(self.subject, (0, 1)),
            elem_id="plane",
            js_on_load=f"aaePlane(element, trigger); watch('value', () => {FOLLOW})",
        )
        return axes, plane

    def _make_sliders(self, n_z):
        of, sliders = self.subject, []
        with gr.Accordion("The code, axis by axis", open=n_z != 2), gr.Row():
            for axis in range(min(n_z, MAX_SLIDERS)):
                sliders.append(
                    gr.Slider(
                        -round(of.limit, 2),
                        round(of.limit, 2),
                        value=float(of.mean[axis]),
                        step=0.01,
                        label=f"z{axis + 1}",
                        min_width=220,
                    )
                )
        return sliders

    def _make_more(self, n_z):
        if n_z <= MAX_SLIDERS:
            return []
        first = MAX_SLIDERS + 1
        with gr.Row():
            return [
                gr.Number(
                    first, label=f"Another axis, {first} to {n_z}", precision=0, minimum=1, maximum=n_z
                ),
                gr.Number(float(self.subject.mean[MAX_SLIDERS]), label="Its value", step=0.1),
            ]

    def show(self, code, axes, row):
        """Values of `outputs` for a code (n_z,) on the plane of two axes, from 0, with a label's row (K,)."""
        return [np.asarray(code).tolist(), self._picture(code, row, axes), *self._positions(code)]

    def _positions(self, code):
        """Where the sliders stand for a code (n_z,), which may lie beyond their ends."""
        limit = round(self.subject.limit, 2)
        return [round(float(np.clip(value, -limit, limit)), 4) for value in code[: len(self._sliders)]]

    def _picture(self, code, row, axes):
        image, others = self.subject.with_all_labels(code, row)
        caption = f"z = ({pictures.numbers(code)})"
        parts = [pictures.shown(image, caption, "decoded-image", large=True)]
        if others:
            parts.append(pictures.row([pictures.shown(other, name) for name, other in others]))
        parts.append(pictures.place(self.subject, code, axes if len(axes) == 2 else None))
        return "".join(parts)

    def read(self, values):
        """The inputs of an event: the code (n_z,), the two axes from 0, the row, and what comes after."""
        code, values = self.subject.code(values[0]), values[1:]
        count, n_labels = len(self.axes), len(self.labels)
        axes = tuple(int(axis) - 1 for axis in values[:count]) if count else (0, 1)[: len(code)]
        if not all(0 <= axis < len(code) for axis in axes):
            raise UserError("There is no such axis.")
        row = chosen(self.subject, values[count : count + n_labels])
        return code, axes, row, values[count + n_labels :]

    @refused
    def _new(self, *values):
        _, axes, row, _ = self.read(values)
        return self.show(self.subject.sample(), axes, row)

    @refused
    def _back(self, *values):
        _, axes, row, _ = self.read(values)
        return self.show(self.subject.mean, axes, row)

    @refused
    def _again(self, *values):
        return self.show(*self.read(values)[:3])

    @refused
    def _draw_plane(self, *values):
        return pictures.plane(self.subject, tuple(int(axis) - 1 for axis in values))

    @refused
    def _pointed(self, event: gr.EventData, *values):
        code, axes, row, _ = self.read(values)
        code = code.copy()
        code[list(axes)] = pictures.point(self.subject, event.left, event.top)
        return self.show(code, axes, row)

    @refused
    def _slid(self, *values):
        code, axes, row, sliders = self.read(values)
        values = code.tolist()
        # The sliders that stand where the code had them have not been moved.
        for axis, (position, before) in enumerate(zip(sliders, self._positions(code), strict=True)):
            if position != before:
                values[axis] = position
        return self.show(self.subject.code(values), axes, row)[:2]

    @told
    def _value_of(self, code, axis):
        return float(code[self._axis(axis)])

    @told
    def _numbered(self, *values):
        code, axes, row, (axis, value) = self.read(values)
        values = code.tolist()
        values[self._axis(axis)] = value
        return self.show(self.subject.code(values), axes, row)

    def _axis(self, number):
        if not isinstance(number, (int, float)) or not 1 <= number <= self.subject.model.n_z:
            raise UserError(f"Axes have numbers from 1 to {self.subject.model.n_z}, got {number}.")
        return int(number) - 1

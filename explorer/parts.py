"""What several pages of the explorer are built from."""

import functools

import gradio as gr

from utils.errors import UserError, first_line

# Of what must answer at once: straight to the function, and of many requests only the last.
AT_ONCE = {"queue": False, "show_progress": "hidden", "trigger_mode": "always_last"}
# Of what a user can get wrong: only events that go through the queue can tell without an error.
SOON = {"show_progress": "hidden", "trigger_mode": "always_last", "concurrency_limit": None}
MAX_BUTTONS = 12  # labels: more are a list to choose from


def told(function):
    """A function of an event of `SOON` whose mistakes the page tells of, and then stays as it is."""

    @functools.wraps(function)
    def wrapped(*values, **others):
        try:
            return function(*values, **others)
        except (UserError, ValueError) as error:
            gr.Warning(first_line(error))
            return gr.skip()

    return wrapped


def refused(function):
    """A function of an event of `AT_ONCE`, which the page's own controls never call with what is wrong."""

    @functools.wraps(function)
    def wrapped(*values, **others):
        try:
            return function(*values, **others)
        except (UserError, ValueError) as error:
            raise gr.Error(first_line(error), print_exception=False) from None

    return wrapped


def label_choice(subject, name):
    """A list with the component that chooses what the decoder sees; empty where it sees no label."""
    if not subject.model.decodes_labels:
        return []
    choices = [(text, k) for k, text in enumerate(subject.names)]
    if subject.model.attributes:
        return [gr.CheckboxGroup(choices, value=[], label=f"Attributes of {name}", type="value")]
    kind = gr.Radio if len(choices) <= MAX_BUTTONS else gr.Dropdown
    return [kind(choices, value=0, label=f"Label of {name}")]


def chosen(subject, labels):
    """The row (K,) of the value of `label_choice`, which is passed as a tuple of none or one; or None."""
    return subject.rows(labels[0]) if labels else None

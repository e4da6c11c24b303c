"""Settings as fields of dataclasses: each says once what it is called, means and may be.

Flags, their help, the table in docs/flags.md, the checks of values and the arguments of the models all
follow from these fields.
"""

import dataclasses
import math
import re

from utils import registry
from utils.errors import UserError

# In the order of `--help`.
GROUPS = ("first", "model", "data", "training", "output", "advanced")


def setting(
    default,
    help,
    group,
    choices=(),
    at_least=None,
    above=None,
    at_most=None,
    below=None,
    pattern="",
    example="",
    only=None,
    before=None,
    aliases=(),
    changeable=False,
):
    """A field of a dataclass of settings.

    Args:
        default: its value where nothing else is said; its type is the setting's.
        help: what it means: a sentence or two.
        group: one of `GROUPS`.
        choices: the texts that it may be, a list or a registry that has them as keys; none for any.
        at_least, above, at_most, below: limits of a number.
        pattern: regular expression that the whole of a text must match, if it is none of the choices.
        example: what a text looks like, for the message when it does not match, and what it means.
        only: dict of another setting's name to the values with which this one means something; {} and None
            for always.
        before: what runs did that were written before the setting existed, if not the default.
        aliases: other names of the flag.
        changeable: whether a resumed run may change it.
    """
    if group not in GROUPS:
        raise ValueError(f"{group!r} is not one of {', '.join(GROUPS)}.")
    metadata = {name: value for name, value in locals().items() if name != "default"}
    return dataclasses.field(default=default, metadata=metadata)


def check(settings):
    """Refuses values outside of their limits.

    Raises:
        UserError: one line about the first one.
    """
    for field in dataclasses.fields(settings):
        if problem := _problem(field, getattr(settings, field.name)):
            raise UserError(problem)


def _problem(field, value):
    """What is wrong with the value of a field, or ""."""
    of = field.metadata
    kinds = (int, float) if isinstance(field.default, float) else type(field.default)
    if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(field.default, bool)):
        return f"--{field.name} must be of type {type(field.default).__name__}, got {value!r}."
    matches = of["pattern"] and re.fullmatch(of["pattern"], value)
    if of["choices"] and not matches and value not in of["choices"]:
        return registry.unknown_choice(field.name, value, of["choices"])
    if of["pattern"] and not of["choices"] and not matches:
        return f"--{field.name} must be {of['example']}, got {value!r}."
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        bounds = (
            (of["at_least"], "at least", lambda limit: value >= limit),
            (of["above"], "above", lambda limit: value > limit),
            (of["at_most"], "at most", lambda limit: value <= limit),
            (of["below"], "below", lambda limit: value < limit),
        )
        given = [(limit, words, holds) for limit, words, holds in bounds if limit is not None]
        if not (math.isfinite(value) and all(holds(limit) for limit, _, holds in given)):
            limits = " and ".join(f"{words} {limit}" for limit, words, _ in given) or "finite"
            limits = re.sub(r"^at least (\d+) and at most (\d+)$", r"from \1 to \2", limits)
            return f"--{field.name} must be {limits}, got {value}."
    return ""


def meaningless(settings, name):
    """Why a setting has no effect beside the others, as words such as "--lr_schedule step"; "" if it has."""
    field = {field.name: field for field in dataclasses.fields(settings)}[name]
    for other, values in (field.metadata["only"] or {}).items():
        value = getattr(settings, other)
        if value not in values and str(value).partition(":")[0] not in values:  # tfds:NAME is tfds
            return f"--{other} {value}"
    return ""


def where(field):
    """Where a setting means something, as words such as "lr_schedule plateau"; "" for everywhere."""
    conditions = (field.metadata["only"] or {}).items()
    return ", ".join(f"{other} {' or '.join(str(v).lower() for v in values)}" for other, values in conditions)


def of_saved(settings, saved):
    """Settings by name, as they were saved, with what was done before a missing one existed.

    Args:
        settings: the dataclass.
        saved: dict of values by name.
    """
    before = {field.name: field.metadata["before"] for field in dataclasses.fields(settings)}
    return {name: value for name, value in before.items() if value is not None} | saved

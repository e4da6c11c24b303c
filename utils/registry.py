"""Tables of what `main.py` can choose from, readable without importing TensorFlow."""

import difflib
import importlib


def load(registry, name):
    """Imports and returns what `registry` lists under a name, or the name itself: "module:attribute"."""
    module, attribute = registry.get(name, name).split(":")
    return getattr(importlib.import_module(module), attribute)


def unknown_choice(flag, value, choices):
    """One line for a name that is not among `choices`, with the closest match if there is one."""
    close = difflib.get_close_matches(value.lower(), choices, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"--{flag} {value!r} is not one of {', '.join(choices)}{hint}"

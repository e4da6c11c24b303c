"""What is said of the flags: `--help`, and the page docs/flags.md, which `python -m training.help` writes."""

import dataclasses
import textwrap
from pathlib import Path

from training.settings import Config
from utils.files import write_text
from utils.settings import GROUPS, where

PAGE = Path(__file__).parents[1] / "docs" / "flags.md"
USAGE = """Trains an adversarial autoencoder and leaves pictures, figures and the model in runs/.

  python main.py --model supervised --prior gaussian_mixture --n_z 2 --PMLR True
  python main.py --flagfile=configs/seed_supervised.flags
"""
INTRODUCTION = """# Flags

`make flags` writes this page from `models/settings.py`, `training/settings.py` and
`training/use_settings.py`.

A flag file, `--flagfile=PATH`, holds flags, one a line; later ones win. Booleans take every spelling:
`--PMLR`, `--PMLR True`, `--PMLR=false`, `--noPMLR`. A flag that has no effect beside the others is refused
on the command line and may stand in a flag file. `--recipe` sets the defaults of other flags, see
`training/recipes.py`."""
TITLES = {
    "first": "The ones to know",
    "model": "Model",
    "data": "Data",
    "training": "Training",
    "output": "Output",
    "advanced": "Advanced",
}


def help_text():
    """What --help shows: the flags in groups, each with its default, its choices and where it applies."""
    lines = []
    for group in GROUPS:
        lines.append(f"\n{TITLES[group]}:")
        for field in dataclasses.fields(Config):
            if field.metadata["group"] == group:
                lines += _help_lines(field)
    return "\n".join(lines)


def _help_lines(field):
    names = [field.name, *field.metadata["aliases"]]
    boolean = isinstance(field.default, bool)
    head = ", ".join(f"--[no]{name}" if boolean else f"--{name}" for name in names)
    default = str(field.default).lower() if boolean else field.default
    about = [f"default {default}" if default != "" else ""]
    about += [f"one of {choices_of(field)}" if field.metadata["choices"] else ""]
    about += [f"only with {where(field)}" if where(field) else ""]
    text = f"{field.metadata['help']} ({'; '.join(filter(None, about))})".replace(" ()", "")
    wrapped = textwrap.wrap(text, 96, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return [f"  {head}", *wrapped]


def choices_of(field):
    """What a text may be, as words: its choices, and what else matches."""
    of = field.metadata
    return ", ".join(of["choices"]) + (f", or {of['example']}" if of["pattern"] else "")


def markdown_page():
    """docs/flags.md: all flags as tables."""
    parts = [INTRODUCTION]
    for group in GROUPS:
        rows = ["| flag | default | meaning | only with |", "|---|---|---|---|"]
        for field in dataclasses.fields(Config):
            if field.metadata["group"] != group:
                continue
            names = ", ".join(f"`--{name}`" for name in (field.name, *field.metadata["aliases"]))
            default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
            meaning = field.metadata["help"]
            meaning += f" One of {choices_of(field)}." if field.metadata["choices"] else ""
            rows.append(f"| {names} | {default} | {meaning} | {where(field)} |")
        parts.append(f"## {TITLES[group]}\n\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    write_text(PAGE, markdown_page())

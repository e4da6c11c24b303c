"""The rooms of the project: imports point downwards only, and what is added from outside needs one place."""

import ast

import pytest
from conftest import ROOT

# Who may import whom: a room may use itself and those to its right.
LAYERS = {
    "main": {"explorer", "training", "utils"},
    "experiments": {"main", "benchmarks", "training", "models", "utils"},
    "benchmarks": {"main", "training", "evaluation", "models", "data", "utils"},
    "training": {"evaluation", "models", "priors", "data", "utils"},
    "explorer": {"evaluation", "models", "priors", "data", "utils"},
    "evaluation": {"models", "utils"},
    "models": {"priors", "data", "utils"},
    "priors": {"utils"},
    "data": {"utils"},
    "utils": set(),
}
# Imports within functions: they keep TensorFlow and NumPy out of the first half second.
LATE = {"training.run", "training.fit", "training.export", "models.loading", "benchmarks", "main"}
LATE |= {"training.exploration", "explorer.page"}
# Those of `training.own_parts`, which looks at classes of the user's own.
LATE |= {"models.adversarial_autoencoder", "models.semi_supervised", "priors.prior"}
FILES = [
    *(path for room in LAYERS for path in (ROOT / room).glob("*.py")),
    ROOT / "main.py",
]


def imported(path, top_level):
    """Names of the project's own modules that a file imports: at its top level, or within functions."""
    tree = ast.parse(path.read_text())
    at_top = {id(node) for node in tree.body}
    names = set()
    for node in ast.walk(tree):
        if (id(node) in at_top) != top_level:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {m if (ROOT / f"{m.replace('.', '/')}.py").is_file() else node.module for m in modules}
    return {name for name in names if name.split(".")[0] in LAYERS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path):
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    used = {name.split(".")[0] for name in imported(path, True) | imported(path, False)}
    assert used <= LAYERS[room] | {room}


def test_there_are_no_circles():
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    uses = {name: imported(path, True) & modules.keys() for name, path in modules.items()}
    while free := [name for name, others in uses.items() if not others]:
        for name in free:
            del uses[name]
        uses = {name: others - set(free) for name, others in uses.items()}
    assert not uses


def test_imports_within_functions_are_few():
    for path in FILES:
        room = path.relative_to(ROOT).parts[0]
        late = imported(path, False)
        if room not in ("benchmarks", "experiments"):
            assert late <= LATE, path


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short(path):
    if path.parent.name != "benchmarks":
        assert len(path.read_text().splitlines()) <= 300


def test_the_shared_room_is_small():
    assert sum(len(path.read_text().splitlines()) for path in (ROOT / "utils").glob("*.py")) <= 600

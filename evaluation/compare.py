"""Several runs side by side: `python -m evaluation.compare runs/a runs/b` makes a table and a picture."""

import argparse
import csv
import dataclasses
import io
import json
import sys
from pathlib import Path

import cv2
import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

from evaluation.labels import class_color
from evaluation.plots import save_figure
from utils.errors import UserError, first_line, refuse
from utils.files import write_text
from utils.untrusted import read_limited

MAX_BYTES = 2**24  # of each file that is read
FOLDER = Path("runs", "comparison")
# What runs may always differ in.
PLACES = ("run_dir", "data_dir", "resume", "export", "explore", "explore_host", "explore_port")
N_COLUMNS = 3  # of curves
CURVES = {
    "val_reconstruction_mse": "validation: reconstruction error",
    "val_error_percent": "validation: labels wrong, %",
    "val_label_swap_accuracy": "validation: labels obeyed",
    "val_component_accuracy": "validation: codes in their class's part",
    "d_loss": "D's loss",
    "g_loss": "G's loss",
}


@dataclasses.dataclass(frozen=True)
class Finished:
    """What is compared of a run: its name, its flags, its figures by name, its curves, and its samples.

    Attributes:
        curves: lists of floats by the column of history.csv.
        samples: plots/samples.png, uint8 (H, W, 3), or None.
    """

    name: str
    flags: dict
    figures: dict
    curves: dict
    samples: np.ndarray | None


def read_finished(name):
    """The `Finished` of a run directory, or of a name in runs/.

    Raises:
        UserError: if there is no finished run, or one of its files is damaged.
    """
    directory = next((path for path in (Path(name), Path("runs", name)) if path.is_dir()), None)
    if directory is None:
        raise UserError(f"There is no run {name}, neither here nor in runs/.")
    if not (directory / "metrics.json").is_file():
        raise UserError(f"{directory} is no finished run: metrics.json is missing.")
    try:
        flags = json.loads(read_limited(directory / "config.json", MAX_BYTES))["flags"]
        metrics = json.loads(read_limited(directory / "metrics.json", MAX_BYTES))
        rows = list(csv.DictReader(io.StringIO(read_limited(directory / "history.csv", MAX_BYTES).decode())))
        figures = {key: value for key, value in metrics.items() if isinstance(value, (int, float))}
        curves = {key: [float(row[key]) for row in rows] for key in rows[0]}
        flags = {key: str(value) for key, value in flags.items() if key not in PLACES}
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(f"{directory} is damaged: {first_line(error)}") from None
    picture = directory / "plots" / "samples.png"
    content = np.frombuffer(read_limited(picture, MAX_BYTES), np.uint8) if picture.is_file() else b""
    samples = cv2.imdecode(content, cv2.IMREAD_COLOR_RGB) if len(content) else None
    return Finished(directory.resolve().name, flags, figures, curves, samples)


def table(runs):
    """Markdown: a column for each run; rows for the flags in which they differ, and for all figures."""
    names = [run.name.replace("|", "\\|") for run in runs]
    lines = ["| | " + " | ".join(names) + " |", "|---" * (1 + len(runs)) + "|"]
    for flag in dict.fromkeys(key for run in runs for key in run.flags):
        values = [run.flags.get(flag, "") for run in runs]
        if len(set(values)) > 1:
            lines.append(f"| --{flag} | " + " | ".join(values) + " |")
    for figure in dict.fromkeys(key for run in runs for key in run.figures):
        values = [f"{run.figures[figure]:.5g}" if figure in run.figures else "" for run in runs]
        lines.append(f"| {figure} | " + " | ".join(values) + " |")
    return "\n".join(lines) + "\n"


def save_comparison(path, runs):
    """The curves of all runs in the same axes, and their samples below."""
    names = [name for name in CURVES if any(name in run.curves for run in runs)]
    n_rows = -(-len(names) // N_COLUMNS)
    size = (3.6 * max(N_COLUMNS, len(runs)), 2.6 * n_rows + 4)
    figure = plt.figure(figsize=size, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[2.6 * n_rows, 4])
    grid = above.subplots(n_rows, N_COLUMNS, squeeze=False).ravel()
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(grid, names, strict=False):
        for index, run in enumerate(runs):
            if name in run.curves:
                style = {"color": class_color(index), "marker": ".", "label": run.name}
                axes.plot(run.curves["epoch"], run.curves[name], **style)
        axes.set(title=CURVES[name], xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    grid[0].legend(fontsize=8)
    for axes, run in zip(below.subplots(1, len(runs), squeeze=False)[0], runs, strict=True):
        if run.samples is not None:
            axes.imshow(run.samples)
        axes.set_title(run.name)
        axes.set_axis_off()
    save_figure(figure, path)


def main(argv):
    """Compares the runs that the words name; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.compare", description=__doc__)
    parser.error = refuse
    parser.add_argument("runs", nargs="+", help="run directories, or their names in runs/")
    parser.add_argument("--out", type=Path, default=FOLDER, help=f"folder to write to (default {FOLDER})")
    try:
        words = parser.parse_args(argv[1:])
        runs = [read_finished(name) for name in words.runs]
        words.out.mkdir(parents=True, exist_ok=True)
        write_text(words.out / "comparison.md", text := table(runs))
        save_comparison(words.out / "comparison.png", runs)
    except (UserError, OSError) as error:
        print(f"compare: error: {first_line(error)}", file=sys.stderr)
        return 2
    print(f"{text}\n{words.out / 'comparison.md'}\n{words.out / 'comparison.png'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))

"""How a training went: the columns of history.csv against the epoch."""

import re

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import LogFormatter

from evaluation.labels import CLASS_COLORS
from evaluation.plots import save_figure


def save_curves(path, rows, note=""):
    """Losses, D's accuracies, reconstruction errors, learning rate, and what there is of labels, per epoch.

    Args:
        rows: the rows of history.csv, dicts of floats.
    """
    epochs = [row["epoch"] for row in rows]
    d_losses = [name for name in rows[0] if re.fullmatch(r"d_(._)?loss", name)]
    # An undecided D stands at 2 ln 2, and G at ln 2 for each D.
    of_losses = {"d": 2 * np.log(2), "g": len(d_losses) * np.log(2)}
    panels = [
        ("Adversarial losses", [*d_losses, "g_loss"], of_losses),
        ("D's accuracy", [name for name in rows[0] if re.match(r"d_.*accuracy", name)], {"d": 0.5}),
        ("Reconstruction error", ["reconstruction_loss", "val_reconstruction_mse"], {}),
        ("Learning rate", [name for name in rows[0] if name.endswith("learning_rate")], {}),
    ]
    of_labels = [
        ("Validation error in percent", ["val_error_percent"]),
        ("Codes in their class's part of the prior", ["val_component_accuracy"]),
        ("Labelled images", ["label_loss", "labelled_accuracy"]),
        ("Consistency of copies", ["consistency_loss"]),
        ("Labels obeyed", ["cycle_accuracy", "val_label_swap_accuracy"]),
    ]
    for title, names in of_labels:
        if names := [name for name in names if name in rows[0]]:
            panels.append((title, names, {}))
    n_columns = -(-len(panels) // 2)
    figure, grid = plt.subplots(2, n_columns, figsize=(5 * n_columns, 6.5))
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, names, equilibria) in zip(grid.flat, panels, strict=False):
        for index, name in enumerate(names):
            values = [row[name] for row in rows]
            axes.plot(epochs, values, color=CLASS_COLORS[index], marker=".", label=name)
        for (player, value), style in zip(equilibria.items(), (":", "--"), strict=False):
            axes.axhline(value, color="0.3", linestyle=style, label=f"equilibrium of {player}, {value:.3f}")
        # Half the sum over the pixels and their mean are far apart.
        if title in ("Learning rate", "Reconstruction error"):
            axes.set_yscale("log")
            # Typeset powers of ten would take an eighth of the picture's time.
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False))
        axes.set(title=title, xlabel="epoch", xlim=(epochs[0] - 0.5, epochs[-1] + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.3)
    save_figure(figure, path, note, margins=(0.65, 0.15, 0.55, 0.35), gaps=(0.16, 0.32))

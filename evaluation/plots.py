"""All still pictures: each function draws one figure and writes it atomically."""

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from PIL import Image

from evaluation.labels import CLASS_COLORS, class_color, class_name, class_names
from utils.files import atomic_path

# By default matplotlib measures all ticks to lift titles over them, but here none are at the top.
matplotlib.rcParams["axes.titley"] = 1.0

DPI = 110
CELL = 0.36  # inches per image of a sheet
TITLE_INCHES, NOTE_INCHES, TICK_INCHES = 0.09, 0.065, 0.08  # per character
NOTE_HEIGHT = 0.2  # inches


def _room(texts):
    """Inches that names beside an axis need; none for numbers, for which there is room."""
    longest = max(map(len, texts or []), default=0)
    return 0.3 + TICK_INCHES * longest if longest > 3 else 0


def save_image_grid(path, images, n_columns, title, note="", row_labels=None):
    """One sheet of images.

    Args:
        images: float (N, H, W, C) in [0, 1] or uint8; row by row.
        row_labels: one text per row, or None.
    """
    sheet = tile(images, n_columns)
    size = (CELL * n_columns + 0.6 + _room(row_labels), CELL * len(images) / n_columns + 0.9)
    figure, axes = plt.subplots(figsize=size, layout="constrained")
    _show_sheet(axes, sheet)
    if row_labels is not None:
        height = sheet.shape[0] / len(row_labels)
        axes.set_yticks((np.arange(len(row_labels)) + 0.5) * height, row_labels)
    axes.set_title(title)
    save_figure(figure, path, note)


def save_sheets(path, sheets, title, note="", row_labels=((), ())):
    """Sheets of images side by side, with equally many rows.

    Args:
        sheets: tuples of a title, images as of `save_image_grid`, and how many of them are in a row.
        row_labels: one text per row, at the left of all sheets and at the right; () for none.
    """
    widths = [max(CELL * columns, TITLE_INCHES * len(name)) for name, _, columns in sheets]
    rows = max(-(-len(images) // columns) for _, images, columns in sheets)
    room = sum(0.3 + _room(texts) for texts in row_labels if texts)
    figure, grid = plt.subplots(
        1,
        len(sheets),
        figsize=(sum(widths) + 0.6 + room, CELL * rows + 0.8),
        width_ratios=widths,
        layout="constrained",
    )
    for axes, (name, images, columns) in zip(grid, sheets, strict=True):
        _show_sheet(axes, tile(images, columns))
        axes.set_title(name, fontsize=10)
        axes.set_anchor("N")
    for axes, texts in zip((grid[0], grid[-1]), row_labels, strict=True):
        if texts:
            axes.set_yticks((np.arange(rows) + 0.5) * sheets[0][1].shape[1], texts)
    if row_labels[1]:
        grid[-1].yaxis.tick_right()
    figure.suptitle(title)
    save_figure(figure, path, note)


def save_reconstructions(path, images, reconstructions, note=""):
    """100 originals on the left, their reconstructions on the right."""
    size = (20 * CELL + 1, 10 * CELL + 0.6)
    figure, (left, right) = plt.subplots(1, 2, figsize=size, layout="constrained")
    for axes, sheet, title in (
        (left, images, "Test images"),
        (right, reconstructions, "Reconstructions"),
    ):
        _show_sheet(axes, tile(sheet[:100], 10))
        axes.set_title(title)
    save_figure(figure, path, note)


def save_beside(path, images, others, titles, note="", row_labels=None, column_labels=None):
    """One row per image: the image itself, then a gap, then others.

    Args:
        images: float (N, H, W, C) in [0, 1].
        others: float (N * M, H, W, C) in [0, 1], M for each, row by row.
        titles: of both parts.
        row_labels: one text per image, or None.
        column_labels: one text per column of the others, or None.
    """
    n_columns = len(others) // len(images)
    sheets = [tile(images, 1), tile(others, n_columns)]
    figure, (left, right) = plt.subplots(
        1,
        2,
        figsize=(
            CELL * (n_columns + 2) + 0.6 + _room(row_labels),
            CELL * len(images) + 0.9 + _room(column_labels),
        ),
        width_ratios=[1, n_columns],
        layout="constrained",
    )
    for axes, sheet, title in zip((left, right), sheets, titles, strict=True):
        _show_sheet(axes, sheet)
        axes.set_anchor("N")  # the room is below, for names
        axes.set_title(title)
    if row_labels is not None:
        left.set_yticks((np.arange(len(images)) + 0.5) * images.shape[1], row_labels)
    if column_labels is not None:
        upright = {"rotation": 90} if _room(column_labels) else {}
        right.set_xticks((np.arange(n_columns) + 0.5) * images.shape[2], column_labels, **upright)
    save_figure(figure, path, note)


def save_confusion(path, labels, predictions, note="", names=()):
    """How many images of each label (rows) were given which label (columns); `names` as of `save_codes`."""
    n_classes = int(max(labels.max(), predictions.max())) + 1
    counts = np.zeros((n_classes, n_classes), int)
    np.add.at(counts, (labels, predictions), 1)
    texts = class_names(range(n_classes), names)
    figure, axes = plt.subplots(figsize=(6 + _room(texts), 6 + _room(texts)), layout="constrained")
    # Errors are few: the colours show the share of a row on a scale that lets them be seen.
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.4 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=color, fontsize=8)
    wrong = 1 - np.trace(counts) / counts.sum()
    axes.set(
        xlabel="predicted label",
        ylabel="label",
        title=f"{len(labels)} test images, {100 * wrong:.2f} % wrong",
    )
    axes.set_xticks(range(n_classes), texts, **({"rotation": 90} if _room(texts) else {}))
    axes.set_yticks(range(n_classes), texts)
    save_figure(figure, path, note)


def save_codes(path, codes, labels, limit, title, note="", heads=None, names=()):
    """Scatter of two-dimensional codes coloured by class, with the class number at each class's median.

    Args:
        codes: float (N, 2).
        labels: int (N,); None, or attributes (N, K), to leave the classes out.
        limit: the axes run from -limit to limit, so that two pictures can be laid side by side.
        heads: float (K, 2), of labels or clusters, to mark with crosses; or None.
        names: of the classes, for the legend; () where they are just numbers.
    """
    figure, axes = plt.subplots(figsize=(6.4, 6.4))
    draw_codes(axes, codes, labels, limit, names)
    if heads is not None:
        axes.plot(*heads.T, "kx", markersize=8)
    axes.set_title(title)
    save_figure(figure, path, note, margins=(0.7, 0.1, 0.5, 0.35))


def draw_codes(axes, codes, labels, limit, names=()):
    """The scatter of `save_codes` on given axes."""
    size = 400 / np.sqrt(len(codes)) / 2
    if labels is None or labels.ndim == 2:
        axes.scatter(codes[:, 0], codes[:, 1], s=size, color=CLASS_COLORS[0], linewidths=0)
    else:
        for label in np.unique(labels):
            own = codes[labels == label]
            color = class_color(label)
            axes.scatter(
                own[:, 0], own[:, 1], s=size, color=color, linewidths=0, label=class_name(label, names)
            )
            # The member nearest to the median lies on the class even where the class is curved.
            x, y = own[np.argmin(np.abs(own - np.median(own, axis=0)).sum(axis=1))]
            box = {"boxstyle": "circle,pad=0.15", "facecolor": "white", "edgecolor": color}
            axes.text(x, y, str(label), ha="center", va="center", fontsize=9, bbox=box, clip_on=True)
        axes.legend(title="class", loc="upper right", markerscale=2, fontsize=8)
    outside = int(np.sum(np.abs(codes).max(axis=1) > limit))
    if outside:
        axes.text(0.01, 0.01, f"{outside} of {len(codes)} outside", transform=axes.transAxes, fontsize=8)
    if outside == len(codes):
        # The plane is empty, as after a failed training: a small one shows where they are.
        inset = axes.inset_axes([0.55, 0.08, 0.4, 0.4])
        inset.scatter(codes[:, 0], codes[:, 1], s=2, color=CLASS_COLORS[0], linewidths=0)
        inset.set_title("where they are", fontsize=8)
        inset.tick_params(labelsize=7)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    axes.grid(alpha=0.3)


def save_scatter_matrix(path, codes, values, title, note="", names=()):
    """Every pair of axes of the code, coloured by class or by a figure of each code.

    Args:
        codes: float (N, n_z).
        values: int (N,), classes; or float (N,), figures such as D's logit, 0 in the middle of the scale.
        names: of the classes, as of `save_codes`.
    """
    n_axes = codes.shape[1]
    limit = np.quantile(np.abs(codes), 0.999)
    figure, grid = plt.subplots(
        n_axes - 1, n_axes - 1, figsize=(2 * n_axes, 2 * n_axes), layout="constrained", squeeze=False
    )
    classes = np.issubdtype(values.dtype, np.integer)
    if classes:
        colors = {"c": [class_color(value) for value in values]}
    else:
        scale = np.quantile(np.abs(values), 0.99)
        colors = {"c": values, "cmap": "PuOr", "vmin": -scale, "vmax": scale}
    for (row, column), axes in np.ndenumerate(grid):
        if column > row:
            axes.set_visible(False)
            continue
        points = axes.scatter(codes[:, column], codes[:, row + 1], s=1.5, linewidths=0, **colors)
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
        axes.label_outer()
        if row == n_axes - 2:
            axes.set_xlabel(f"$z_{{{column + 1}}}$")
        if column == 0:
            axes.set_ylabel(f"$z_{{{row + 2}}}$")
    if classes:
        handles = [
            matplotlib.lines.Line2D([], [], color=class_color(v), marker="o", linestyle="")
            for v in np.unique(values)
        ]
        figure.legend(handles, class_names(np.unique(values), names), title="class", loc="upper right")
    else:
        figure.colorbar(points, ax=grid, shrink=0.5, location="right")
    figure.suptitle(title)
    save_figure(figure, path, note)


def tile(images, n_columns):
    """Images (N, H, W, C) side by side, n_columns in a row: (rows * H, n_columns * W, C)."""
    images = np.asarray(images)
    n, height, width, channels = images.shape
    n_rows = -(-n // n_columns)
    padding = np.zeros((n_rows * n_columns - n, height, width, channels), images.dtype)
    grid = np.concatenate([images, padding]).reshape(n_rows, n_columns, height, width, channels)
    return grid.transpose(0, 2, 1, 3, 4).reshape(n_rows * height, n_columns * width, channels)


def _show_sheet(axes, sheet):
    grey = sheet.shape[2] == 1
    limit = 255 if sheet.dtype == np.uint8 else 1
    axes.imshow(sheet[..., 0] if grey else sheet, cmap="gray", vmin=0, vmax=limit)
    axes.set(xticks=[], yticks=[])


def save_figure(figure, path, note="", margins=None, gaps=(0, 0)):
    """Writes a figure; `note` goes below it, so that no picture is read without it.

    Args:
        margins: inches at the left, right, bottom and top of the axes, of a figure without a layout: to find
            them, matplotlib's would draw all text twice more, half of the time that a plot takes.
        gaps: between columns and rows of axes, in widths and heights of one.
    """
    if note:
        figure.supxlabel(note, fontsize=8, color="#bd1f01")
    # A title may be wider than its figure. `bbox_inches="tight"` would see to it, and draw everything twice.
    titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    needed = max(NOTE_INCHES * len(note), *(TITLE_INCHES * len(title) for title in titles)) + 0.2
    figure.set_figwidth(max(figure.get_figwidth(), needed))
    if margins:
        width, height = figure.get_size_inches()
        left, right, bottom, top = margins
        figure.subplots_adjust(
            left=left / width,
            right=1 - right / width,
            bottom=(bottom + (NOTE_HEIGHT if note else 0)) / height,
            top=1 - top / height,
            wspace=gaps[0],
            hspace=gaps[1],
        )
    figure.set_dpi(DPI)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., :3]
    if (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    with atomic_path(path) as temporary:
        # Six times as fast as print_png for a sheet of images, and a smaller file where all is grey.
        Image.fromarray(pixels).save(temporary, format="png", compress_level=1)
    plt.close(figure)

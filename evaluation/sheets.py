"""Pictures that lay images side by side: what lies between them, what is like them, what does not belong."""

import numpy as np

from evaluation import plots
from evaluation.figures import decode_samples, evenly
from evaluation.labels import class_names
from models.nearest import nearest

N_PAIRS, N_STEPS = 10, 9
N_NEIGHBOURS = 5
N_OUTLIERS = 20
MAX_SCORED = 10_000  # test images that outliers are sought among


def interpolations(of):
    """Straight lines from the codes of some test images to those of others, and their labels', decoded."""
    chosen = evenly(np.arange(len(of.codes)), 2 * N_PAIRS)
    chosen = chosen[: len(chosen) // 2 * 2]
    if len(chosen) == 0:
        return
    images, labels = of.data.test_images[chosen], of.data.test_labels[chosen]
    shares = np.linspace(0, 1, N_STEPS)[:, None]

    def lines(points):
        first, last = np.split(points, 2)
        return ((1 - shares) * first[:, None] + shares * last[:, None]).reshape(-1, points.shape[1])

    rows = lines(_label_rows(of, images, labels)) if of.model.decodes_labels else None
    begin, end = np.split(images, 2)
    between = of.model.decode(lines(of.codes[chosen]), rows)
    sheets = [("from", begin, 1), ("decoded in between", between, N_STEPS), ("to", end, 1)]
    path, title = of.plots / "interpolations.png", f"Between test images ({of.name})"
    ends = (
        ((), ()) if of.data.has_attributes else [class_names(part, of.names) for part in np.split(labels, 2)]
    )
    plots.save_sheets(path, sheets, title, of.data.note, ends)


def _label_rows(of, images, labels):
    """What the decoder sees beside the codes of images: their own labels (N, K), or those that are read."""
    if hasattr(of.model, "classify"):
        return of.model.classify(images)
    return labels if of.data.has_attributes else np.eye(of.model.n_classes)[labels]


def neighbours(of):
    """Samples beside the training images that are nearest to them: whether the model only remembers."""
    images = decode_samples(of.model, of.fixed_codes[: 2 * N_PAIRS], of.data)
    train = of.data.train_images
    indices, _ = nearest(images, train, min(N_NEIGHBOURS, len(train)))
    sheets = []
    for part, found in zip(np.split(images, 2), np.split(indices, 2), strict=True):
        sheets += [("sample", part, 1), ("nearest training images", train[found.ravel()], found.shape[1])]
    plots.save_sheets(of.plots / "neighbours.png", sheets, f"Is it memory? ({of.name})", of.data.note)


def outliers(of):
    """The test images that are reconstructed worst, and those whose codes are least probable."""
    chosen = evenly(np.arange(len(of.codes)), MAX_SCORED)
    images, labels = of.data.test_images[chosen], of.data.test_labels[chosen]
    scores = of.model.score(images, labels)
    sheets = []
    for title, score in (
        ("reconstructed worst", scores.reconstruction_error),
        ("least probable code", scores.code_surprise),
    ):
        worst = np.argsort(-score, kind="stable")[:N_OUTLIERS]
        again = of.model.reconstruct(images[worst], labels[worst])
        sheets += [(title, images[worst], 5), ("reconstructions", again, 5)]
    plots.save_sheets(
        of.plots / "outliers.png", sheets, f"Test images, the worst first ({of.name})", of.data.note
    )

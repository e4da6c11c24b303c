"""How the cost grows with the hidden units, the batch and the number of images."""

import dataclasses
import statistics

import numpy as np

from benchmarks import report
from benchmarks.cases import CASES
from benchmarks.operations import step_flops
from benchmarks.worker import Worker

HIDDEN, BATCHES, IMAGES = (250, 500, 1000, 2000, 3000), (32, 128, 512, 2048), (10**3, 10**4, 10**5, 10**6)
TINY_HIDDEN, TINY_BATCHES, TINY_IMAGES = (8, 16), (16, 32), (128, 256)
BLOCK_SECONDS = 0.4
REPEATS = 3


def measure_scaling(data, tiny):
    """Measures three curves.

    Returns:
        A list of dicts: `x`, the name of what grows; `values`, of x; `y`, what is measured; `seconds`;
        and `expected`, which grows as the operations of a step, or the images, and meets the last point.
    """
    hidden, batches, images = (TINY_HIDDEN, TINY_BATCHES, TINY_IMAGES) if tiny else (HIDDEN, BATCHES, IMAGES)
    base = CASES[0].shrunk() if tiny else CASES[0]

    def flops(case):
        return sum(step_flops(case.config(), data.image_shape, data.n_classes).values())

    curves = []
    step = Worker("benchmarks.tensorflow_steps:BareStep")
    for name, field, values in (("hidden units", "n_hidden", hidden), ("batch", "batch_size", batches)):
        cases = [base.with_flags(**{field: value}) for value in values]
        seconds = [_step_seconds(step, case, data) for case in cases]
        curves.append(_curve(name, values, "seconds per step", seconds, [flops(case) for case in cases]))
    step.stop()

    epoch = Worker("benchmarks.tensorflow_steps:FitEpochs")
    # A small network: a million images through a large one would take minutes and show the same.
    small = base.with_flags(n_hidden=min(images[0], 100), batch_size=min(images[0], 100))
    seconds = [_epoch_seconds(epoch, small, data, n) for n in images]
    curves.append(_curve("training images", images, "seconds per epoch of fit", seconds, images))
    epoch.stop()
    return curves


def _curve(x, values, y, seconds, costs):
    expected = [cost * seconds[-1] / costs[-1] for cost in costs]
    return {"x": x, "values": list(values), "y": y, "seconds": seconds, "expected": expected}


def _step_seconds(worker, case, data):
    """Seconds of a bare step: the median of a few blocks."""
    worker.ask("build", case, data)
    worker.answer()
    batch_size = case.config().batch_size
    steps = report.steps_in(BLOCK_SECONDS, worker.run(1), batch_size)
    return statistics.median(batch_size / report.rate([worker.run(steps)]) for _ in range(REPEATS))


def _epoch_seconds(worker, case, data, count):
    """Seconds of an epoch of `fit` over `count` images, the data's own again and again."""
    chosen = np.arange(count) % len(data.train_images)
    part = dataclasses.replace(
        data, train_images=data.train_images[chosen], train_labels=data.train_labels[chosen]
    )
    worker.ask("build", case, part)
    worker.answer()
    batch_size = case.config().batch_size
    return count // batch_size * batch_size / report.rate([worker.run(1)])


def save_scaling_plot(path, curves):
    """One log-log panel per curve, with what proportionality would give."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(curves), figsize=(4.2 * len(curves), 3.6), layout="constrained")
    for panel, curve in zip(panels, curves, strict=True):
        panel.loglog(curve["values"], curve["seconds"], "o-", label="measured")
        panel.loglog(curve["values"], curve["expected"], ":", color="grey", label="in proportion to the work")
        panel.set_xlabel(curve["x"])
        panel.set_ylabel(curve["y"])
        panel.set_xticks(curve["values"], curve["values"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)

"""The page of results, made from the small files of the runs alone."""

import json
import math

import numpy as np

from experiments.jobs import different, result_path
from experiments.list import GROUPS
from utils.errors import UserError, first_line
from utils.files import write_text
from utils.untrusted import read_limited

MAX_RESULT_BYTES = 2**16
MORE_DECIMALS = 2  # at most, for a standard deviation that would show as zero
ABSENT = "-"
INTRODUCTION = """# Results

Written by `{command}`, which runs what is missing, from the files in
[`results/`](results): do not edit. `{command} --table` only writes this page.
{note}
A cell is the mean over the seeds ± their standard deviation (n - 1). A seed draws the weights, the order of
the images, all noise, and which images are labelled. The test split was read once, at the end; all figures
but the validation error are of the whole of it.

The joint discriminator, the cycle, the consistency and its distortion were chosen by figures of the
validation split (5,000 labelled images, which is more than the 100 or 1,000 labels of a run). The rates of
`short`, and the rates, schedules and `--d_penalty` of the conditional and unconditional models, stem from
comparisons that had the test figures in view; so do, of the supervised models, the end without noise, of 10
epochs instead of 5, as the roll is then nearer to its prior, and the earlier fall of the rate on the roll. Of
`best_semi_supervised.flags`, the errors that chose are of the validation split; the distance, MSE and swap by
which `--d_rate`, `--g_rate` and `--cycle_rate` were weighed are of test images
([tables](semi_supervised.md#what-few-labels-gain-from-the-others)).

- *test MSE*: squared error of the reconstructions, mean over pixels on the [0, 1] scale.
- *floors*: distance of the codes to the prior, in multiples of that between two samples of the prior;
  *training images*: the same of as many of their codes.
- *label swap*: how often a separately trained network reads the label that was given, when the styles of test
  images are decoded with every label, or of every cluster, which is to show the label that it gets;
  *generated label*: the same for samples of the prior. *Its worst label* is the one that is read least often.
- *test error* of clusters: each cluster takes the label of the validation image that belongs to it most
  surely, and each test image the label of its cluster.
- *component accuracy*: share of the codes in the part of the prior that belongs to their class; *its
  ceiling*: what codes drawn from the prior would reach.
- *minutes*: of one training by the clock, pauses and other work included, with the threads that stand after
  the processor. A GPU before it was shared by several runs; their figures so far are of TF32 products.
- *the paper*, *best public code*: as they were reported; "-" where nothing was.
"""
QUICK_NOTE = """
**A smoke test: tiny networks, one epoch, 1,797 small digits. The figures mean nothing.**
"""


def write_page(places, experiments, command, quick=False):
    """Writes the page.

    Args:
        places: a `Places`; only its results are read.
        experiments: list of `Experiment`.
        command: that writes the page, for the reader.
        quick: whether the experiments are those of the smoke test.

    Raises:
        UserError: if a small file is damaged.
    """
    parts = [INTRODUCTION.format(command=command, note=QUICK_NOTE if quick else "")]
    for group, figures in GROUPS.items():
        members = [experiment for experiment in experiments if experiment.group == group]
        if members:
            parts.append(_section(group, figures, members, places))
    places.page.parent.mkdir(parents=True, exist_ok=True)
    write_text(places.page, "\n".join(parts))


def read_results(places, experiment):
    """The small files of an experiment, by seed, and which of them are of other flags than it has now.

    Returns:
        dict of dicts, and a dict of such flags, as text, by seed.
    """
    results, others = {}, {}
    settings = experiment.settings()
    for seed in experiment.seeds:
        path = result_path(places, experiment, seed)
        try:
            result = json.loads(read_limited(path, MAX_RESULT_BYTES))
            if (result["experiment"], result["seed"]) != (experiment.name, seed):
                raise ValueError("it is of another run")
            if not all(math.isfinite(value) for value in result["figures"].values()):
                raise ValueError("a figure is not finite")
            if names := different(result["flags"], settings):
                others[seed] = names
            else:
                results[seed] = result
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is no result of this program: {type(error).__name__}: {first_line(error)}."
            ) from None
    return results, others


def mean_and_deviation(values, decimals):
    """Text such as `1.53 ± 0.12`; the mean alone of one value, and "-" of none.

    Args:
        decimals: at least; up to MORE_DECIMALS more, as far as the standard deviation needs to show.
    """
    if not values:
        return ABSENT
    mean = np.mean(values)
    if len(values) == 1:
        return f"{mean:.{decimals}f}"
    deviation = np.std(values, ddof=1)
    if deviation > 0:
        needed = math.ceil(-math.log10(deviation))
        decimals = min(max(decimals, needed), decimals + MORE_DECIMALS)
    return f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"


def _section(group, figures, experiments, places):
    """The table of a group, what it lacks, and the flags of its rows."""
    titles = [
        "",
        *(figure.title for figure in figures),
        "shifted images",
        "seeds",
        "the paper",
        "best public code",
        "minutes",
        "processor",
    ]
    rows, notes = [], []
    for experiment in experiments:
        results, others = read_results(places, experiment)
        rows.append(_row(experiment, figures, results))
        notes += _notes(experiment, figures, results, others)
    lines = [f"## {group}", "", _table_row(titles), _table_row(["---"] * len(titles))]
    lines += [_table_row(row) for row in rows]
    lines += ["", f"Missing: {'; '.join(notes)}." if notes else "Nothing is missing.", ""]
    lines += ["Flags after `python main.py`, beside `--seed`:", ""]
    lines += [
        f"- {experiment.title} (`{experiment.name}`): `{experiment.command()}`" for experiment in experiments
    ]
    return "\n".join(lines) + "\n"


def _row(experiment, figures, results):
    """The cells of an experiment."""
    config = experiment.config()
    moved = f"yes, up to {config.shift} px" if config.shift else "no"
    if limit := config.d_distortion or (config.distortion if config.consistency else 0):
        moved += f"; copies distorted, up to {limit:.0%}"
    measured = [
        mean_and_deviation(_values(figure, results), figure.decimals) if results else ABSENT
        for figure in figures
    ]
    minutes = [result["minutes"] for result in results.values() if result.get("minutes")]
    return [
        experiment.title if results else f"{experiment.title}: not run yet",
        *measured,
        moved,
        f"{len(results)} of {len(experiment.seeds)}",
        experiment.paper,
        experiment.public,
        _minutes(minutes),
        "; ".join(dict.fromkeys(_processor(result) for result in results.values())) or ABSENT,
    ]


def _values(figure, results):
    """The figure of every seed that has it."""
    values = (figure.of(result["figures"]) for result in results.values())
    return [value for value in values if value is not None]


def _minutes(minutes):
    if not minutes:
        return ABSENT
    mean = np.mean(minutes)
    return f"{mean:.0f}" if mean >= 10 else f"{mean:.1f}"


def _processor(result):
    """Such as `AMD EPYC 7B13 (avx2), 1 thread`."""
    if not result.get("processor"):
        return "not known"
    instructions = ", ".join(result.get("instructions") or ["no avx2"])
    threads = result.get("threads") or "?"
    return f"{result['processor']} ({instructions}), {threads} thread{'s' if threads != 1 else ''}"


def _notes(experiment, figures, results, others):
    """What the row lacks, one text per kind of lack."""
    absent = [seed for seed in experiment.seeds if seed not in results and seed not in others]
    notes = [f"`{experiment.name}` {_seeds(absent)}"] if absent else []
    for seed, names in others.items():
        notes.append(f"`{experiment.name}` {_seeds([seed])}, whose file has other values of {names}")
    for figure in figures:
        unmeasured = [seed for seed in results if figure.of(results[seed]["figures"]) is None]
        if unmeasured:
            notes.append(f"{figure.name} of `{experiment.name}` {_seeds(unmeasured)}")
    return notes


def _seeds(seeds):
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _table_row(cells):
    # A processor's name could hold the character that ends a cell.
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

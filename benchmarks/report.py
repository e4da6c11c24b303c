"""What the figures were measured on, what they should be, and how they are printed."""

import dataclasses
import os
import platform
import statistics
from importlib import metadata

from utils import processor

# Flags of the processor that decide how fast it multiplies matrices.
FLAG_PREFIXES = ("avx2", "avx512", "avx_vnni", "amx", "fma", "bf16")
PACKAGES = ("tensorflow", "keras", "numpy", "torch")


@dataclasses.dataclass(frozen=True)
class Target:
    """A ratio of images per second, of a contender to a reference, that the project sets itself.

    Attributes:
        at_least, aim: what it must reach, and what it should.
        only: flags of the cases that it holds for.
        on: instructions that the processor must have, or lack.
    """

    contender: str
    reference: str
    at_least: float
    aim: float
    only: dict = dataclasses.field(default_factory=dict)
    on: dict = dataclasses.field(default_factory=dict)

    def holds_for(self, config):
        there = processor.instructions()
        return all(getattr(config, name) == value for name, value in self.only.items()) and all(
            (name in there) == has for name, has in self.on.items()
        )


SUPERVISED = {"model": "supervised"}
AVX512, AVX2 = {"avx512f": True}, {"avx512f": False}
TARGETS = (
    Target("bare", "PyTorch best", 1.40, 1.6, {**SUPERVISED, "n_hidden": 1000}, AVX2),
    Target("bare", "PyTorch best", 1.40, 1.6, {**SUPERVISED, "n_hidden": 3000}, AVX2),
    Target("bare", "PyTorch best", 1.40, 1.8, {**SUPERVISED, "n_hidden": 1000}, AVX512),
    Target("bare", "PyTorch best", 1.55, 1.8, {**SUPERVISED, "n_hidden": 3000}, AVX512),
    Target("bare", "PyTorch best", 1.20, 1.45, {"model": "semi_supervised"}),
    Target("bare", "PyTorch best", 1.25, 1.5, {"network": "conv", "n_z": 5}),
    Target("bare", "PyTorch best", 1.15, 1.5, {"network": "conv", "n_z": 50}),
    # Convolutional steps spend much of their time on what the limit does not count: see docs/speed.md.
    Target("bare", "limit", 0.80, 0.90, {**SUPERVISED, "n_hidden": 1000}),
    Target("bare", "limit", 0.90, 0.97, {**SUPERVISED, "n_hidden": 3000}),
    Target("bfloat16", "bare", 1.35, 2.0, SUPERVISED, {"avx512_bf16": True}),
    Target("reconstruct", "PyTorch reconstruct", 1.0, 1.3),
    Target("fit", "bare", 0.96, 0.99, {"data": "auto"}),
    Target("fit", "bare", 0.80, 0.95, {"data": "digits"}),
)
# Seconds: at most, and aimed at.
STARTUP_TARGETS = {
    "--help": (0.5, 0.2),
    "first step": (7, 5),
    "first step, streamed": (10, 7),
    "with animations, digits": (20, 8),
}


def describe_machine():
    """Processor, cores, and versions of what computes."""
    info = processor.cpu_info()
    flags = [flag for flag in info.get("flags", "").split() if _matters(flag)]
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "cpu": processor.name(),
        "cpu_family_model": f"{info.get('cpu family', '?')}/{info.get('model', '?')}",
        "cores": len(os.sched_getaffinity(0)),
        "flags": flags,
        "gpus": processor.gpus(),
        "kernels": processor.kernels(),
        "versions": versions,
    }


def _matters(flag):
    return flag.startswith(FLAG_PREFIXES) or flag.endswith("bf16")


def rate(blocks):
    """Images per second of the blocks that a contender ran in one round."""
    return sum(block["images"] for block in blocks) / sum(block["seconds"] for block in blocks)


def steps_in(seconds, block, batch_size):
    """How many steps, at least one, take so long, by a block that was measured."""
    return max(1, round(seconds * rate([block]) / batch_size))


def median_rate(rounds, name):
    """The median over the rounds in which the contender ran."""
    return statistics.median(rate(row[name]) for row in rounds if name in row)


def paired_ratio(rounds, contender, reference):
    """The median of the ratios of images per second, each of two neighbours in time."""
    return statistics.median(
        rate(row[contender]) / rate(row[reference]) for row in rounds if contender in row and reference in row
    )


def best_of(rounds, names):
    """The fastest of the contenders that ran, or None."""
    present = [name for name in names if name in rounds[0]]
    return max(present, key=lambda name: median_rate(rounds, name), default=None)


def table(rows):
    """Rows of words in columns: the first to the left, the others to the right."""
    rows = [[str(word) for word in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            word.rjust(width) if index else word.ljust(width)
            for index, (word, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def verdict(value, must, aim, larger_is_better=True):
    """How a figure stands to its target."""
    sign = 1 if larger_is_better else -1
    if sign * value < sign * must:
        return "missed"
    return "aim reached" if sign * value >= sign * aim else "met"

"""Which worker of a cluster this process is: what TF_CONFIG says, checked before TensorFlow reads it."""

import ctypes
import dataclasses
import json
import os
import re

from utils.errors import UserError

VARIABLE = "TF_CONFIG"
HINT = "docs/distributed.md shows a right one."
# Numbers of glibc's malloc.h, and values: no mapping of its own below 1 GiB, nothing back to the kernel below
# 2 GiB, one heap.
MALLOC = {"M_MMAP_THRESHOLD": (-3, 2**30), "M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_ARENA_MAX": (-8, 1)}


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The workers of one training, of which this process is one.

    Attributes:
        addresses: "host:port" of every worker, the chief's first.
        index: of this process among them.
    """

    addresses: tuple
    index: int

    @property
    def is_chief(self):
        return self.index == 0

    @property
    def size(self):
        return len(self.addresses)

    def name(self, index):
        """What messages call a worker."""
        return f"worker {index}{', the chief' if index == 0 else ''} ({self.addresses[index]})"

    def endpoint(self, index):
        """Host and port of a worker."""
        host, _, port = self.addresses[index].rpartition(":")
        return host.strip("[]"), int(port)


def cluster_of(strategy):
    """The `Cluster` that the environment describes, or None where this process trains alone.

    Args:
        strategy: of `--strategy`.

    Raises:
        UserError: if there must be one and is none, or TF_CONFIG is wrong.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if strategy not in ("auto", "multi_worker") or (strategy == "auto" and not text):
        return None
    if not text:
        raise UserError(f"--strategy multi_worker needs the environment variable {VARIABLE}: {HINT}")
    cluster = read_cluster(text)
    return None if strategy == "auto" and cluster.size == 1 else cluster


def read_cluster(text):
    """The `Cluster` of a TF_CONFIG.

    Raises:
        UserError: one line about the first thing that is wrong.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{VARIABLE} is not JSON, {error}: {HINT}") from None
    jobs, task = (config.get(key) if isinstance(config, dict) else None for key in ("cluster", "task"))
    if not isinstance(jobs, dict) or not isinstance(task, dict):
        raise UserError(f'{VARIABLE} needs "cluster" and "task", both JSON objects: {HINT}')
    if unknown := sorted(jobs.keys() - {"chief", "worker"}):
        raise UserError(f"{VARIABLE} names {', '.join(unknown)}: there are only chief and worker here.")
    for job, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(map(_is_address, addresses)):
            raise UserError(f'{VARIABLE}: {job} must be a list of addresses such as "host:2222".')
    chiefs, workers = (jobs.get(job, []) for job in ("chief", "worker"))
    if len(chiefs) > 1:
        raise UserError(f"{VARIABLE} names {len(chiefs)} chiefs, {', '.join(chiefs)}: there can be one.")
    addresses = (*chiefs, *workers)
    if twice := sorted({address for address in addresses if addresses.count(address) > 1}):
        raise UserError(
            f"{VARIABLE} gives {', '.join(twice)} to several workers: each needs its own address."
        )
    kind, index = task.get("type"), task.get("index")
    if kind not in jobs:
        raise UserError(f'{VARIABLE}: the type of "task" must be one of {", ".join(jobs)}, got {kind!r}.')
    # Some launchers write numbers as texts.
    index = int(index) if isinstance(index, str) and re.fullmatch(r"\d{1,6}", index) else index
    if type(index) is not int:
        raise UserError(f'{VARIABLE}: "task" needs an index, a whole number, got {index!r}: {HINT}')
    if not 0 <= index < len(jobs[kind]):
        last = len(jobs[kind]) - 1
        raise UserError(f'{VARIABLE}: the index of "task" must be from 0 to {last}, got {index}.')
    return Cluster(addresses, index + (len(chiefs) if kind == "worker" else 0))


def _is_address(text):
    match = re.fullmatch(r"([\w.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", text) if isinstance(text, str) else None
    return bool(match) and 0 < int(match[2]) < 2**16


def keep_freed_memory():
    """Has glibc keep what is freed; docs/distributed.md has what workers gain by it.

    With workers, TensorFlow takes all memory of a step from `malloc`, not from a pool of its own, and by
    default each large piece is a new mapping, which the kernel fills with zeros page by page.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # not with other C libraries
        for parameter, value in MALLOC.values():
            mallopt(parameter, value)

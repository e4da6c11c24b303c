"""Runs the experiments whose results are missing, and writes the page of results: docs/results.md.

It can be stopped and called again at any time: runs go on from their last checkpoints.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from experiments.jobs import PLACES, Job, Places, result_path
from experiments.list import EXPERIMENTS
from experiments.page import read_results, write_page
from experiments.runs import Process, run_all, shared_processes
from utils import processor, registry
from utils.errors import UserError, refuse

COMMAND = "python -m experiments.paper_table"


def main(argv):
    """Runs the command on `sys.argv`-like words and returns the exit status.

    It is 1 where runs failed, 2 for mistakes on the command line, 128 and the signal's number where one came.
    """
    try:
        return run(read_arguments(argv[1:]))
    except UserError as error:
        print(f"paper_table: error: {error}", file=sys.stderr)
        return 2


def read_arguments(words):
    """The command line, `experiments` and `seeds` being lists of those that are chosen.

    Raises:
        UserError: for unknown names and for values that cannot work.
    """
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.error = refuse
    parser.add_argument("--only", help="names of experiments, separated by commas (default: all)")
    parser.add_argument(
        "--seeds", help="of theirs, separated by commas (default: all that an experiment has)"
    )
    parser.add_argument("--table", action="store_true", help="run nothing, only write the page")
    parser.add_argument("--list", action="store_true", help="print the experiments, do nothing")
    parser.add_argument("--jobs", type=int, help="runs at a time, each on one core (default: one per core)")
    parser.add_argument("--gpu", action="store_true", help="compute on the GPU, which all runs share")
    parser.add_argument("--data_dir", default=os.environ.get("AAE_DATA_DIR", ""), help="folder with MNIST")
    parser.add_argument(
        "--quick", action="store_true", help="tiny networks, one epoch, the embedded digits: a smoke test"
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for results, page and runs (default: docs/ and runs/paper; a new one with --quick)",
    )
    arguments = parser.parse_args(words)
    experiments = {experiment.name: experiment for experiment in EXPERIMENTS}
    if arguments.quick:
        experiments = {name: experiment.shrunk() for name, experiment in experiments.items()}
    arguments.all = list(experiments.values())
    arguments.experiments = arguments.all
    if arguments.only is not None:
        names = dict.fromkeys(name.strip() for name in arguments.only.split(","))
        arguments.experiments = [_chosen(name, experiments) for name in names]
    seeds = sorted({seed for experiment in arguments.experiments for seed in experiment.seeds})
    arguments.seeds = seeds if arguments.seeds is None else _chosen_seeds(arguments.seeds, seeds)
    if arguments.jobs is not None and arguments.jobs < 1:
        raise UserError(f"--jobs must be at least 1, got {arguments.jobs}.")
    if arguments.gpu and not processor.gpus():
        raise UserError("--gpu needs an NVIDIA GPU and its driver, and there is none.")
    if arguments.data_dir:
        if not os.path.isdir(arguments.data_dir):
            raise UserError(f"--data_dir {arguments.data_dir} is not a folder.")
        arguments.data_dir = os.path.abspath(arguments.data_dir)
    if arguments.out and arguments.out.exists() and not arguments.out.is_dir():
        raise UserError(f"--out {arguments.out} is not a folder.")
    if arguments.quick and arguments.out and arguments.out.resolve() == PLACES.page.parent:
        raise UserError(f"--out {arguments.out} is where the real results are: --quick needs another one.")
    return arguments


def _chosen(name, experiments):
    if name not in experiments:
        raise UserError(registry.unknown_choice("only", name, experiments))
    return experiments[name]


def _chosen_seeds(words, seeds):
    known = [str(seed) for seed in seeds]
    chosen = dict.fromkeys(word.strip() for word in words.split(","))
    for word in chosen:
        if word not in known:
            raise UserError(f"--seeds {word!r} is not one of {', '.join(known)}.")
    return [int(word) for word in chosen]


def run(arguments):
    """Does what the command line asks for, and returns the exit status."""
    if arguments.list:
        for experiment in arguments.experiments:
            seeds = ",".join(str(seed) for seed in experiment.seeds if seed in arguments.seeds)
            print(f"{experiment.name}: {experiment.group}, {experiment.title}; seeds {seeds}")
            print(f"    {experiment.command()}")
        return 0
    places = PLACES
    if arguments.out or arguments.quick:
        places = Places.below((arguments.out or Path(tempfile.mkdtemp(prefix="paper_table-"))).resolve())
    failures, stopped_by = ([], None) if arguments.table else run_missing(arguments, places)
    quick = " --quick" if arguments.quick else ""
    write_page(places, arguments.all, COMMAND + quick, arguments.quick)
    print(f"Results: {places.page}", flush=True)
    for line in failures:
        print(f"paper_table: failed: {line}", file=sys.stderr)
    if stopped_by:
        print("paper_table: stopped; the same command goes on.", file=sys.stderr)
        return 128 + stopped_by
    return 1 if failures else 0


def run_missing(arguments, places):
    """Runs what is chosen and has no small file yet, and returns what `run_all` does."""
    # All experiments with their first seed, then with the second: a table that is full early.
    wanted = [
        Job(experiment, seed, places)
        for seed in arguments.seeds
        for experiment in arguments.experiments
        if seed in experiment.seeds
    ]
    for experiment in arguments.experiments:
        for seed, names in read_results(places, experiment)[1].items():
            path = result_path(places, experiment, seed)
            print(f"{path} has other values of {names}: remove it to run that seed again.", flush=True)
    jobs = [job for job in wanted if not job.result.exists()]
    print(
        f"{len(wanted) - len(jobs)} of {len(wanted)} runs have their results, {len(jobs)} are missing.",
        flush=True,
    )
    cores = sorted(os.sched_getaffinity(0))
    slots = [cores[i % len(cores)] for i in range(arguments.jobs or len(cores))]
    if not arguments.quick:
        gpu = arguments.gpu
        return run_all(jobs, slots, arguments.data_dir, lambda *words: Process(*words, gpu), gpu)
    with shared_processes(len(slots)) as start:
        return run_all(jobs, slots, arguments.data_dir, start)


if __name__ == "__main__":
    sys.exit(main(sys.argv))

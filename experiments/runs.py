"""Runs experiments, as many at a time as there are cores."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
import traceback
from collections import deque
from concurrent.futures import ProcessPoolExecutor

from experiments.jobs import ROOT, collect
from main import main
from utils import processor
from utils.errors import UserError
from utils.files import write_json

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Exit statuses of runs that they ended: with a checkpoint, and before or after there is one to save.
STOPPED = [128 + number for number in SIGNALS] + [-number for number in SIGNALS]
POLL_SECONDS = 0.5
LONGEST_LINE = 300  # characters of a log's last line
# Of a run that has a core to itself, and no GPU.
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "-1",
}


def describe_processor(gpu=False):
    """What a run is trained on here; with `gpu`, on all GPUs and cores, which other runs share."""
    names = [*(processor.gpus() if gpu else ()), processor.name()]
    threads = len(os.sched_getaffinity(0)) if gpu else 1
    return {"processor": ", ".join(names), "instructions": processor.instructions(), "threads": threads}


class Process:
    """A run in a process of its own, on one core; with `gpu`, on what all runs share."""

    def __init__(self, job, core, data_dir, gpu=False):
        words = [sys.executable, str(ROOT / "main.py"), *job.words(data_dir)]
        before = os.sched_getaffinity(0)
        if not gpu:
            os.sched_setaffinity(0, {core})  # which the child inherits
        try:
            with open(job.log, "ab") as log:
                self.process = subprocess.Popen(
                    words,
                    env=os.environ | ({} if gpu else ONE_THREAD),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C must not reach it twice: its second signal would end it without a checkpoint.
                    start_new_session=True,
                )
        finally:
            os.sched_setaffinity(0, before)

    def poll(self):
        """The exit status, or None while it runs."""
        return self.process.poll()

    def stop(self):
        """Asks it to save a checkpoint and end; asked again, it ends at once."""
        self.process.terminate()


@contextlib.contextmanager
def shared_processes(count):
    """Yields what starts a run, as `Process` does, in one of `count` processes that take run after run.

    Each imports TensorFlow once, which takes longer than a tiny run. Their runs cannot be stopped.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, spawn, _prepare_shared) as pool:
        yield lambda job, core, data_dir: Shared(pool, job, data_dir)


class Shared:
    """A run in one of several processes that all runs share."""

    def __init__(self, pool, job, data_dir):
        self.future = pool.submit(_run_shared, job.words(data_dir), job.log)

    def poll(self):
        """The exit status, or None while it runs or waits."""
        if not self.future.done():
            return None
        return 1 if self.future.exception() else self.future.result()

    def stop(self):
        """Does nothing: it soon ends."""


def _prepare_shared():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that waits for this one
    os.environ.update(ONE_THREAD)


def _run_shared(words, log):
    """Does what a process of its own would do, and returns its exit status."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        return main(["main.py", *words])
    except Exception:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def run_all(jobs, cores, data_dir="", start=Process, gpu=False):
    """Trains and collects runs, as many at a time as there are cores.

    Args:
        jobs: list of `Job`; those that are trained are only collected.
        cores: numbers of the cores, one per run at a time.
        data_dir: for `main.py`.
        start: `Process`, or what `shared_processes` yields.
        gpu: whether they compute on the GPU.

    Returns:
        Lines about the runs that failed, and the number of the signal that stopped the others, or None.
    """
    waiting, running, failures = deque(jobs), {}, []

    def left():
        return f"{len(running)} running, {len(waiting)} waiting"

    def keep(job):
        try:
            collect(job)
        except (UserError, OSError) as error:
            failures.append(f"{job}: {error}")
            say(failures[-1])

    with caught_signals() as signals:
        try:
            told = 0
            while running or (waiting and not signals):
                free = [slot for slot in range(len(cores)) if slot not in running]
                while free and waiting and not signals:
                    job = waiting.popleft()
                    if job.is_trained:
                        say(f"{job} is trained: collected.")
                        keep(job)
                        continue
                    slot = free.pop(0)
                    job.places.runs.mkdir(parents=True, exist_ok=True)
                    write_json(job.machine, describe_processor(gpu))
                    say(f"{job} begins, log in {job.log}")
                    running[slot] = (job, time.monotonic(), start(job, cores[slot], data_dir))
                if len(signals) > told:
                    say(f"Stopping: {len(running)} runs save their checkpoints.")
                    told = len(signals)
                    for _, _, process in running.values():
                        process.stop()
                for slot, (job, begin, process) in list(running.items()):
                    status = process.poll()
                    if status is None:
                        continue
                    del running[slot]
                    minutes = f"after {(time.monotonic() - begin) / 60:.1f} minutes"
                    if status == 0:
                        say(f"{job} ended {minutes}; {left()}.")
                        keep(job)
                    elif signals and status in STOPPED:
                        say(f"{job} was stopped {minutes}; {left()}.")
                    else:
                        failures.append(f"{job}: exit status {status}: {last_line(job.log)}")
                        say(f"{job} failed {minutes}; {left()}. {last_line(job.log)}")
                if running:
                    time.sleep(POLL_SECONDS)
        finally:
            # After an error of this process: nobody would wait for them.
            for _, _, process in running.values():
                process.stop()
        return failures, signals[0] if signals else None


@contextlib.contextmanager
def caught_signals():
    """Yields a list that takes up the numbers of the signals that ask for an end."""
    caught = []
    # A shell may have told a process in the background to ignore Ctrl-C, and nohup any hang-up.
    numbers = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    usual = {n: signal.signal(n, lambda number, frame: caught.append(number)) for n in numbers}
    try:
        yield caught
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def say(line):
    """Prints a line with the time of day."""
    print(f"{time.strftime('%H:%M:%S')}  {line}", flush=True)


def last_line(path):
    """The last line of a log that says something, cut to a readable length."""
    with open(path, "rb") as log:
        log.seek(max(0, os.path.getsize(path) - 10_000))
        lines = log.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:LONGEST_LINE] if lines else "nothing in its log"

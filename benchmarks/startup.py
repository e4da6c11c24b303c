"""How long a user waits: for `main.py --help`, for the first step, and for all that follows the last one."""

import os
import pty
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TIME_OUT = 120  # seconds without a word
# Keras writes its progress bar, which ends in the time per step, after the first step on a terminal.
FIRST_STEP = re.compile(rb"s/step")
PLANE = ("--prior=gaussian_mixture", "--n_z=2")
ANIMATED = (
    *("--model=conditional", "--network=conv", "--batch_norm", "--prior=truncated_gaussian", "--n_z=5"),
    *("--animate", "--PARR=true", "--data=digits"),
)


def measure_startup(data_flags, runs):
    """Seconds of each start, and their median.

    Args:
        data_flags: words that name the data for `main.py`.
        runs: how often to start each.
    """
    times = {
        "--help": [help_seconds() for _ in range(runs)],
        "first step": [first_step_seconds(data_flags) for _ in range(runs)],
        # The first of them also writes the images where they are read from.
        "first step, streamed": [first_step_seconds([*data_flags, "--stream"]) for _ in range(runs)],
        "figures and pictures": [seconds_after_training([*PLANE, *data_flags]) for _ in range(runs)],
        "with animations, digits": [seconds_after_training(ANIMATED) for _ in range(runs)],
    }
    return {
        name: {"seconds": seconds, "median": statistics.median(seconds)} for name, seconds in times.items()
    }


def help_seconds():
    """Seconds from the command `main.py --help` to its end."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "main.py", "--help"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def first_step_seconds(data_flags):
    """Seconds from the command to the first train step's end, as the progress bar shows it."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "main.py", *PLANE, *data_flags, "--run_dir", f"{directory}/run"]
        terminal, theirs = pty.openpty()
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, close_fds=True
        )
        os.close(theirs)
        try:
            output = b""
            while not FIRST_STEP.search(output):
                output += _read(terminal, output)
            return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()
            os.close(terminal)


def seconds_after_training(flags):
    """Seconds from the line about the only epoch to the end of the program, which writes the last file."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-u", "main.py", *flags, "--n_epoch=1", "--run_dir", f"{directory}/run"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, **pipes) as process:
            ends = [time.perf_counter() for line in process.stdout if line.startswith("epoch 1/1")]
        if process.returncode or not ends:
            raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}.")
        return time.perf_counter() - ends[0]


def _read(terminal, output):
    """What the program writes next; a RuntimeError with its last words if there is nothing more."""
    try:
        ready, _, _ = select.select([terminal], [], [], TIME_OUT)
        text = os.read(terminal, 4096) if ready else b""
    except OSError:  # so Linux says that the last process has left the terminal
        text = b""
    if not text:
        tail = output.decode(errors="replace")[-500:]
        raise RuntimeError(f"main.py showed no first step; its last words: {tail}")
    return text

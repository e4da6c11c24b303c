"""Kills one of several workers, resumes all, and compares them with a run left alone, again and again.

`make chaos-workers` prints the tally. The workers are processes of this machine with TF_CONFIG; every kill is
a SIGKILL at a random moment of the training.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from models.model_file import read_description
from tests.chaos import ROOT, differences
from training.checkpoints import saved_checkpoints
from training.meeting import LOST

# Batches of 24 give 54 steps to an epoch, in calls of 18, so that there are checkpoints within epochs.
COMMON = ["--strategy", "multi_worker", "--data", "digits", "--n_hidden", "32", "--batch_size", "24"]
COMMON += ["--checkpoint_every", "27 steps", "--worker_wait", "120"]
TRAININGS = {
    "supervised": ["--prior", "gaussian_mixture", "--n_z", "2", "--balance", "--lr_schedule", "plateau"],
    "semi_supervised": ["--prior", "gaussian", "--n_z", "3", "--num_samples", "96"],
    "conditional": [
        *("--network", "conv", "--conv_widths", "4,8", "--batch_norm", "--prior", "truncated_gaussian"),
        *("--n_z", "3", "--precision", "bfloat16"),
    ],
}
LONGEST = 60  # seconds from the kill to the end of the others
ENDLESS = 1800


def free_addresses(count):
    """So many addresses of this machine whose ports were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return addresses


def tf_config(addresses, index):
    """The text of TF_CONFIG of a worker."""
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


class Workers:
    """Processes of `main.py` that train together.

    Attributes:
        processes: by their index.
        outputs: what each has printed.
    """

    def __init__(self, count, words):
        addresses = free_addresses(count)
        self.processes, self.outputs, self.readers = [], [""] * count, []
        self.progress = threading.Condition()
        for index in range(count):
            environment = {
                **os.environ,
                "TF_CONFIG": tf_config(addresses, index),
                "TF_NUM_INTRAOP_THREADS": "1",
            }
            command = [sys.executable, "-u", "main.py", *(words(index) if callable(words) else words)]
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self.processes.append(process)
            reader = threading.Thread(target=self._read, args=(index,))
            reader.start()
            self.readers.append(reader)

    def _read(self, index):
        with self.processes[index].stdout as lines:
            for line in lines:
                with self.progress:
                    self.outputs[index] += line
                    self.progress.notify()
        with self.progress:
            self.progress.notify()

    def wait_for(self, text):
        """Waits until the chief has printed a text, or has ended."""
        with self.progress:
            self.progress.wait_for(lambda: text in self.outputs[0] or not self.readers[0].is_alive(), ENDLESS)

    def wait(self):
        """The exit statuses, once all have ended."""
        for reader in self.readers:
            reader.join()
        return [process.wait() for process in self.processes]

    def kill(self, index):
        """Kills one; returns the seconds until all others have ended."""
        self.processes[index].kill()
        start = time.monotonic()
        self.wait()
        return time.monotonic() - start


def left_alone(directory, words, count):
    """Trains without a kill; returns the mean seconds of an epoch after the first."""
    workers = Workers(count, ["--run_dir", str(directory), *words])
    workers.wait_for("\nepoch 1/")
    start = time.monotonic()
    workers.wait_for("\nepoch 3/")
    seconds = (time.monotonic() - start) / 2
    if any(workers.wait()):
        raise RuntimeError("\n".join(workers.outputs))
    return seconds


def killed(directory, words, count, epochs, seconds, rng):
    """Trains, kills a worker in the middle of it, and goes on to the end; returns notes and problems."""
    problems = []
    workers = Workers(count, ["--run_dir", str(directory), *words])
    after = rng.randrange(1, epochs - 1)
    workers.wait_for(f"\nepoch {after}/")
    time.sleep(rng.uniform(0, seconds / 2))  # the last epoch shall not have ended
    victim = rng.randrange(count)
    took = workers.kill(victim)
    for index, status in enumerate(workers.wait()):
        said = [line for line in workers.outputs[index].splitlines() if line.startswith("main.py: worker")]
        if index != victim and (status != LOST or len(said) != 1 or f"worker {victim}" not in said[0]):
            problems.append(f"worker {index} ended with {status}: {workers.outputs[index][-600:]}")
    if took > LONGEST:
        problems.append(f"the others took {took:.0f} s to end")
    saved = saved_checkpoints(directory / "checkpoints")
    if not saved or not read_description(directory / "checkpoints" / saved[-1].name):
        problems.append("the last checkpoint is not whole")
    again = Workers(count, ["--resume", "--run_dir", str(directory), "--worker_wait", "120"])
    if any(again.wait()):
        problems.append(f"resumed: {again.outputs}")
    where = (
        f"worker {victim} killed after epoch {after}, others ended in {took:.1f} s, resumed from {saved[-1]}"
    )
    return where, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    equal = 0
    with tempfile.TemporaryDirectory() as folder:
        seconds = {}
        for index in range(options.runs):
            model = list(TRAININGS)[index % len(TRAININGS)]
            words = ["--model", model, *TRAININGS[model], *COMMON, "--n_epoch", str(options.epochs)]
            reference = Path(folder) / model
            if model not in seconds:
                seconds[model] = left_alone(reference, words, options.workers)
            directory, rng = Path(folder) / f"run_{index}", random.Random(f"{options.seed} {index}")
            where, problems = killed(directory, words, options.workers, options.epochs, seconds[model], rng)
            problems += differences(reference, directory)
            print(f"run {index + 1}, {model}: {where}: {'; '.join(problems) or 'equal'}", flush=True)
            equal += not problems
    print(f"{equal} of {options.runs} runs ended clearly and became equal to the reference.")
    return 0 if equal == options.runs else 1


if __name__ == "__main__":
    sys.exit(main())

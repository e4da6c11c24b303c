"""A process of its own for each contender, which does nothing until it is told to."""

import multiprocessing
import os
import resource
import tempfile
import traceback
from pathlib import Path

from main import start_tensorflow
from utils import registry
from utils.errors import first_line


class ContenderFailed(Exception):
    """What kept a contender from running, in one line, and the traceback from its process below it."""


class Worker:
    """Starts the process of a contender, which then waits for requests.

    Requests are ("build", case, data), ("run", steps) and ("memory",). Contenders take the case, the
    data and a folder for their files, warm themselves up, and have a method `run(steps)`.

    Args:
        target: "module:class" of the contender.
        options: further arguments of the class.
    """

    def __init__(self, target, options=None):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, target, options or {}), daemon=True)
        self.process.start()
        theirs.close()

    def ask(self, *words):
        """Sends a request without waiting for the answer."""
        self.pipe.send(words)

    def answer(self):
        """Waits for the answer to the oldest request.

        Raises:
            ContenderFailed: if the worker raised, or is gone.
        """
        try:
            answer = self.pipe.recv()
        except EOFError:
            raise ContenderFailed("its process ended") from None
        if isinstance(answer, ContenderFailed):
            raise answer
        return answer

    def run(self, steps):
        """Runs a block of steps and returns a dict with at least its `seconds` and `images`."""
        self.ask("run", steps)
        return self.answer()

    def stop(self):
        """Ends the process and returns the most memory that it ever held, in bytes."""
        self.ask("memory")
        memory = self.answer()
        self.pipe.close()
        self.process.join()
        return memory


def _serve(pipe, target, options):
    # What libraries print belongs to nobody's table.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    contender = None
    with tempfile.TemporaryDirectory() as directory:
        for number, request in enumerate(iter(lambda: _received(pipe), None)):
            try:
                if request[0] == "build":
                    if "torch" not in target:  # PyTorch shall not share its process with TensorFlow
                        start_tensorflow()
                    contender = None  # frees the memory of the one before
                    arguments = (*request[1:], Path(directory) / str(number))
                    contender = registry.load({target: target}, target)(*arguments, **options)
                    pipe.send(None)
                elif request[0] == "run":
                    pipe.send(contender.run(request[1]))
                else:
                    # ru_maxrss is in KiB on Linux.
                    pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
            except Exception as error:
                summary = f"{type(error).__name__}: {first_line(error)}"
                pipe.send(ContenderFailed(f"{summary}\n{traceback.format_exc()}"))


def _received(pipe):
    """The next request, or None when the parent has closed its end."""
    try:
        return pipe.recv()
    except EOFError:
        return None

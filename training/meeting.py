"""The workers of a cluster meet before TensorFlow starts, compare what they train, and watch each other.

TensorFlow itself waits without end for a worker that does not come, trains with whatever flags each has, and
when a worker dies blames any other that ends because of it. So every worker keeps a connection to the chief,
which the kernel closes when the process ends, however it ends.
"""

import contextlib
import json
import os
import re
import select
import socket
import threading
import time

from models.model_file import value_differences
from utils.errors import UserError, first_line

MAX_MESSAGE_BYTES = 2**20  # a statement has some kB
PATIENCE = 5  # seconds for a process that has connected to say who it is
RETRY = 0.3  # seconds between attempts to reach the chief
LOST = os.EX_TEMPFAIL  # exit status: to go on, start all workers again


class Workers:
    """All workers of a training, as one of them sees them.

    Args:
        cluster: a `Cluster`.
    """

    def __init__(self, cluster):
        self.cluster = cluster
        self.is_chief = cluster.is_chief
        self._connections = {}  # by the index of the worker at the other end
        self._leaving = threading.Event()

    def meet(self, statement, seconds):
        """Waits for all workers, and sees to it that they train the same.

        Args:
            statement: dict of what JSON can hold: `flags`, `data`, `versions`, `checkpoint` and `run_dir`, of
                which the last may differ.
            seconds: to wait.

        Returns:
            the chief's run_dir.

        Raises:
            UserError: if a worker does not come, or trains something else.
        """
        # In one line is said here what TensorFlow says of a lost worker in twenty.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        deadline = time.monotonic() + seconds
        with _listener(self.cluster) as listener:  # a worker's own port is TensorFlow's later
            if self.is_chief:
                answer = {"problem": self._received(listener, statement, deadline, seconds)}
                answer["run_dir"] = statement["run_dir"]
                for connection in self._connections.values():
                    _send(connection, answer)
            else:
                self._connections[0], answer = self._presented(statement, deadline, seconds)
        if answer["problem"]:
            for connection in self._connections.values():
                connection.close()
            raise UserError(answer["problem"])
        return answer["run_dir"]

    def _received(self, listener, statement, deadline, seconds):
        """Takes up the other workers' connections; returns what is wrong with them, or ""."""
        statements, notes = {}, ""
        while missing := [i for i in range(1, self.cluster.size) if i not in statements]:
            listener.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                names = ", ".join(self.cluster.name(index) for index in missing)
                return f"{names} did not come within {seconds} s.{notes}"
            said = _receive(connection, PATIENCE)
            index = said.get("index")
            if type(index) is int and index in statements:
                notes = f" Two processes say that they are worker {index}."
                _send(connection, {"problem": f"Another process is worker {index} already.", "run_dir": ""})
            if index not in missing or not isinstance(said.get("statement"), dict):
                connection.close()  # somebody else, such as a scan of the ports
                continue
            _keep_alive(connection)
            statements[index], self._connections[index] = said["statement"], connection
        for index, theirs in sorted(statements.items()):
            if differing := differences(theirs, statement):
                return f"{self.cluster.name(index)} has {', '.join(differing)}: all workers need the same."
        return ""

    def _presented(self, statement, deadline, seconds):
        """The connection to the chief, and its answer."""
        problem = "no answer"
        while time.monotonic() < deadline:
            try:
                chief = socket.create_connection(self.cluster.endpoint(0), PATIENCE)
                _keep_alive(chief)
                _send(chief, {"index": self.cluster.index, "statement": statement})
                # The chief waits for the others as long, from when it began.
                answer = _receive(chief, seconds + PATIENCE)
                if answer.keys() >= {"problem", "run_dir"}:
                    return chief, answer
                problem = "the connection ended without an answer"
                chief.close()
            except (OSError, UnicodeError) as error:
                problem = first_line(error)
            time.sleep(RETRY)
        raise UserError(f"{self.cluster.name(0)} did not answer within {seconds} s: {problem}.")

    def watch(self, advice):
        """Ends the process with one line and the status `LOST` as soon as another worker is gone.

        Args:
            advice: function that returns what to do then, as sentences.
        """
        self._advice = advice
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self):
        while self._connections:
            readable, _, _ = select.select(list(self._connections.values()), [], [])
            for index, connection in list(self._connections.items()):
                if connection in readable:
                    said = _receive(connection, PATIENCE)
                    if said.get("lost", index) is None:
                        self._connections.pop(index).close()  # it is done
                    else:
                        self.end(said.get("lost", index), said.get("why", "is gone"))
                        return

    def end(self, index, why):
        """Ends this process because of the worker `index`, and tells the others, in one line each."""
        if self._leaving.wait(1):  # this process is about to end by itself, for the same reason
            return
        for other, connection in self._connections.items():
            if other != index:
                _send(connection, {"lost": index, "why": why})
        line = f"main.py: {self.cluster.name(index)} {why}, so the training ends. {self._advice()}"
        os.write(2, f"{UserError(line)}\n".encode())
        # Nothing else ends a main thread that waits for the lost worker inside TensorFlow.
        os._exit(LOST)

    def end_because(self, error):
        """`end` after an error of TensorFlow that says that a worker no longer answers."""
        time.sleep(10)  # if its process has ended, `_watch` knows better which one it was
        named = re.search(r"unhealthy.*?task:(\d+)", str(error), re.DOTALL)
        index = int(named[1]) if named else 0
        self.end(index if index < self.cluster.size else 0, "does not answer any more")

    def leave(self, problem=None):
        """Takes leave of the others, who go on; with a problem, a text, they end as well."""
        self._leaving.set()
        said = {"lost": None} if problem is None else {"lost": self.cluster.index, "why": f"ended: {problem}"}
        for connection in list(self._connections.values()):
            _send(connection, said)


def differences(theirs, ours):
    """Texts about what another worker trains otherwise: flags, data, versions, checkpoint."""
    try:
        texts = value_differences(theirs, ours)
        pairs = {name: (theirs["versions"].get(name), ours["versions"][name]) for name in ours["versions"]}
        pairs["checkpoint"] = theirs["checkpoint"], ours["checkpoint"]
        texts += [f"{name} {a} instead of {b}" for name, (a, b) in pairs.items() if a != b]
    except (KeyError, TypeError, AttributeError):
        return ["another version of this program"]
    return texts


def _listener(cluster):
    """A socket that listens at this worker's own port.

    Raises:
        UserError: if another process has it.
    """
    _, port = cluster.endpoint(cluster.index)
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        return socket.create_server(("", port), family=family, dualstack_ipv6=both)
    except OSError as error:
        raise UserError(
            f"The port of {cluster.name(cluster.index)} cannot be opened, {first_line(error)}: is another "
            "process this worker already?"
        ) from None


def _keep_alive(connection):
    """Has the kernel notice within half a minute when the machine at the other end is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _send(connection, message):
    with contextlib.suppress(OSError):  # if it is gone, whoever waits for it will notice
        connection.sendall(json.dumps(message).encode() + b"\n")


def _receive(connection, seconds):
    """The next message, a dict; {} if the other end is gone, or sends none in time, or anything else."""
    deadline, line = time.monotonic() + seconds, b""
    try:
        while not line.endswith(b"\n") and len(line) < MAX_MESSAGE_BYTES:
            connection.settimeout(max(deadline - time.monotonic(), 0.01))
            if not (some := connection.recv(2**16)):
                return {}
            line += some
        message = json.loads(line)
        return message if isinstance(message, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}

"""Trains an adversarial autoencoder: `python main.py --model supervised --prior gaussian_mixture --n_z 2`."""

import gc
import os
import sys

from training.cluster import cluster_of
from training.command_line import read_config
from training.own_parts import check_own_parts, own_parts
from utils.errors import Stopped, UserError


def main(argv):
    """Runs the program on `sys.argv`-like words and returns the exit status."""
    try:
        config = read_config(argv)
        if config is None:
            return 0
        if config.prepare:
            from training.run import prepare_shards

            prepare_shards(config)
            return 0
        if config.export:
            from training.export import export_run, prepare_export

            saved, *noted = prepare_export(config)
            start_tensorflow()
            check_own_parts(saved)
            export_run(config, saved, *noted)
            return 0
        if config.explore:
            from training.exploration import prepare_exploration

            explored = prepare_exploration(config)
            start_tensorflow()
            check_own_parts(explored[0])
            from explorer.page import explore

            explore(config, *explored)
            return 0
        if own_parts(config) and not cluster_of(config.strategy):
            start_tensorflow()
            check_own_parts(config)
        from training.run import prepare_run

        run = prepare_run(config)
        with run.lock:
            start_tensorflow()
            from training.fit import train_and_evaluate

            train_and_evaluate(run)
    except UserError as error:
        print(f"main.py: error: {error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        print(f"\nmain.py: {stop}", file=sys.stderr)
        return 128 + stop.signal
    except BrokenPipeError:
        # The reader of the output is gone, as in `main.py --help | head`: nobody is left to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print("\nmain.py: interrupted.", file=sys.stderr)
        return 130
    return 0


def start_tensorflow():
    """Imports TensorFlow without the notices that it writes to the terminal before any log level holds.

    They go past Python's sys.stderr, so the file descriptor is redirected; errors of the import are
    Python exceptions and still show. On a GPU, TensorFlow will take memory as it needs it, not all at once.
    Keras does not get scikit-learn, for whose wrappers, which nobody here uses, it would import SciPy too.
    Python looks for no cycles among the million objects of these libraries, which stay as long as it runs.
    """
    new = "tensorflow" not in sys.modules
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    sys.stderr.flush()
    terminal = os.dup(2)
    unused = {"sklearn"} - sys.modules.keys()
    sys.modules.update(dict.fromkeys(unused))
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    gc.disable()
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        if new:
            gc.freeze()
        gc.enable()
        os.dup2(terminal, 2)
        os.close(terminal)
        for name in unused:
            del sys.modules[name]


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    sys.exit(main(sys.argv))

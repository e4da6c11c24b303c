"""Trains an adversarial autoencoder: `python main.py --model supervised --prior gaussian_mixture --n_z 2`."""

import dataclasses
import itertools
import os
import re
import sys
from pathlib import Path

from absl import flags

from utils.config import CHANGEABLE, Config, canonical_name, dependent_defaults, read_saved_config
from utils.errors import Stopped, UserError
from utils.files import read_limited

# Of flag files. Each line counts as often as its file is named: naming files twice doubles them.
MAX_FLAG_FILE_BYTES, MAX_FLAG_LINES, MAX_FLAG_FILE_DEPTH = 2**20, 1000, 10
USAGE = """Trains an adversarial autoencoder and leaves pictures, figures and the model in runs/.

  python main.py --model supervised --prior gaussian_mixture --n_z 2 --PMLR True
  python main.py --flagfile=configs/seed_supervised.flags
"""


def main(argv):
    """Runs the program on `sys.argv`-like words and returns the exit status."""
    try:
        config = read_config(argv)
        if config is None:
            return 0
        from utils.run import prepare_run

        run = prepare_run(config)
        with run.lock:
            start_tensorflow()
            from utils.training import train_and_evaluate

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
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    sys.stderr.flush()
    terminal = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def read_config(argv):
    """Reads all flags, here and nowhere else; with --help, prints them and returns None.

    Raises:
        UserError: for unknown flags, stray words, and values that cannot work.
    """
    values = flags.FlagValues()
    for field in dataclasses.fields(Config):
        _define(field, values)
    try:
        words = _join_boolean_words(_with_flag_files(argv[1:]), values)
        if {"--help", "-help", "-h", "--helpfull", "--helpshort"} & set(words):
            print(USAGE)
            print(values.get_help())
            return None
        stray = values([argv[0], *words])[1:]
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from None
    if stray:
        raise UserError(f"{stray[0]!r} is not a flag; flags begin with --.")

    given = {f.name: values[f.name].value for f in dataclasses.fields(Config)}
    for field in dataclasses.fields(Config):
        if field.metadata["choices"]:
            given[field.name] = canonical_name(given[field.name])
    given["data_dir"] = given["data_dir"] or os.environ.get("AAE_DATA_DIR", "")
    named = {name for name in given if values[name].present}
    for name, default in dependent_defaults(given).items():
        if name not in named:
            given[name] = default
    config = Config(**given)
    if config.resume:
        if not config.run_dir:
            raise UserError("--resume needs the --run_dir of the run to go on with.")
        config = _resumed(config, named)
    config.validate()
    return config


def _define(field, values):
    define = {
        bool: flags.DEFINE_boolean,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        str: flags.DEFINE_string,
    }[type(field.default)]
    choices = field.metadata["choices"]
    help = field.metadata["help"] + (f" One of: {', '.join(choices)}." if choices else "")
    define(field.name, field.default, help, flag_values=values, module_name="main.py")
    for alias in field.metadata["aliases"]:
        flags.DEFINE_alias(alias, field.name, flag_values=values, module_name="main.py")


def _with_flag_files(words):
    """The words, those of flag files in the place of each --flagfile.

    absl would read any file, any number of times, and wait for pipes.
    """
    words, expanded = iter(words), []
    for word in words:
        name, equals, path = word.partition("=")
        if name not in ("--flagfile", "-flagfile"):
            expanded.append(word)
            continue
        path = path if equals else next(words, "")
        if not path:
            raise UserError("--flagfile needs the path of a file.")
        lines = list(itertools.islice(_flag_file_lines(path), MAX_FLAG_LINES + 1))
        if len(lines) > MAX_FLAG_LINES:
            raise UserError(f"The flag file {path}, with those that it names, has too many lines.")
        expanded += filter(None, lines)
    return expanded


def _flag_file_lines(path, above=()):
    """Yields the lines of a flag file, and those of files that it names by --flagfile=PATH.

    Comments, which begin with # or //, and the lines that name files are left empty.

    Args:
        above: real paths of the flag files that led to this one; it must lie in the last one's folder.
    """
    path = path.strip()
    if "\0" in path:
        raise UserError(f"The flag file {path} cannot be read: no path has a NUL in it.")
    real = os.path.realpath(os.path.expanduser(path))
    if above and not real.startswith(os.path.dirname(above[-1]) + os.sep):
        raise UserError(f"The flag file {path} is outside the folder of the one that names it.")
    if real in above or len(above) == MAX_FLAG_FILE_DEPTH:
        raise UserError(f"The flag file {path} names itself, or more than {MAX_FLAG_FILE_DEPTH} in a row.")
    try:
        lines = read_limited(real, MAX_FLAG_FILE_BYTES).decode().split("\n")
    except (OSError, ValueError) as error:
        raise UserError(f"The flag file {path} cannot be read: {error}.") from None
    for line in map(str.strip, lines):
        names_file = line.startswith(("--flagfile=", "-flagfile="))
        yield "" if names_file or line.startswith(("#", "//")) else line
        if names_file:
            yield from _flag_file_lines(line.partition("=")[2], (*above, real))


def _join_boolean_words(words, values):
    """Makes `--PMLR False` one word: absl alone reads it as true and a stray word.

    Also accepts yes, no, on and off, and flags whose value follows after a space in a flag file.
    """
    spellings = {
        "yes": "true",
        "y": "true",
        "on": "true",
        "no": "false",
        "n": "false",
        "off": "false",
    }
    booleans = {f.name for f in dataclasses.fields(Config) if isinstance(f.default, bool)}
    words = [part for word in words for part in _split_flag_line(word)]
    joined = []
    for word in words:
        if joined and joined[-1].lstrip("-") in booleans and not word.startswith("-"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    for index, word in enumerate(joined):
        name, equals, value = word.partition("=")
        if equals and name.lstrip("-") in booleans and value.lower() in spellings:
            joined[index] = f"{name}={spellings[value.lower()]}"
    return joined


def _split_flag_line(word):
    """A line such as `--PMLR False` of a flag file arrives as one word."""
    match = re.fullmatch(r"(--?\w+)\s+(\S.*)", word)
    return match.groups() if match else (word,)


def _resumed(config, named):
    """The configuration of the run to resume, with the changes that are allowed."""
    saved, _ = read_saved_config(Path(config.run_dir))
    for name in sorted(named - CHANGEABLE):
        old, new = getattr(saved, name), getattr(config, name)
        if old != new and not (name == "data" and new == "auto"):
            raise UserError(f"--{name} {new} differs from the run's {old}; leave it out to resume.")
    changes = {name: getattr(config, name) for name in (named & CHANGEABLE) | {"run_dir", "resume"}}
    return dataclasses.replace(saved, **changes)


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    sys.exit(main(sys.argv))

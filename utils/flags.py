"""Command lines for any dataclass of settings, by absl, with flag files and booleans as people write them."""

import dataclasses
import itertools
import os
import re
from pathlib import Path

from absl import flags

from utils.errors import UserError
from utils.untrusted import read_limited

# Of flag files. Each line counts as often as its file is named: naming files twice doubles them.
MAX_FLAG_FILE_BYTES, MAX_FLAG_LINES, MAX_FLAG_FILE_DEPTH = 2**20, 1000, 10
KINDS = {int: "a whole number", float: "a number such as 0.1 or 1e-3"}
SPELLINGS = {"yes": "true", "y": "true", "on": "true", "no": "false", "n": "false", "off": "false"}
HELP = {"--help", "-help", "-h", "--helpfull", "--helpshort"}


@dataclasses.dataclass(frozen=True)
class Flags:
    """What a command line said.

    Attributes:
        values: every setting by name: as given, or its default.
        named: names of those that were given, on the command line or in a flag file.
        typed: names of those that stand on the command line itself.
        wants: the flags without a value that were asked for, such as `help`.
    """

    values: dict
    named: frozenset = frozenset()
    typed: frozenset = frozenset()
    wants: frozenset = frozenset()


def read(settings, words):
    """Reads words such as `--n_z 2` as settings.

    Args:
        settings: the dataclass.
        words: list of str, without the program's name.

    Raises:
        UserError: for unknown flags, stray words, and values of another type.
    """
    typed = {match[1] for word in words if (match := re.match(r"--?(\w+)", word))}
    words = list(_with_flag_files(words))
    values = flags.FlagValues()
    fields = {field.name: field for field in dataclasses.fields(settings)}
    for field in fields.values():
        _define(field, values)
    words = _join_boolean_words(words, settings)
    if HELP & set(words) or "--version" in words:
        return Flags({}, wants=frozenset({"help" if HELP & set(words) else "version"}))
    try:
        stray = values(["", *words])[1:]
    except flags.Error as error:
        raise UserError(_mended(" ".join(str(error).split()), fields)) from None
    if stray:
        close = [f.name for f in fields.values() if stray[0].replace("-", "_") in f.metadata["choices"]]
        hint = f"; did you mean --{close[0]} {stray[0]}?" if close else "; flags begin with --."
        raise UserError(f"{stray[0]!r} is not a flag{hint}")
    given = {name: values[name].value for name in fields}
    aliases = {alias: f.name for f in fields.values() for alias in f.metadata["aliases"]}
    typed = {aliases.get(name, name) for name in typed}
    typed |= {name.removeprefix("no") for name in typed}
    named = frozenset(name for name in fields if values[name].present)
    return Flags(given, named, named & typed)


def _define(field, values):
    kind = {bool: "boolean", int: "integer", float: "float", str: "string"}[type(field.default)]
    define = getattr(flags, f"DEFINE_{kind}")
    define(field.name, field.default, field.metadata["help"], flag_values=values, module_name="main.py")
    for alias in field.metadata["aliases"]:
        flags.DEFINE_alias(alias, field.name, flag_values=values, module_name="main.py")


def _mended(message, fields):
    """The message of absl, without what Python's own number types say in it."""
    match = re.match(r"flag --(\w+)=(.*?): ", message)
    if match and match[1] in fields and type(fields[match[1]].default) in KINDS:
        return f"--{match[1]} must be {KINDS[type(fields[match[1]].default)]}, got {match[2]!r}."
    return message


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
    except FileNotFoundError:
        raise UserError(f"There is no flag file {path}{_neighbours(real)}.") from None
    except (OSError, ValueError) as error:
        raise UserError(f"The flag file {path} cannot be read: {error}.") from None
    for line in map(str.strip, lines):
        names_file = line.startswith(("--flagfile=", "-flagfile="))
        yield "" if names_file or line.startswith(("#", "//")) else line
        if names_file:
            yield from _flag_file_lines(line.partition("=")[2], (*above, real))


def _neighbours(path):
    """The flag files beside one that is not there, as the end of a sentence."""
    names = sorted(other.name for other in Path(path).parent.glob("*.flags"))
    return f"; beside it lie {', '.join(names)}" if names else ""


def _join_boolean_words(words, settings):
    """Makes `--PMLR False` one word: absl alone reads it as true and a stray word.

    Also accepts yes, no, on and off, and flags whose value follows after a space in a flag file.
    """
    booleans = {f.name for f in dataclasses.fields(settings) if isinstance(f.default, bool)}
    words = [part for word in words for part in _split_flag_line(word)]
    joined = []
    for word in words:
        if joined and joined[-1].lstrip("-") in booleans and not word.startswith("-"):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    for index, word in enumerate(joined):
        name, equals, value = word.partition("=")
        if equals and name.lstrip("-") in booleans and value.lower() in SPELLINGS:
            joined[index] = f"{name}={SPELLINGS[value.lower()]}"
    return joined


def _split_flag_line(word):
    """A line such as `--PMLR False` of a flag file arrives as one word."""
    match = re.fullmatch(r"(--?\w+)\s+(\S.*)", word)
    return match.groups() if match else (word,)

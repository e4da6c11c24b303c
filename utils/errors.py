"""What a user is told about in one line."""

LONGEST = 1000  # characters of that line


class UserError(Exception):
    """What was wrong and what to do, in one line; `main.py` prints it and exits with status 2.

    The names and contents of files that it quotes may hold anything: line breaks, other control
    characters and bytes that are no text appear as escapes, and what is too long is cut.
    """

    def __str__(self):
        text = super().__str__()
        text = text if len(text) <= LONGEST else text[:LONGEST] + " ..."
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Stopped(Exception):
    """A signal has stopped the training, and all is saved; the exit status is 128 and the signal's number."""

    def __init__(self, signal, message):
        super().__init__(message)
        self.signal = signal


def refuse(message):
    """Raises a `UserError`: what argparse's parsers here do with a mistake, in one line, as main.py does."""
    raise UserError(message)


def first_line(error):
    """The first line of an exception's text, or its type where it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)

"""The one kind of error that a user is told about in one line."""


class UserError(Exception):
    """What was wrong and what to do, in one line; `main.py` prints it and exits with status 2."""

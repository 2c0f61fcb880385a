"""The errors that a user can put right, told in one sentence."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something in the user's files or parameters that the user can put right.

    The message names the file or the key, what was found and what was expected. A command prints it
    without a traceback and exits with status 1.
    """


class BadExampleError(Exception):
    """One example cannot be read; the message is the reason alone, without the example's name."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """Returns `; did you mean 'x'?` for the choice most like `word`, or nothing if none is near."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""

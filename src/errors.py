"""The errors that a user can put right, told in one sentence."""

import difflib
from collections.abc import Iterable, Iterator
from typing import Any


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


ABSENT = object()  # what stands where a key does not


def differences(ours: Any, theirs: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields the keys, joined by dots, under which two contents of JSON differ, with both."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in [*ours, *(key for key in theirs if key not in ours)]:
            path = f"{prefix}.{key}" if prefix else str(key)
            yield from differences(ours.get(key, ABSENT), theirs.get(key, ABSENT), path)
    elif ours != theirs:
        yield prefix, ours, theirs


def said(value: Any) -> str:
    """Returns what one of two contents has under a key that differs, for a sentence."""
    return "not there" if value is ABSENT else repr(value)

"""What the gate asks git: revisions, files at a revision, and whether the history is all there.

Paths are relative to the current folder, which need not be the repository's top.
"""

import os
import subprocess
from collections.abc import Iterable, Iterator

from src.errors import UserError


def run(*arguments: str, input: bytes | None = None) -> bytes | None:
    """Runs git and returns what it prints; None if it says no (any exit status but 0).

    Raises:
        UserError: If git is not installed, or refuses to look at this folder because it has another owner.
    """
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        result = subprocess.run(["git", *arguments], capture_output=True, input=input, env=environment)
    except FileNotFoundError:
        raise UserError("git: not found on PATH; the gate reads the history of dvc.lock with it") from None
    if b"dubious ownership" in result.stderr:
        raise UserError(
            "git: this folder belongs to another user; run `git config --global --add safe.directory "
            f"{os.getcwd()}`"
        )
    return result.stdout if result.returncode == 0 else None


def inside() -> bool:
    """Whether the current folder is in a work tree of git."""
    return run("rev-parse", "--is-inside-work-tree") == b"true\n"


def commit(revision: str) -> str | None:
    """Returns the full name of the commit that `revision` means, or None if there is none."""
    found = run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return found.decode().strip() if found else None


def merge_base(one: str, other: str) -> str | None:
    """Returns the best common ancestor of two commits, or None if they have none."""
    found = run("merge-base", one, other)
    return found.decode().strip() if found else None


def blob(revision: str, path: str) -> bytes | None:
    """Returns the bytes of a file at a revision, or None if it is not there. No filter is applied."""
    return run("cat-file", "blob", f"{revision}:./{path}")


def blobs(names: Iterable[str]) -> Iterator[bytes | None]:
    """Yields the contents of many objects (`<commit>:./<path>`, or a blob's name) through one process."""
    output = run("cat-file", "--batch", input=_lines(names)) or b""
    position = 0
    while position < len(output):
        end = output.index(b"\n", position)
        header = output[position:end].split()
        position = end + 1
        if header[-1] == b"missing":
            yield None
            continue
        size = int(header[-1])
        yield output[position : position + size]
        position += size + 1  # the line feed after it


def names_of(names: Iterable[str]) -> list[str | None]:
    """Returns the names of the blobs that `<commit>:./<path>` stand for, None where there is none."""
    output = run("cat-file", "--batch-check=%(objectname) %(objecttype)", input=_lines(names)) or b""
    lines = (line.rsplit(" ", 1) for line in output.decode().splitlines())
    return [name if kind == "blob" else None for name, kind in lines]


def need_whole_history() -> None:
    """Refuses a shallow clone.

    Raises:
        UserError: If commits are missing, so that neither a merge base nor a count can be trusted.
    """
    if run("rev-parse", "--is-shallow-repository") == b"true\n":
        raise UserError(
            "git: this is a shallow clone, expected the whole history, from which the gate takes the "
            "baseline and counts the models judged; set `GIT_DEPTH: 0` in the CI job, or run "
            "`git fetch --unshallow`"
        )


def _lines(names: Iterable[str]) -> bytes:
    return "".join(f"{name}\n" for name in names).encode()

"""The stages of dvc.yaml, each run as a process in a job's work folder, until it ends or is to end."""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from src.errors import UserError

ROOT = Path(__file__).parents[2]
POLL = 0.1  # seconds between two looks
LONGEST = 2000  # characters of a reason
PREFIX = ["python", "-m"]
# A stage ends when its worker does, even if that is killed: its standard input is then closed.
CHILD = """
import os, runpy, sys, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


class Stopped(BaseException):
    """The worker is to end. As KeyboardInterrupt, nothing that catches errors catches it."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Raises `Stopped` at the first SIGTERM or SIGINT; the second one ends the process at once."""
    signals = (signal.SIGTERM, signal.SIGINT)

    def stop(*_: Any) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)
        raise Stopped

    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def commands() -> dict[str, list[str]]:
    """Returns what follows `python -m` in the command of each stage of dvc.yaml, in their order.

    Raises:
        UserError: If one is no such command.
    """
    found = {}
    for name, stage in YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"].items():
        words = shlex.split(stage["cmd"])
        if words[:2] != PREFIX:
            raise UserError(f"dvc.yaml: stages.{name}.cmd: found {stage['cmd']!r}, expected python -m MODULE")
        found[name] = words[2:]
    return found


def run(name: str, command: list[str], folder: Path, log: Path, look: Callable[[], None]) -> None:
    """Runs a stage; what it says goes to the log and, as it comes, to standard output.

    A worker that is to end lets it end first: `fit` writes a checkpoint.

    Args:
        name: The stage's.
        command: What follows `python -m`.
        folder: Where it runs.
        log: Is appended to.
        look: Called all the while.

    Raises:
        UserError: If it fails; with its error.
    """
    start = log.stat().st_size if log.exists() else 0
    with open(log, "ab") as file, open(log, "rb") as echo:
        echo.seek(start)
        process = subprocess.Popen(
            [sys.executable, "-c", CHILD, *command],
            cwd=folder,
            # The stages know no store: they need no credentials.
            env={key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
            | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the worker
        )
        try:
            while process.poll() is None:
                time.sleep(POLL)
                _copy(echo)
                look()
        except Stopped:
            process.terminate()
            process.wait()
            raise
        finally:
            process.kill()
            process.communicate()
            _copy(echo)
    if process.returncode:
        raise UserError(f"{name}: {_reason(process.returncode, log, start)}")


def _copy(source: Any) -> None:
    sys.stdout.write(source.read().decode(errors="replace"))
    sys.stdout.flush()


def _reason(code: int, log: Path, start: int) -> str:
    """Returns the error that a stage has ended with: the last lines of what it said."""
    lines = log.read_bytes()[start:].decode(errors="replace").splitlines()
    errors = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if errors:
        said = "\n".join(lines[errors[-1] :]).strip().removeprefix("error: ")
    elif code < 0:
        said = f"ended by {signal.Signals(-code).name}" + (", as where memory runs out" if code == -9 else "")
    else:
        said = next((line.strip() for line in reversed(lines) if line.strip()), f"exit status {code}")
    return said if len(said) <= LONGEST else f"{said[:LONGEST]}…"

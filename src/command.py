"""How every command starts and ends: help, exit status, and the record of the run in build/run.json."""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from src.errors import UserError
from src.files import FULL, read_json, write_json

RECORD = Path("build/run.json")


def parser(docstring: str | None) -> argparse.ArgumentParser:
    """Returns a parser whose help is the module's docstring, as it is written."""
    return argparse.ArgumentParser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def run(main: Callable[[], None]) -> NoReturn:
    """Runs a command and exits: 0 after success, 1 after a `UserError`, 2 for wrong usage (argparse)."""
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        if error.errno not in FULL:
            raise
        sys.exit(f"error: {error.filename or 'a file'}: cannot be written: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit("interrupted")
    sys.exit(0)


def stage(docstring: str | None, main: Callable[[], None]) -> NoReturn:
    """Runs a DVC stage: it takes no argument but --help, and what it does is said by params.yaml."""
    parser(docstring).parse_args()
    started = time.monotonic()

    def timed() -> None:
        main()
        _record(Path(sys.argv[0]).stem, time.monotonic() - started)

    run(timed)


def _record(name: str, seconds: float) -> None:
    """Notes when and where a stage ran. No DVC output may hold this: it differs from run to run."""
    record: dict[str, Any] = read_json(RECORD) if RECORD.exists() else {}
    record[name] = {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "commit": commit(),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}",
    }
    write_json(RECORD, record)


def commit() -> str | None:
    """Returns the checked-out commit, `-dirty` added when tracked files differ; None without git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    except FileNotFoundError:  # no git on this machine
        return None

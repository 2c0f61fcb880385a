"""Files that are either written whole or not at all, and what is kept of a run beside its results."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.errors import UserError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yields a temporary path beside `path`, and renames it to `path` once the block has succeeded.

    A failure leaves the old file or folder as it was and removes the temporary one.

    Raises:
        UserError: If the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        temporary = scratch / path.name
        yield temporary
        if path.is_dir():
            os.replace(path, scratch / "old")
        try:
            os.replace(temporary, path)
        except OSError:
            if (scratch / "old").exists():
                os.replace(scratch / "old", path)
            raise
    except OSError as error:
        if error.errno in FULL:
            raise UserError(f"{path}: cannot be written: {os.strerror(error.errno)}") from error
        raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def alone(lock: Path, *written: Path) -> Iterator[None]:
    """Lets one process at a time into the block, and removes what a killed one left beside what it wrote.

    Args:
        lock: A file that stands for the block; the lock on it ends with the process, however that ends.
        written: What is written in the block, by `replacing`.

    Raises:
        UserError: If another process is there.
    """
    import fcntl  # Windows has none, where models are used but not trained

    lock.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{lock}: process {file.read().strip()} works here already; wait for it, or end it"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        for path in written:
            for scratch in path.parent.glob(f".{path.name}.*"):
                shutil.rmtree(scratch, ignore_errors=True)
        yield


def write_json(path: Path | str, content: Any) -> None:
    """Writes `content` as indented JSON with a final newline; keys keep their order."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Reads a JSON file that an earlier stage wrote; `path` may also be a member of an archive.

    Raises:
        UserError: If the file is missing or is not JSON.
    """
    try:
        return json.loads((Path(path) if isinstance(path, str) else path).read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: not found; run `dvc repro`, which makes it") from None
    except ValueError as error:
        raise UserError(f"{path}: expected JSON, found something else ({error})") from None


def sha256(path: Path | str) -> str:
    """Returns the SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

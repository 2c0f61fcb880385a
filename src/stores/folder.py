"""A folder, on this machine or a shared disk: a folder in it for each version, and `latest`, a link.

`--store folder:PATH`, or PUBLISH_FOLDER in the environment.
"""

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from src.checksums import check
from src.errors import UserError
from src.files import FULL
from src.stores import SEMANTIC, judged, newest

SCRATCH = ".publishing-"
STALE = 24 * 3600  # seconds after which what a killed publish left is swept away


@dataclass(frozen=True)
class Options:
    """Where the versions are."""

    path: Path


def options(argument: str | None, environ: Mapping[str, str]) -> Options | None:
    """Returns the options, None if neither argument nor environment names a folder."""
    path = argument or environ.get("PUBLISH_FOLDER")
    return Options(Path(path)) if path else None


def put(bundle: Path, version: str, options: Options) -> str:
    """Publishes a bundle: copied beside, checked, then renamed, so that a version appears whole.

    Raises:
        UserError: If the version is another model, or the folder cannot be written.
    """
    target = options.path / version
    try:
        options.path.mkdir(parents=True, exist_ok=True)
        _sweep(options.path)
        if not target.exists():
            _copy(bundle, target)
        if judged(target) != judged(bundle):
            raise UserError(f"{target}: is another model already; expected a new version")
        _point(options)
    except OSError as error:
        raise UserError(f"{target}: cannot be published: {error.strerror}") from error
    return str(target)


def _copy(bundle: Path, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=target.parent) as scratch:
        copy = Path(scratch) / target.name
        shutil.copytree(bundle, copy)
        check(copy)
        try:
            copy.rename(target)
        except OSError as error:  # another publish was faster
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _point(options: Options) -> None:
    """Makes `latest` lead to the newest version; it never leads nowhere, not even for a moment."""
    version = newest(versions(options))
    if version:
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=options.path) as scratch:
            link = Path(scratch) / "latest"
            link.symlink_to(version)
            os.replace(link, options.path / "latest")


def _sweep(path: Path) -> None:
    """Removes what killed publishes left, once no running one can own it."""
    for left in path.glob(f"{SCRATCH}*"):
        if left.stat().st_mtime < time.time() - STALE:
            shutil.rmtree(left, ignore_errors=True)


def versions(options: Options) -> list[str]:
    """Returns the published versions."""
    if not options.path.is_dir():
        return []
    return [path.name for path in options.path.iterdir() if SEMANTIC.fullmatch(path.name)]


def download(version: str, name: str, path: Path, options: Options) -> None:
    """Copies one file of a version.

    Raises:
        UserError: If there is no such version or file, or it cannot be read.
    """
    source = options.path / version / name
    try:
        shutil.copyfile(source, path)
    except FileNotFoundError:
        raise UserError(f"{source}: not found") from None
    except OSError as error:
        if error.errno in FULL:
            raise
        raise UserError(f"{source}: cannot be read: {error.strerror}") from None


def contents(version: str, options: Options) -> list[str]:
    """Returns the names of a version's files."""
    folder = options.path / version
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]

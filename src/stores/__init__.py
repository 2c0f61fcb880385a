"""Where published models are kept.

The promise of every file here:

    options(argument, environ)     how to reach the store: from what stands behind `NAME:` and from the
                                   environment; None if they do not say
    put(bundle, version, options)  publishes a folder under a version, returns where it is now. A version is
                                   whole or invisible; the same model again under its version changes
                                   nothing, another model under it is a UserError
    versions(options)              the published versions, in any order
    download(version, name, path, options)  writes one file of a version to `path`; UserError if there is none

A bundle names its files in SHA256SUMS and, in provenance.json, those that the gate judged. Two bundles of the
same judged files are the same model, though they were bundled by different jobs at different times.
"""

import json
import re
import shutil
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from src.checksums import SUMS, check, checksums
from src.errors import UserError
from src.files import replacing

PROVENANCE = "provenance.json"
# https://semver.org/spec/v2.0.0.html, sections 2, 9 and 10
SEMANTIC = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][\da-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][\da-zA-Z-]*))*))?"
    r"(?:\+[\da-zA-Z-]+(?:\.[\da-zA-Z-]+)*)?"
)


def judged(bundle: Path) -> dict[str, str]:
    """Returns what the gate judged, name → SHA-256: what makes two bundles the same model."""
    files: dict[str, str] = json.loads((bundle / PROVENANCE).read_text())["files"]
    return files


def order(version: str) -> tuple[Any, ...]:
    """Returns a key that sorts versions by precedence: https://semver.org, section 11."""
    major, minor, patch, before = SEMANTIC.fullmatch(version).groups()  # type: ignore[union-attr]
    parts = [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in (before or "").split(".")]
    return int(major), int(minor), int(patch), before is None, parts


def newest(versions: list[str]) -> str | None:
    """Returns the highest version that is no pre-release, None if there is none."""
    released = [version for version in versions if order(version)[3]]
    return max(released, key=order, default=None)


def next_patch(versions: list[str]) -> str:
    """Returns the version behind the newest one; 0.0.1 is the first."""
    major, minor, patch = order(newest(versions) or "0.0.0")[:3]
    return f"{major}.{minor}.{patch + 1}"


def holds(store: ModuleType, version: str, options: Any, bundle: Path) -> bool:
    """Returns whether a store's version is the same model as a bundle."""
    with tempfile.TemporaryDirectory() as scratch:
        store.download(version, PROVENANCE, Path(scratch) / PROVENANCE, options)
        return judged(Path(scratch)) == judged(bundle)


def get(store: ModuleType, version: str, folder: Path, options: Any) -> None:
    """Downloads a version whole and checks it, or leaves `folder` as it was.

    Raises:
        UserError: If there is no such version or a file is not what SHA256SUMS says.
    """
    with replacing(folder) as temporary:
        temporary.mkdir()
        store.download(version, SUMS, temporary / SUMS, options)
        for name in checksums(temporary):
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            store.download(version, name, temporary / name, options)
        check(temporary)
        if folder.is_file():
            shutil.rmtree(temporary)
            raise UserError(f"{folder}: expected a folder or nothing there, found a file")

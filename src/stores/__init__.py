"""Where published models are kept.

The promise of every file here:

    options(argument, environ)     how to reach the store: from what stands behind `NAME:` and from the
                                   environment; None if they do not say
    put(bundle, version, options)  publishes a folder under a version, returns where it is now. A version is
                                   whole or invisible; the same model again under its version changes
                                   nothing, another model under it is a UserError
    versions(options)              the published versions, in any order
    download(version, name, path, options)  writes one file of a version to `path`; UserError if there is none

One where a job's results can be downloaded takes the job's id in place of a version. One that can tell what a
version really holds also exports `contents(version, options)`, names of files, so that `get` finds more than
SHA256SUMS lists.

A bundle names its files in SHA256SUMS and, in provenance.json, those that the gate judged. Two bundles of the
same judged files are the same model, though they were bundled by different jobs at different times.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from src.checksums import SUMS, check, checksums
from src.errors import UserError
from src.files import replacing
from src.plugin import names, pick
from src.signature import verify_bundle

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


@dataclass(frozen=True)
class Store:
    """A file of this folder, and how to reach the store."""

    module: ModuleType
    options: Any


def choose(wanted: list[str], environ: Mapping[str, str]) -> list[Store]:
    """Returns the stores that are wanted, else those that the environment names.

    Args:
        wanted: `NAME` or `NAME:WHERE` each.
        environ: The environment.

    Raises:
        UserError: If a wanted store is unknown, or cannot be reached with what is said.
    """
    found = []
    for text in wanted or names("stores"):
        name, _, argument = text.partition(":")
        module = pick("stores", name)
        options = module.options(argument or None, environ)
        if options is not None:
            found.append(Store(module, options))
        elif wanted:
            how = " ".join(str(module.__doc__).split("\n\n")[1].split())
            raise UserError(f"--store {text}: not enough is known to reach it; expected {how}")
    return found


def holds(store: ModuleType, version: str, options: Any, bundle: Path) -> bool:
    """Returns whether a store's version is the same model as a bundle."""
    with tempfile.TemporaryDirectory() as scratch:
        store.download(version, PROVENANCE, Path(scratch) / PROVENANCE, options)
        return judged(Path(scratch)) == judged(bundle)


def get(store: ModuleType, version: str, folder: Path, options: Any, key: Path | None = None) -> None:
    """Downloads a version whole and checks it, or leaves `folder` as it was.

    Args:
        store: A file of this folder.
        version: The version, or the id of a job.
        folder: Where it is to be.
        options: How to reach the store.
        key: The public key that it must be signed by; None: any or none.

    Raises:
        UserError: If there is no such version, it is not what SHA256SUMS says, or not what was signed.
    """
    if folder.is_file():
        raise UserError(f"{folder}: expected a folder or nothing there, found a file")
    with replacing(folder) as temporary:
        temporary.mkdir()
        store.download(version, SUMS, temporary / SUMS, options)
        expected = checksums(temporary)
        if hasattr(store, "contents"):
            for name in sorted({*store.contents(version, options)} - {SUMS, *expected}):
                raise UserError(f"{version}: {name} is there, but is not listed in its {SUMS}")
        for name in expected:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            store.download(version, name, temporary / name, options)
        check(temporary)
        if key:
            verify_bundle(temporary, key, version)

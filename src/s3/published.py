"""What is published in a bucket, and must not be deleted or replaced: what entries and versions consist of.

A version is a record under `versions/`, written once, beside the inference.json that its entry is in.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from src.errors import UserError
from src.s3 import entries
from src.s3.bucket import Bucket

VERSIONS = "versions/"
FORMAT = 1  # of a version's record
PUBLISHED = re.compile(rf"(|.*?/){entries.MODELS}([^/]+)/([0-9a-f]{{64}})/")  # where the files of a model are
RECORD = re.compile(rf"(|.*?/){VERSIONS}([^/]+)\.json")


def record(bucket: Bucket, prefix: str, version: str) -> dict[str, Any] | None:
    """Returns what a version is: its judged files, name → SHA-256, and its entry; None if it is not there.

    Args:
        bucket: Where it is.
        prefix: What all keys begin with, a `/` at its end.
        version: Its number.

    Raises:
        UserError: If the record is none.
    """
    key = f"{prefix}{VERSIONS}{version}.json"
    found = bucket.read(key)
    if found is None:
        return None
    try:
        content: dict[str, Any] = json.loads(found[0])
        if content["format"] != FORMAT or not isinstance(content["files"], dict):
            raise ValueError
        entries.files(content["entry"])
    except (ValueError, TypeError, KeyError, AttributeError, UserError):
        raise UserError(f"{bucket.place(key)}: expected the record of a version, format {FORMAT}") from None
    return content


def refuse_used(bucket: Bucket, keys: Iterable[str]) -> None:
    """Checks that no entry and no version would be broken.

    Args:
        bucket: Where the keys are.
        keys: Of files that are to be deleted or replaced.

    Raises:
        UserError: If one is named by an entry of an inference.json above it, or is such a file itself.
    """
    known: dict[str, dict[str, entries.Entry]] = {}
    for key in keys:
        own = PUBLISHED.match(key) or RECORD.fullmatch(key)
        above = own[1] if own else key
        depths = [position + 1 for position, letter in enumerate(above) if letter == "/"]
        for prefix in ["", *(above[:depth] for depth in depths)]:
            if prefix not in known:
                known[prefix] = entries.read(bucket, prefix)
            user = _user(known[prefix], prefix, key)
            if user:
                raise UserError(
                    f"{bucket.place(key)}: {user} of {bucket.place(prefix + entries.NAME)} would lose it; "
                    "`entry rm` removes an entry, --force does it all the same"
                )
        found = own and record(bucket, own[1], own[2])
        if found and (RECORD.fullmatch(key) or key.startswith(entries.files(found["entry"]))):
            raise UserError(
                f"{bucket.place(key)}: the version {found['version']} would lose it; --force does it all "
                "the same"
            )


def _user(known: dict[str, entries.Entry], prefix: str, key: str) -> str:
    """Returns which entry a file is of; empty if of none."""
    if known and key == prefix + entries.NAME:
        return f"each of the {len(known):,} entries"
    for id, entry in known.items():
        if key in entry.values() or key.startswith(tuple(folders(entry))):
            return f"the entry {id!r}"
    return ""


def folders(entry: entries.Entry) -> Iterator[str]:
    """Yields where the files of an entry are, all of them its own."""
    for value in entry.values():
        own = PUBLISHED.match(value) if isinstance(value, str) else None
        if own:
            yield own[0]

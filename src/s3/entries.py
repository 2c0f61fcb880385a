"""The shared inference.json: a dictionary, keyed by the id of a job or a version, of models to be used.

Applications read it; whoever publishes a model sets its entry. All paths in it are keys in the same bucket:

    image, and every task but text:
        task_type, plot_path, correct_prediction, incorrect_prediction, model_path, classes, accuracy, created
    text, whose inputs take a tokenizer (`tokenizers.Tokenizer.from_file` reads it; it cuts and pads, too):
        task_type, accuracy, model_parameters, plot_path, model_path, tokenizer_path, classes, created

A regression has no classes and no accuracy: both are null. Where the main metric is another than accuracy it
stands under its own name as well. A picture that was not made is null.

The files go up first, under `models/<id>/<SHA-256 of their SHA256SUMS>/`, a name that no other content has;
then the entry is set by compare-and-swap. So whoever reads an entry finds its files, and of any number of
writers none undoes what another wrote. A publisher that is killed leaves files that no entry names. Replacing
an entry leaves the old files where they are, for readers that hold the old entry.
"""

import hashlib
import json
import random
import re
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from src.checksums import SUMS, check, checksums, written
from src.errors import UserError
from src.files import read_json, sha256
from src.s3.bucket import Bucket, ChangedError, Object
from src.s3.upload import upload_files

Entry = dict[str, Any]

NAME = "inference.json"
MODELS = "models/"
ID = re.compile(r"\w[\w.+-]*", re.ASCII)
# What applications know a sentence's network by.
PARAMETERS = (
    "model_name", "input_dim", "embedding_dim", "hidden_dim", "output_dim", "number_of_layers",
    "bidirectional", "dropout", "pad_index",
)  # fmt: skip
TRIES = 200  # to set an entry while others set theirs
PAUSE, LONGEST = 0.02, 2.0  # seconds, at most, after the first try, and after any


# ── Entries ────────────────────────────────────────────────────────────────────────────────────────────────


def read(bucket: Bucket, prefix: str = "") -> dict[str, Entry]:
    """Returns id → entry; empty where nothing was published yet.

    Args:
        bucket: Where inference.json is.
        prefix: What its key begins with, a `/` at its end; empty: it is at the bucket's root.

    Raises:
        UserError: If it is not what it should be.
    """
    return _read(bucket, prefix)[0]


def update(
    bucket: Bucket, id: str, entry: Entry, prefix: str = "", check: Callable[[], Any] = lambda: None
) -> None:
    """Sets an entry, whatever others write meanwhile. One that is there already is not written again.

    Args:
        bucket: Where inference.json is.
        id: Of a job, or a version.
        entry: As `describe` gives it.
        prefix: What the key of inference.json begins with.
        check: Called before each try; what it raises ends this.

    Raises:
        UserError: If inference.json is not what it should be, or the store refuses.
    """
    check_id(id)
    _change(bucket, prefix, lambda entries: {**entries, id: entry}, check)


def remove(bucket: Bucket, id: str, prefix: str = "") -> Entry:
    """Takes an entry out; its files stay.

    Returns:
        The entry.

    Raises:
        UserError: If there is no such entry, inference.json is not what it should be, or the store refuses.
    """
    removed: list[Entry] = []

    def without(entries: dict[str, Entry]) -> dict[str, Entry]:
        if id in entries:
            removed[:] = [entries[id]]
        return {key: entry for key, entry in entries.items() if key != id}

    _change(bucket, prefix, without, lambda: None)
    if not removed:
        raise UserError(f"{bucket.place(prefix + NAME)}: there is no entry {id!r}")
    return removed[0]


def _change(
    bucket: Bucket,
    prefix: str,
    change: Callable[[dict[str, Entry]], dict[str, Entry]],
    check: Callable[[], Any],
) -> dict[str, Entry]:
    """Changes inference.json, read and written anew until nobody else did between; returns what is there."""
    for attempt in range(TRIES):
        entries, found = _read(bucket, prefix)
        changed = change(entries)
        if changed == entries:
            return entries
        check()
        content = json.dumps(changed, indent=2, allow_nan=False) + "\n"
        try:
            bucket.write(prefix + NAME, content.encode(), over=found.etag if found else None)
        except ChangedError:
            # https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/: "full jitter"
            time.sleep(random.uniform(0, min(LONGEST, PAUSE * 2 ** min(attempt, 10))))
        else:
            return changed
    raise UserError(
        f"{bucket.place(prefix + NAME)}: cannot write: others changed it {TRIES} times meanwhile; try again"
    )


def _read(bucket: Bucket, prefix: str) -> tuple[dict[str, Entry], Object | None]:
    """Returns the entries, and what they were read from.

    Raises:
        UserError: If that is no JSON, or another one than a dictionary of dictionaries.
    """
    found = bucket.read(prefix + NAME)
    if found is None:
        return {}, None
    place = f"{bucket.place(prefix + NAME)}: expected a dictionary of entries in JSON"
    try:
        entries = json.loads(found[0], parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}, found something else ({error}); it is left as it is") from None
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise UserError(f"{place}, found another JSON; it is left as it is")
    return entries, found[1]


def _no_number(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def check_id(id: str) -> None:
    """Checks that an id can be part of a key.

    Raises:
        UserError: If it cannot.
    """
    if not ID.fullmatch(id):
        raise UserError(f"id: found {id!r}, expected letters, digits, '_', '.', '+' and '-'")


# ── Publishing ─────────────────────────────────────────────────────────────────────────────────────────────


def publish(
    bucket: Bucket,
    id: str,
    folder: Path,
    created: str,
    check: Callable[[], Any] = lambda: None,
    prefix: str = "",
) -> Entry:
    """Uploads a folder of results, then sets its entry. The same files again change nothing, not even when.

    Args:
        bucket: Where applications look.
        id: The entry's.
        folder: What the stages wrote: inference.json, metrics.json, model.keras and what else is to be kept.
        created: When, in ISO 8601.
        check: Called when the files are there, before the entry is set: raises if this publisher may not.
        prefix: What all keys begin with, a `/` at its end.

    Returns:
        The entry that is there now.

    Raises:
        UserError: If a file is missing, or changed meanwhile, or the store refuses.
    """
    entry = upload(bucket, id, folder, created, prefix)

    def add(entries: dict[str, Entry]) -> dict[str, Entry]:
        first = entries.get(id, {}).get("created", created)
        same = entries.get(id) == {**entry, "created": first}
        return entries if same else {**entries, id: entry}

    return _change(bucket, prefix, add, check)[id]


def upload(bucket: Bucket, id: str, folder: Path, created: str, prefix: str = "") -> Entry:
    """Uploads a folder and its SHA256SUMS, several files at once, with a progress bar.

    What is there already, from an attempt that was cut off, is not sent again. Hidden files stay behind.

    Returns:
        The entry, which is not set yet.

    Raises:
        UserError: If a file is missing, or changed meanwhile, or the store refuses.
    """
    check_id(id)
    sums = _sums(folder)
    content = written(sums).encode()
    where = f"{prefix}{MODELS}{id}/{hashlib.sha256(content).hexdigest()}/"
    entry = describe(folder, where, created)
    there = {found.key: found.size for found in bucket.objects(where)}
    missing = [name for name in sums if there.get(where + name) != (folder / name).stat().st_size]
    if missing:
        upload_files(bucket, {folder / name: where + name for name in missing}, folder.name)
        if _sums(folder) != sums:
            raise UserError(f"{folder}: was changed while it was published; publish it again")
    if there.get(where + SUMS) != len(content):
        bucket.write(where + SUMS, content, anyway=True)
    return entry


def describe(folder: Path, prefix: str, created: str) -> Entry:
    """Returns the entry of a folder of results.

    Args:
        folder: Holds inference.json, metrics.json and the files that the first names.
        prefix: What the keys of its files begin with, a `/` at its end.
        created: When, in ISO 8601.

    Raises:
        UserError: If a file that the entry needs is missing or not what it should be.
    """
    inference = read_json(folder / NAME)
    metrics = read_json(folder / "metrics.json")
    headline = next(iter(metrics))

    def key(name: str) -> str:
        if not (folder / inference[name]).is_file():
            raise UserError(f"{folder / inference[name]}: not found; {folder / NAME} names it as {name}")
        return prefix + str(inference[name])

    def picture(name: str) -> str | None:
        return key(name) if (folder / inference[name]).is_file() else None

    try:
        own: Entry = {"accuracy": metrics.get("accuracy"), headline: metrics[headline]}
        if "tokenizer_path" in inference:
            known = inference.get("model_parameters", {"model_name": inference["architecture"]["name"]})
            own["model_parameters"] = {name: known.get(name) for name in PARAMETERS}
            own["tokenizer_path"] = key("tokenizer_path")
        else:
            own |= {name: picture(name) for name in ("correct_prediction", "incorrect_prediction")}
        return {
            "task_type": inference["task_type"],
            **own,
            "plot_path": picture("plot_path"),
            "model_path": key("model_path"),
            "classes": inference["classes"],
            "created": created,
        }
    except KeyError as error:
        raise UserError(f"{folder / NAME}: has no {error}, which an entry needs") from None


def files(entry: Entry) -> str:
    """Returns what the keys of an entry's files begin with; SHA256SUMS among them names all.

    Raises:
        UserError: If the entry names no model.
    """
    path = entry.get("model_path")
    if not isinstance(path, str) or "/" not in path:
        raise UserError(f"{NAME}: model_path: found {path!r}, expected the key of a model")
    return f"{PurePosixPath(path).parent}/"


def _sums(folder: Path) -> dict[str, str]:
    """Returns name → SHA-256 of a folder's files; those of its own SHA256SUMS where it has one, checked."""
    if (folder / SUMS).exists():
        check(folder)
        return checksums(folder)
    found = {path: path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    shown = {path: name for path, name in found.items() if not any(part[0] == "." for part in name.parts)}
    if not shown:
        raise UserError(f"{folder}: expected a folder of results, found no files")
    return {name.as_posix(): sha256(path) for path, name in shown.items()}

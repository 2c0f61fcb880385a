"""Files of a bucket downloaded: parts at once, going on where an earlier attempt ended, and verified."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from tqdm import tqdm

from src.errors import UserError
from src.s3.bucket import PART, THREADS, Bucket, Object

Given = TypeVar("Given")
Answer = TypeVar("Answer")


def download(bucket: Bucket, key: str, path: Path, expected: str | None = None) -> None:
    """Downloads one file, with a progress bar.

    Args:
        bucket: Where it is.
        key: Its name there.
        path: Where it is to be.
        expected: Its SHA-256; None: what whoever uploaded it gave, else the MD5 that its ETag may be.

    Raises:
        ChangedError: If the file was changed meanwhile.
        UserError: If there is none, or it is not what it should be.
    """
    found = bucket.find(key)
    if found is None:
        next(bucket.objects(key), None)  # says so if there is not even the bucket
        raise UserError(f"{bucket.place(key)}: not found")
    with bar(found.size, path.name) as shown:
        _fetch(bucket, found, path, expected, shown.update)


def download_all(bucket: Bucket, prefix: str, folder: Path) -> None:
    """Downloads all files of a folder of the bucket, with a progress bar.

    Files that are there already, of the same size and MD5 or SHA-256, are not downloaded again.

    Args:
        bucket: Where they are.
        prefix: The folder: what their keys begin with, up to a `/`; empty: all of the bucket.
        folder: Where the files are to be.

    Raises:
        UserError: If there are none, or a name would lead out of `folder`.
    """
    prefix = folder_key(prefix)
    objects = [found for found in bucket.objects(prefix) if not found.key.endswith("/")]
    if not objects:
        raise UserError(f"{bucket.place(prefix)}: there are no files")
    targets = _targets(bucket, prefix, objects, folder)
    small = [found for found in objects if found.size <= PART]
    large = [found for found in objects if found.size > PART]  # whose parts come at once
    with bar(sum(found.size for found in objects), folder.name) as shown:

        def fetch(found: Object) -> int:
            if not _same(bucket, found, targets[found.key]):
                _fetch(bucket, found, targets[found.key], None)
            return found.size

        for size in together(fetch, small):
            shown.update(size)
        for found in large:
            if _same(bucket, found, targets[found.key]):
                shown.update(found.size)
            else:
                _fetch(bucket, found, targets[found.key], None, shown.update)


def together(call: Callable[[Given], Answer], items: Iterable[Given]) -> Iterator[Answer]:
    """Yields what `call` returns for each item, in their order, several at once.

    After an error, or where nobody wants more, those that have not begun are left out.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        try:
            yield from pool.map(call, items)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def folder_key(prefix: str) -> str:
    """Returns what the keys in a folder of a bucket begin with: its name and a `/`, or nothing."""
    return prefix if prefix.endswith("/") or not prefix else f"{prefix}/"


def bar(size: int, what: str) -> "tqdm[Any]":
    """Returns a progress bar of bytes."""
    return tqdm(total=size, desc=what, unit="B", unit_scale=True, unit_divisor=1024)


def _targets(bucket: Bucket, prefix: str, objects: list[Object], folder: Path) -> dict[str, Path]:
    """Returns key → path.

    Raises:
        UserError: If a name leads out of the folder, or a file would be where another or a folder is.
    """
    names = {found.key: _inside(bucket, found.key, prefix) for found in objects}
    keys: dict[PurePosixPath, str] = {}
    for key, name in names.items():
        if name in keys:
            raise UserError(f"{bucket.place(key)}: would be the same file as {bucket.place(keys[name])}")
        keys[name] = key
    for key, name in names.items():
        for parent in name.parents:
            if parent in keys:
                raise UserError(f"{bucket.place(keys[parent])}: is a file, and {bucket.place(key)} is in it")
    return {key: folder / name for key, name in names.items()}


def _inside(bucket: Bucket, key: str, prefix: str) -> PurePosixPath:
    """Returns what follows the prefix.

    Raises:
        UserError: If that leads out of the folder that it is downloaded to.
    """
    name = key.removeprefix(prefix)
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or not path.name:
        raise UserError(f"{bucket.place(key)}: leads out of its folder; expected a name inside {prefix!r}")
    return path


def _fetch(
    bucket: Bucket,
    found: Object,
    path: Path,
    expected: str | None,
    progress: Callable[[int], Any] = lambda count: None,
) -> None:
    """Downloads one file; what is at `path` stays until it is whole."""
    part, place = path.with_name(f".{path.name}.part"), bucket.place(found.key)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if found.size <= PART:
            answer = bucket.read(found.key)
            if answer is None or answer[1].etag != found.etag:
                raise bucket.changed(found.key)
            content, known = answer
            _verify(place, len(content), lambda kind: hashlib.new(kind, content).hexdigest(), known, expected)
            part.write_bytes(content)
            progress(found.size)
        else:
            known = found if found.sha256 or expected else bucket.find(found.key) or found
            _fetch_parts(bucket, found, part, progress)
            try:
                _verify(place, part.stat().st_size, lambda kind: _digest(part, kind), known, expected)
            except UserError:
                part.unlink()
                raise
        os.replace(part, path)
        _ledger(part).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from None


def _ledger(part: Path) -> Path:
    """Returns where is noted which parts of a large file are there."""
    return part.with_suffix(".parts")


def _fetch_parts(bucket: Bucket, found: Object, part: Path, progress: Callable[[int], Any]) -> None:
    """Downloads the parts of a large file that are not there yet.

    A file beside it says whose parts these are, and where those begin that are there.

    Args:
        bucket: Where it is.
        found: The file.
        part: Where it is until it is whole.
        progress: Called with how many more bytes are there.
    """
    ledger = _ledger(part)
    about = json.dumps([bucket.name, found.key, found.etag, found.size, PART])
    lines = ledger.read_text().splitlines() if ledger.exists() and part.exists() else []
    if lines[:1] != [about]:
        lines = [about]
        part.write_bytes(b"")
        ledger.write_text(about + "\n")
    done = {int(line) for line in lines[1:] if line.isdigit()}
    progress(sum(min(PART, found.size - start) for start in done))

    with open(part, "r+b") as file, open(ledger, "a") as notes:

        def fetch(start: int) -> int:
            os.pwrite(file.fileno(), bucket.read_part(found, start, min(start + PART, found.size)), start)
            return start

        for start in together(fetch, [at for at in range(0, found.size, PART) if at not in done]):
            notes.write(f"{start}\n")
            notes.flush()
            progress(min(PART, found.size - start))


def _same(bucket: Bucket, found: Object, path: Path) -> bool:
    """Whether a file on the disk is that in the bucket, as far as the bucket knows that."""
    if not path.is_file() or path.stat().st_size != found.size:
        return False
    if found.size > PART:
        found = bucket.find(found.key) or found
    kind, digest = _known(found)
    return bool(kind) and _digest(path, kind) == digest


def _verify(place: str, size: int, actual: Callable[[str], str], found: Object, expected: str | None) -> None:
    """Checks a downloaded file.

    Args:
        place: Its address.
        size: How many bytes came.
        actual: Returns the digest of what came, of the kind that it is called with.
        found: What the bucket says of it.
        expected: Its SHA-256, if the caller knows better.

    Raises:
        UserError: If it is not what it should be.
    """
    if size != found.size:
        raise UserError(f"{place}: came with {size:,} bytes, expected {found.size:,}")
    kind, digest = ("sha256", expected) if expected else _known(found)
    if kind and (came := actual(kind)) != digest:
        name = {"sha256": "SHA-256", "md5": "MD5"}[kind]
        raise UserError(f"{place}: came with the {name} {came}, expected {digest}")


def _known(found: Object) -> tuple[str, str | None]:
    """Returns what kind of digest the bucket knows of a file, and the digest; nothing if it knows none.

    The ETag of a file that was uploaded in one part, and not encrypted with a key of KMS, is its MD5.
    """
    etag = found.etag.strip('"')
    if found.sha256:
        return "sha256", found.sha256
    return ("md5", etag) if len(etag) == 32 and not found.encrypted else ("", None)


def _digest(path: Path, kind: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()

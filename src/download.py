"""Files of a bucket downloaded: parts at once, going on where an earlier attempt ended, and verified."""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from src.bucket import PART, THREADS, Bucket, Object
from src.errors import UserError
from src.files import replacing, sha256


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
        raise UserError(f"{bucket.place(key)}: not found")
    with bar(found.size, path.name) as shown:
        _fetch(bucket, found, path, expected, shown.update)


def download_all(bucket: Bucket, prefix: str, folder: Path) -> None:
    """Downloads all files whose keys begin with `prefix`, under what follows it, with a progress bar.

    Files that are there already, of the same size and MD5, are not downloaded again.

    Args:
        bucket: Where they are.
        prefix: A folder's, with a `/` at its end; empty: all of the bucket.
        folder: Where the files are to be.

    Raises:
        UserError: If there are none, or a name would lead out of `folder`.
    """
    objects = [found for found in bucket.objects(prefix) if not found.key.endswith("/")]
    if not objects:
        raise UserError(f"{bucket.place(prefix)}: there are no files")
    targets = {found.key: folder / _inside(bucket, found.key, prefix) for found in objects}
    small = [found for found in objects if found.size <= PART]
    large = [found for found in objects if found.size > PART]  # whose parts come at once
    with (
        bar(sum(found.size for found in objects), folder.name) as shown,
        ThreadPoolExecutor(THREADS) as pool,
    ):

        def fetch(found: Object) -> None:
            target = targets[found.key]
            if target.is_file() and _same(target, found):
                shown.update(found.size)
            else:
                _fetch(bucket, found, target, None, shown.update)

        try:
            for _ in pool.map(fetch, small):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        for found in large:
            fetch(found)


def bar(size: int, what: str) -> "tqdm[Any]":
    """Returns a progress bar of bytes."""
    return tqdm(total=size, desc=what, unit="B", unit_scale=True, unit_divisor=1024)


def _inside(bucket: Bucket, key: str, prefix: str) -> PurePosixPath:
    """Returns what follows the prefix.

    Raises:
        UserError: If that leads out of the folder that it is downloaded to.
    """
    name = key.removeprefix(prefix)
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise UserError(f"{bucket.place(key)}: leads out of its folder; expected a name inside {prefix!r}")
    return path


def _fetch(
    bucket: Bucket, found: Object, path: Path, expected: str | None, progress: Callable[[int], Any]
) -> None:
    if found.size <= PART:
        with replacing(path) as temporary:
            answer = bucket.read(found.key)
            if answer is None or answer[1].etag != found.etag:
                raise bucket.changed(found.key)
            temporary.write_bytes(answer[0])
            _verify(bucket.place(found.key), temporary, answer[1], expected)
        progress(found.size)
        return
    known = found if found.sha256 or expected else bucket.find(found.key) or found
    part, ledger = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.parts")
    path.parent.mkdir(parents=True, exist_ok=True)
    _fetch_parts(bucket, found, part, ledger, progress)
    try:
        _verify(bucket.place(found.key), part, known, expected)
    except UserError:
        part.unlink()
        raise
    finally:
        ledger.unlink()
    os.replace(part, path)


def _fetch_parts(
    bucket: Bucket, found: Object, part: Path, ledger: Path, progress: Callable[[int], Any]
) -> None:
    """Downloads the parts of a large file that are not there yet.

    Args:
        bucket: Where it is.
        found: The file.
        part: Where it is until it is whole.
        ledger: Whose parts these are, and where those begin that are there.
        progress: Called with how many more bytes are there.
    """
    about = json.dumps([bucket.name, found.key, found.etag, found.size, PART])
    lines = ledger.read_text().splitlines() if ledger.exists() and part.exists() else []
    if lines[:1] != [about]:
        lines = [about]
        part.write_bytes(b"")
        ledger.write_text(about + "\n")
    done = {int(line) for line in lines[1:] if line.isdigit()}
    progress(sum(min(PART, found.size - start) for start in done))

    with (
        open(part, "r+b") as file,
        open(ledger, "a") as notes,
        ThreadPoolExecutor(THREADS) as pool,
    ):

        def fetch(start: int) -> int:
            os.pwrite(file.fileno(), bucket.read_part(found, start, min(start + PART, found.size)), start)
            return start

        try:
            for start in pool.map(fetch, [at for at in range(0, found.size, PART) if at not in done]):
                notes.write(f"{start}\n")
                notes.flush()
                progress(min(PART, found.size - start))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _same(path: Path, found: Object) -> bool:
    """Whether a file on the disk is that in the bucket, as far as size and ETag say."""
    md5 = _md5(found)
    return path.stat().st_size == found.size and md5 is not None and _digest(path) == md5


def _verify(place: str, path: Path, found: Object, expected: str | None) -> None:
    """Checks a downloaded file.

    Raises:
        UserError: If it is not what it should be.
    """
    wrong = ""
    if path.stat().st_size != found.size:
        wrong = f"{path.stat().st_size:,} bytes, expected {found.size:,}"
    elif (digest := expected or found.sha256) is not None:
        if (actual := sha256(path)) != digest:
            wrong = f"the SHA-256 {actual}, expected {digest}"
    elif (md5 := _md5(found)) is not None and (actual := _digest(path)) != md5:
        wrong = f"the MD5 {actual}, expected {md5}"
    if wrong:
        raise UserError(f"{place}: came with {wrong}")


def _md5(found: Object) -> str | None:
    """Returns the MD5 of a file that was uploaded in one part: such a file's ETag, where it has that form."""
    etag = found.etag.strip('"')
    return etag if len(etag) == 32 else None


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()

"""Files and folders uploaded to a bucket, several files at once."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from src.bucket import PART, THREADS, Bucket
from src.download import bar, folder_key
from src.errors import UserError


def upload_all(bucket: Bucket, folder: Path, prefix: str) -> list[str]:
    """Uploads all files in a folder and in the folders below, with a progress bar.

    Args:
        bucket: Where they go.
        folder: Where they are.
        prefix: The folder that they go to: what their keys begin with, up to a `/`; empty: the bucket itself.

    Returns:
        The keys, in their order.

    Raises:
        UserError: If there are no files, or the store refuses one.
    """
    paths = keys(folder, prefix)
    upload_files(bucket, paths, folder.name)
    return list(paths)


def keys(folder: Path, prefix: str) -> dict[str, Path]:
    """Returns key → path, in the order of the keys, of all files in a folder and in the folders below.

    Raises:
        UserError: If there are no files.
    """
    prefix = folder_key(prefix)
    paths = {
        prefix + path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    if not paths:
        raise UserError(f"{folder}: there are no files to upload")
    return dict(sorted(paths.items()))


def upload_files(bucket: Bucket, paths: Mapping[str, Path], what: str) -> None:
    """Uploads files, with a progress bar.

    Each appears whole, all of them together do not: whoever must not see a part of them learns their keys
    from a file that is written afterwards.

    Args:
        bucket: Where they go.
        paths: Key → path.
        what: They are, for the progress bar.

    Raises:
        UserError: If the store refuses one.
    """
    sizes = {key: path.stat().st_size for key, path in paths.items()}
    small = [key for key, size in sizes.items() if size <= PART]
    large = [key for key, size in sizes.items() if size > PART]  # whose parts go at once
    with bar(sum(sizes.values()), what) as shown, ThreadPoolExecutor(THREADS) as pool:

        def send(key: str) -> int:
            bucket.upload(paths[key], key)
            return sizes[key]

        try:
            for size in pool.map(send, small):
                shown.update(size)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        for key in large:
            bucket.upload(paths[key], key, shown.update)

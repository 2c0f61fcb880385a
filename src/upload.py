"""Folders uploaded to a bucket, several files at once."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from src.bucket import PART, THREADS, Bucket
from src.download import bar, folder_key
from src.errors import UserError


def upload_all(bucket: Bucket, folder: Path, prefix: str) -> list[str]:
    """Uploads all files in a folder and in the folders below, with a progress bar.

    Each appears whole, all of them together do not: whoever must not see a part of them learns their keys
    from a file that is written afterwards.

    Args:
        bucket: Where they go.
        folder: Where they are.
        prefix: The folder that they go to: what their keys begin with, up to a `/`; empty: the bucket itself.

    Returns:
        The keys, in their order.

    Raises:
        UserError: If there are no files, or the store refuses one.
    """
    prefix = folder_key(prefix)
    paths = {
        prefix + path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()
    }
    if not paths:
        raise UserError(f"{folder}: there are no files to upload")
    keys = sorted(paths)
    sizes = {key: path.stat().st_size for key, path in paths.items()}
    small = [key for key in keys if sizes[key] <= PART]
    large = [key for key in keys if sizes[key] > PART]  # whose parts go at once
    with bar(sum(sizes.values()), folder.name) as shown, ThreadPoolExecutor(THREADS) as pool:

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
    return keys

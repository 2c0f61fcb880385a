"""Files uploaded to a bucket, several at once."""

from collections.abc import Mapping
from pathlib import Path

from src.errors import UserError
from src.s3.bucket import PART, Bucket
from src.s3.download import bar, folder_key, together


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
    files = keys_of(folder, prefix)
    upload_files(bucket, files, folder.name)
    return sorted(files.values())


def keys_of(folder: Path, prefix: str) -> dict[Path, str]:
    """Returns each file in a folder, and in the folders below, with the key that it goes to, in their order.

    Raises:
        UserError: If there are no files.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise UserError(f"{folder}: there are no files to upload")
    return {path: folder_key(prefix) + path.relative_to(folder).as_posix() for path in paths}


def upload_files(bucket: Bucket, files: Mapping[Path, str], title: str) -> None:
    """Uploads files, with a progress bar.

    Args:
        bucket: Where to.
        files: Each file's key.
        title: Of the bar.

    Raises:
        UserError: If the store refuses one; others may be there.
    """
    sizes = {path: path.stat().st_size for path in files}
    small = [path for path, size in sizes.items() if size <= PART]
    large = [path for path, size in sizes.items() if size > PART]  # whose parts go at once
    with bar(sum(sizes.values()), title) as shown:

        def send(path: Path) -> int:
            bucket.upload(path, files[path])
            return sizes[path]

        for size in together(send, small):
            shown.update(size)
        for path in large:
            bucket.upload(path, files[path], shown.update)

"""Files uploaded to a bucket, several at once."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from src.bucket import PART, THREADS, Bucket
from src.download import bar


def upload_all(bucket: Bucket, files: Mapping[Path, str], title: str) -> None:
    """Uploads files, with a progress bar.

    Args:
        bucket: Where to.
        files: Each file's key.
        title: Of the bar.

    Raises:
        UserError: If the store refuses one; others may be there.
    """
    sizes = {path: path.stat().st_size for path in files}
    with bar(sum(sizes.values()), title) as shown, ThreadPoolExecutor(THREADS) as pool:

        def send(path: Path) -> None:
            bucket.upload(path, files[path], shown.update)

        try:
            for _ in pool.map(send, [path for path, size in sizes.items() if size <= PART]):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        for path, size in sizes.items():
            if size > PART:  # whose parts go at once
                send(path)

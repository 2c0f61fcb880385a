"""Unpacks sluice.pyz: the folder is the bundle, and runs as the archive does."""

from pathlib import Path

from src.errors import UserError
from src.files import replacing
from src.predict.source import Source


def extract(source: Source, folder: Path) -> str:
    """Writes every file below a new folder, all or none, after comparing them with their checksums.

    Raises:
        UserError: If the folder is there already, or a file is not as SHA256SUMS says.
    """
    if source.archive is None:
        raise UserError(f"{source.path}: is a folder already; expected a sluice.pyz to unpack")
    if folder.exists():
        raise UserError(f"{folder}: is there already; expected a new folder's name")
    for problem in source.differences():
        raise UserError(f"{source.path}: {problem}")
    with replacing(folder) as temporary:
        for name in source.names():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read(name))
    return f"{folder}: {len(source.names())} files"

"""SHA256SUMS: the names and contents of a folder's files, as `sha256sum -c` reads them."""

import re
from pathlib import Path, PurePosixPath

from src.errors import UserError
from src.files import sha256

SUMS = "SHA256SUMS"


def checksums(bundle: Path) -> dict[str, str]:
    """Returns name → SHA-256 as the bundle's SHA256SUMS says.

    Raises:
        UserError: If the file is missing or malformed, or a name leads out of the bundle.
    """
    path = bundle / SUMS
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: not found; `python -m src.publish.bundle` makes the bundle") from None
    return parse(content, path)


def parse(content: bytes, where: Path | str) -> dict[str, str]:
    """Returns name → SHA-256 as the content of a SHA256SUMS says.

    Args:
        content: Of the file.
        where: What to call it in an error.

    Raises:
        UserError: If it is malformed, names a file twice, or a name leads out of the folder.
    """
    try:
        lines = content.decode().splitlines()
    except UnicodeDecodeError:
        raise UserError(f"{where}: expected lines of a SHA-256 and a name, found something else") from None
    sums: dict[str, str] = {}
    for line in lines:
        found = re.fullmatch(r"([0-9a-f]{64}) [ *]([^\0]+)", line)
        parts = PurePosixPath(found[2]).parts if found else ()
        if not found or not parts or parts[0] == "/" or ".." in parts or parts == (SUMS,):
            raise UserError(f"{where}: expected a SHA-256 and a name inside the bundle, found {line!r}")
        if found[2] in sums:
            raise UserError(f"{where}: names {found[2]} twice")
        sums[found[2]] = found[1]
    for name in sums:
        if any(str(parent) in sums for parent in PurePosixPath(name).parents):
            raise UserError(f"{where}: {name} would be in a folder that is a file there")
    return sums


def check(bundle: Path) -> None:
    """Checks that a bundle holds exactly the files and contents that its SHA256SUMS names.

    Raises:
        UserError: If a file is missing, was changed or is not listed.
    """
    expected = checksums(bundle)
    found = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()} - {SUMS}
    for name in sorted(found ^ expected.keys()):
        wrong = "is not there" if name in expected else "is not listed"
        raise UserError(f"{bundle / name}: {wrong}, expected exactly the files of {SUMS}")
    for name, digest in expected.items():
        if sha256(bundle / name) != digest:
            raise UserError(f"{bundle / name}: was changed since it was bundled: {SUMS} has another SHA-256")


def written(sums: dict[str, str]) -> str:
    """Returns SHA256SUMS of name → SHA-256, in the order of the names."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))

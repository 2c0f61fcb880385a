"""Where a model lies: a folder such as src/models or an unpacked bundle, or the archive sluice.pyz."""

import hashlib
import json
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from src.checksums import SUMS, parse
from src.errors import UserError

ARCHIVE = "sluice.pyz"


class Source:
    """The files of a model, by their names."""

    def __init__(self, path: Path) -> None:
        """Opens a folder or an archive.

        Raises:
            UserError: If it is neither.
        """
        self.path = path
        self.archive: zipfile.ZipFile | None = None
        if not path.exists():
            raise UserError(f"{path}: not found; expected a folder with a model, or a {ARCHIVE}")
        if path.is_file():
            try:
                self.archive = zipfile.ZipFile(path)
            except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
                raise UserError(
                    f"{path}: expected a {ARCHIVE}, found no whole zip archive: cut short, or another file"
                ) from None
            self._check_names(self.archive.namelist())

    def _check_names(self, names: list[str]) -> None:
        for name in names:
            pure = PurePosixPath(name.replace("\\", "/"))
            if pure.is_absolute() or ".." in pure.parts or ":" in name:
                raise UserError(f"{self.path}: {name!r} points outside the archive; refused")
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise UserError(f"{self.path}: {twice!r} is there twice; refused")

    def names(self) -> list[str]:
        """Returns the names of all files, sorted."""
        if self.archive is not None:
            return sorted(name for name in self.archive.namelist() if not name.endswith("/"))
        files = (path for path in self.path.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return sorted(path.relative_to(self.path).as_posix() for path in files)

    def has(self, name: str) -> bool:
        """Returns whether there is such a file."""
        return name in self.archive.namelist() if self.archive is not None else (self.path / name).is_file()

    def read(self, name: str) -> bytes:
        """Returns a file's content.

        Raises:
            UserError: If it is missing or damaged.
        """
        try:
            return self.archive.read(name) if self.archive is not None else (self.path / name).read_bytes()
        except (KeyError, FileNotFoundError):
            raise UserError(
                f"{self.path}: {name} is missing; expected a whole model{self._advice()}"
            ) from None
        except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError) as error:
            raise UserError(f"{self.path}: {name} is damaged: {error}") from None

    def _advice(self) -> str:
        return "; `dvc repro` or `dvc pull` brings it" if self.path == Path("src/models") else ""

    def json(self, name: str) -> Any:
        """Returns the content of a JSON file.

        Raises:
            UserError: If it is missing, damaged or no JSON.
        """
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise UserError(f"{self.path}: {name}: expected JSON, found something else ({error})") from None

    def sums(self) -> dict[str, str] | None:
        """Returns name → SHA-256 as SHA256SUMS says, None if there is none."""
        if not self.has(SUMS):
            return None
        return parse(self.read(SUMS), f"{self.path}: {SUMS}")

    def differences(self) -> Iterator[str]:
        """Yields, a sentence each, what is not as SHA256SUMS says; reads every file."""
        sums = self.sums() or {}
        names = {*self.names()} - {SUMS}
        if not {ARCHIVE} <= names & sums.keys():  # a bundle may lie without the archive made of it
            names.discard(ARCHIVE)
            sums.pop(ARCHIVE, None)
        for name in sorted(names ^ sums.keys()):
            yield f"{name} is {'missing' if name in sums else f'not listed in {SUMS}'}"
        for name in sorted(names & sums.keys()):
            if hashlib.sha256(self.read(name)).hexdigest() != sums[name]:
                yield f"{name} was changed: {SUMS} has another SHA-256"


class Held:
    """A folder that is held in memory, as far as an encoder's `load` needs one."""

    def __init__(self, source: Source, texts: dict[str, str], name: str = "") -> None:
        self.source, self.texts, self.name = source, texts, name

    def __truediv__(self, name: str) -> "Held":
        return Held(self.source, self.texts, name)

    def read_text(self, encoding: str = "utf-8") -> str:
        """Returns the content of a file."""
        held = self.texts.get(self.name)
        return self.source.read(self.name).decode(encoding) if held is None else held

"""Finds what to predict: files, folders, globs, tables, standard input and sentences, one at a time."""

import csv
import glob
import io
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, BinaryIO

from src.errors import BadExampleError, nearest

TABLES = (".csv", ".jsonl")
LARGEST_FILE = 1_000_000_000  # bytes
LARGEST_TEXT = 1_000_000  # bytes of a sentence, or of a line of a table: a long novel


@dataclass(frozen=True, slots=True)
class Item:
    """One input, read when it is wanted.

    Args:
        name: As people know it.
        read: Returns the raw input; raises BadExampleError with the reason.
    """

    name: str
    read: Callable[[], Any]


@dataclass(frozen=True)
class Reader:
    """Finds the inputs of a task.

    Args:
        task: A file of src/tasks.
        column: Of a table, that holds the input; None: the usual names are looked for.
    """

    task: ModuleType
    column: str | None = None

    @property
    def suffixes(self) -> tuple[str, ...]:
        """How the names of files end that are inputs, or hold them."""
        return TABLES if self.task.RAW == "row" else tuple(getattr(self.task, "SUFFIXES", ()))

    def find(self, arguments: Iterable[str]) -> Iterator[Item]:
        """Yields the inputs that a command line names, bad ones too; folders are walked lazily."""
        for argument in arguments:
            if argument == "-":
                yield from self._standard_input(sys.stdin.buffer)
            elif os.path.isdir(argument):
                yield from self._some(argument, self._folder(argument))
            elif os.path.exists(argument):
                yield from self._file(argument)
            elif glob.has_magic(argument):
                names = (
                    name for name in sorted(glob.iglob(argument, recursive=True)) if os.path.isfile(name)
                )
                yield from self._some(argument, itertools.chain.from_iterable(map(self._file, names)))
            else:
                hint = "; a sentence is given by --text" if self.task.RAW == "text" else ""
                yield _bad(argument, f"there is no such file{hint}")

    def _some(self, name: str, items: Iterator[Item]) -> Iterator[Item]:
        first = next(items, None)
        if first is None:
            yield _bad(name, f"no input in it, expected files that end in {', '.join(self.suffixes)}")
        else:
            yield first
            yield from items

    def _folder(self, path: str) -> Iterator[Item]:
        for parent, folders, files in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if not name.startswith(".") and name.lower().endswith(self.suffixes):
                    yield from self._file(os.path.join(parent, name))

    def _file(self, path: str) -> Iterator[Item]:
        lower = path.lower()
        if lower.endswith(TABLES) and (self.task.RAW == "row" or not lower.endswith(self.suffixes)):
            yield from self._table(path)
        elif self.task.RAW == "row":
            yield _bad(path, f"expected a table that ends in {' or '.join(TABLES)}")
        else:
            yield Item(path, lambda: read_file(path, self.task.RAW))

    # ── Tables and standard input ──────────────────────────────────────────────────────────────────────

    def _table(self, path: str) -> Iterator[Item]:
        try:
            with open(path, "rb") as file:
                yield from self.table(path, file, os.path.dirname(path))
        except OSError as error:
            yield _bad(path, error.strerror or str(error))

    def table(self, name: str, stream: BinaryIO, folder: str) -> Iterator[Item]:
        """Yields the rows of an open table; paths in it begin at a folder."""
        yield from self._rows(
            name, _csv(stream) if name.lower().endswith(".csv") else _json_lines(stream), folder
        )

    def _standard_input(self, stream: Any) -> Iterator[Item]:
        if self.task.RAW == "file":
            content = stream.read(LARGEST_FILE + 1)
            yield Item("-", lambda: _checked(content, LARGEST_FILE))
        elif self.task.RAW == "text":
            for number, line in enumerate(_lines(stream)):
                if line is None or line.strip():
                    yield Item(f"-:{number}", lambda line=line: _whole(line))  # type: ignore[misc]
        else:
            begins = stream.peek(1)[:1]
            yield from self._rows("-", _json_lines(stream) if begins == b"{" else _csv(stream), "")

    def _rows(self, name: str, rows: Iterator[Any], folder: str) -> Iterator[Item]:
        """Yields a table's rows, numbered from 0 as in predictions.parquet."""
        number = -1
        for number, row in enumerate(rows):
            yield Item(f"{name}:{number}", lambda row=row: self._cell(row, folder))  # type: ignore[misc]
        if number < 0:
            yield _bad(name, "no row in it, expected names of columns in the first line and rows below")

    def _cell(self, row: Any, folder: str) -> Any:
        if isinstance(row, BadExampleError):
            raise row
        if self.task.RAW == "text" and isinstance(row, str):
            return row
        if not isinstance(row, dict):
            raise BadExampleError(f"expected a row, {{column: value}}, found {str(row)[:40]!r}")
        if self.task.RAW == "row":
            return row
        usual = [self.column] if self.column else getattr(self.task, "COLUMNS", ())
        column = next((name for name in usual if name in row), None)
        if column is None:
            wanted = (
                f"no column {self.column!r}" if self.column else f"none of the columns {', '.join(usual)}"
            )
            raise BadExampleError(
                f"{wanted}, only {', '.join(row)}{nearest(self.column or '', row)}; see --column"
            )
        value = row[column]
        if self.task.RAW == "file" and isinstance(value, str):
            return read_file(os.path.join(folder, value), "file")
        return value


def sentences(texts: Iterable[str]) -> Iterator[Item]:
    """Yields sentences that a command line gives."""
    for text in texts:
        yield Item(text if len(text) <= 60 else text[:59] + "…", lambda text=text: text)  # type: ignore[misc]


def read_file(path: str, kind: str) -> bytes:
    """Returns the content of a file.

    Raises:
        BadExampleError: If it cannot be read, is empty or too large.
    """
    most = LARGEST_TEXT if kind == "text" else LARGEST_FILE
    try:
        if not os.path.isfile(path):
            raise BadExampleError("there is no such file" if not os.path.exists(path) else "is no file")
        with open(path, "rb") as file:
            return _checked(file.read(most + 1), most, os.path.getsize(path))
    except OSError as error:
        raise BadExampleError(error.strerror or str(error)) from None


def _checked(content: bytes, most: int, size: int = 0) -> bytes:
    if len(content) > most:
        found = f"{size:,} bytes" if size else "more"
        raise BadExampleError(f"{found}, expected at most {most:,} bytes")
    return content


def _bad(name: str, reason: str) -> Item:
    def read() -> Any:
        raise BadExampleError(reason)

    return Item(name, read)


def _lines(stream: BinaryIO) -> Iterator[bytes | None]:
    """Yields lines without their ends, None for one that is too long."""
    while line := stream.readline(LARGEST_TEXT + 2):
        if len(line) > LARGEST_TEXT + 1 and not line.endswith(b"\n"):
            while (rest := stream.readline(LARGEST_TEXT)) and not rest.endswith(b"\n"):
                pass
            yield None
        else:
            yield line.rstrip(b"\r\n")


def _whole(line: bytes | None) -> bytes:
    if line is None:
        raise BadExampleError(f"a line of more than {LARGEST_TEXT:,} bytes")
    return line


def _json_lines(stream: BinaryIO) -> Iterator[Any]:
    for line in _lines(stream):
        try:
            if line is None or line.strip():
                yield json.loads(_whole(line))
        except (ValueError, RecursionError):
            yield BadExampleError(f"expected JSON, found {line[:40].decode(errors='replace')!r}")  # type: ignore[index]
        except BadExampleError as error:
            yield error


def _csv(stream: BinaryIO) -> Iterator[Any]:
    """Yields rows as column → text, None where a cell is empty."""
    csv.field_size_limit(LARGEST_TEXT)
    text = io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="")
    try:
        yield from _rows_of(csv.reader(text))
    finally:
        text.detach()  # who opened the stream closes it


def _rows_of(reader: Any) -> Iterator[Any]:
    names: list[str] | None = None
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield BadExampleError(f"line {reader.line_num}: {error}")
            continue
        if names is None:
            names = cells
        elif cells and len(cells) != len(names):
            yield BadExampleError(f"{len(cells)} values, expected {len(names)} as in the first line")
        elif not _decoded(cells):
            yield BadExampleError("expected text in UTF-8")
        elif cells:
            yield {name: cell or None for name, cell in zip(names, cells, strict=True)}


def _decoded(cells: list[str]) -> bool:
    """Whether no byte was left that is no UTF-8: such a one is half of a surrogate pair."""
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return False
    return True

"""A dataset is a table, however it lies on disk: class folders, an archive of them, CSV or Parquet.

`read` gives one row for each example, with the columns `id`, `input` and `label`, `split` where the data
declares it, and every other column the data has. An input that is a file, or bytes in a Parquet column or
an archive, stays on disk as a `Slice` until it is wanted, so that a table of a million images is small.
`read_rows` gives the same of a table whose whole rows are the inputs: each is a `Row` until it is wanted.
"""

import csv
import os
import re
import shutil
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from src.errors import BadExampleError, UserError, nearest
from src.params import Data

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
RESERVED = ("id", "split", "digest")  # columns that are no inputs
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "target", "y")
TABLES = (".csv", ".parquet")
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
BOMB = 100  # an archive of media that unpacks to over so many times its size is refused
LEAST = 1_000_000_000  # but never one that unpacks to fewer bytes than this


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes in a file that are read when they are wanted: all of it, or `size` bytes from `offset` on."""

    path: str
    offset: int = 0
    size: int = -1

    def read(self) -> bytes:
        """Returns the bytes.

        Raises:
            BadExampleError: If the file cannot be read.
        """
        try:
            with open(self.path, "rb", buffering=0 if self.size < 0 else -1) as file:
                file.seek(self.offset)
                return file.read(self.size)
        except OSError as error:
            raise BadExampleError(error.strerror or str(error)) from None


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """A row of a table, read when it is wanted; all rows share the table's columns, name → array."""

    columns: dict[str, Any]
    position: int

    def read(self) -> dict[str, Any]:
        """Returns column → value as plain Python has it, None where it is missing."""
        return {name: _plain(column[self.position]) for name, column in self.columns.items()}


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str | int):
        return value
    return None if pd.api.types.is_scalar(value) and pd.isna(value) else value


def content(value: Any) -> Any:
    """Returns what an `input` cell stands for: the bytes of a `Slice`, the values of a `Row`, or itself."""
    return value.read() if isinstance(value, Slice | Row) else value


def read(
    data: Data, spool: Path, suffixes: Sequence[str], inputs: Sequence[str], paths: bool = True
) -> pd.DataFrame:
    """Reads the dataset at `data.path`.

    Args:
        data: The `data:` section.
        spool: A folder for bytes that must be unpacked to be read; the caller removes it.
        suffixes: How the names of example files end, in lower case: `(".png", ".jpg")`.
        inputs: The usual names of the input column, tried in this order.
        paths: Whether text in the input column names a file (images) or is the example (sentences).

    Returns:
        A table with `id` (text, unique), `input`, `label`, and `split` if the data declares any.
        `attrs["ignored"]` lists the files that are no examples.

    Raises:
        UserError: If nothing is there, or it is laid out in none of the known ways.
    """
    path = Path(data.path)
    if not path.exists():
        raise UserError(f"data.path: {path} does not exist; expected a folder, an archive, CSV or Parquet")
    tables = _tables(path, suffixes)
    if tables:
        return _from_tables(tables, data, spool, inputs, paths)
    if path.is_file() and not path.name.lower().endswith(ARCHIVES):
        raise UserError(f"data.path: found {path}, expected a folder, {', '.join(TABLES + ARCHIVES)}")
    return from_files(path, *files(path, spool), suffixes)


def read_rows(data: Data, spool: Path) -> pd.DataFrame:
    """Reads CSV or Parquet at `data.path` of which every whole row is an example.

    Args:
        data: The `data:` section.
        spool: A folder for what must be unpacked to be read; the caller removes it.

    Returns:
        As `read` does, with every column that the data has; `input` is a `Row` of all of them but the label
        and `RESERVED`. The data's own `id` serves as such if its values all differ.

    Raises:
        UserError: If no table is there, or its columns are not clear.
    """
    path = Path(data.path)
    files = _tables(path) if path.exists() else []
    if not files:
        raise UserError(f"data.path: found no table at {path}, expected CSV or Parquet or a folder of them")
    if data.input is not None:
        raise UserError(f"data.input: found {data.input!r}, expected none: the input is the whole row")
    frames: list[pd.DataFrame] = []
    for number, file in enumerate(files):
        frame, heavy = _read_table(file, spool / f"column-{number}")
        frames.append(frame.drop(columns=heavy))  # media
        if odd := sorted({*frames[0]} ^ {*frames[-1]}):
            raise UserError(f"{file}: column {odd[0]!r} is not in both it and {files[0]}, expected the same")
    target = _column(files[0], frames[0], "label", data.label, LABEL_COLUMNS)
    table = _joined(files, [_named(*pair, files) for pair in zip(files, frames, strict=True)])
    if "id" in frames[0]:
        own = pd.concat([frame["id"] for frame in frames], ignore_index=True)
        table["id"] = own.astype(str) if own.notna().all() and own.is_unique else table["id"]
    for name in frames[0]:
        if table[name].dtype == object and len({frame[name].dtype for frame in frames}) > 1:
            table[name] = table[name].astype("str")  # numbers in one file, text in another
    columns = {name: table[name].array for name in frames[0] if name not in (target, *RESERVED)}
    table = table.drop(columns=list({"label", "input"} - {target}), errors="ignore")
    table = table.rename(columns={target: "label"})
    table["input"] = [Row(columns, position) for position in range(len(table))]
    return table


# ── Class folders ──────────────────────────────────────────────────────────────────────────────────────


def files(path: Path, spool: Path) -> tuple[list[str], list[Slice]]:
    """Lists the files in a folder or an archive, whose members are unpacked into one file below `spool`.

    Returns:
        Their relative names, without hidden ones, and their content.
    """
    if path.is_file():
        names, slices = _unpack(path, spool / "archive")
        return _below_one_folder(names), slices
    names = sorted(_walk(path))
    return names, [Slice(f"{path}/{name}") for name in names]


def _walk(folder: Path) -> Iterator[str]:
    """Yields the files below a folder by relative names, without hidden ones; `name/` if it is empty."""
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        relative = Path(parent).relative_to(folder).as_posix()
        yield from (f"{relative}/{name}".removeprefix("./") for name in files if not name.startswith("."))
        if not folders and not files and relative != ".":
            yield f"{relative}/"


def from_files(
    path: Path, names: Sequence[str], slices: Sequence[Slice], suffixes: Sequence[str]
) -> pd.DataFrame:
    """Lays out `class/file` or `split/class/file` as a table."""
    parts = [name.split("/") for name in names]
    tops = {part[0] for part in parts if len(part) > 1}
    splits = bool(tops) and tops <= set(SPLIT_NAMES)
    depth = 2 if splits else 1
    rows = []
    ignored = []
    for name, part, piece in zip(names, parts, slices, strict=True):
        if len(part) > depth and name.lower().endswith(tuple(suffixes)):
            split = SPLIT_NAMES[part[0]] if splits else None
            rows.append((name, piece, part[depth - 1], split))
        else:
            ignored.append(name)
    if not rows:
        shape = "train/<class>/<file>" if splits else "<class>/<file>"
        raise UserError(
            f"data.path: {path} has {len(names)} files and none is {shape} with a name that ends in "
            f"{', '.join(suffixes)}"
        )
    table = pd.DataFrame(rows, columns=["id", "input", "label", "split"])
    table.attrs["ignored"] = ignored
    return table if splits else table.drop(columns="split")


# ── Archives ───────────────────────────────────────────────────────────────────────────────────────────


def _unpack(path: Path, blob: Path) -> tuple[list[str], list[Slice]]:
    """Copies the members of an archive into one file, so that no name in it ever touches the disk."""
    limit = max(BOMB * path.stat().st_size, LEAST)
    found: dict[str, Slice] = {}
    try:
        with open(blob, "wb") as out:
            for name, size, member in _members(path):
                pure = PurePosixPath(name.replace("\\", "/"))
                if pure.is_absolute() or ".." in pure.parts or ":" in pure.parts[0]:
                    raise UserError(f"{path}: member {name!r} points outside the archive; refused")
                if out.tell() + size > limit:
                    raise UserError(f"{path}: unpacks to over {limit:,} bytes; refused as a bomb")
                if not any(part.startswith((".", "__MACOSX")) for part in pure.parts):
                    start = out.tell()
                    shutil.copyfileobj(member, out)
                    found[str(pure)] = Slice(str(blob), start, out.tell() - start)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, RuntimeError, zlib.error) as error:
        raise UserError(f"{path}: expected a whole {path.suffix} archive, found: {error}") from None
    names = sorted(found)
    return names, [found[name] for name in names]


def _members(path: Path) -> Iterator[tuple[str, int, BinaryIO]]:
    """Yields name, size and open file of each member that is a file; refuses links and devices."""
    if path.name.lower().endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir():
                    with archive.open(info) as file:
                        yield info.filename, info.file_size, file  # type: ignore[misc]
        return
    with tarfile.open(path, "r|*", tarinfo=_Member) as stream:
        for member in stream:
            opened = stream.extractfile(member) if member.isfile() else None
            if opened is not None:
                yield member.name, member.size, opened  # type: ignore[misc]
            elif not member.isdir():
                raise UserError(f"{path}: member {member.name!r} is a link or a device; refused")


class _Member(tarfile.TarInfo):
    """A member of a tar, of which a missing or damaged header is an error and not the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # the zeros that end an archive
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"it ends early or is damaged: {error}") from None


def _below_one_folder(names: list[str]) -> list[str]:
    """Drops the one folder that an archive often wraps everything in."""
    tops = {name.split("/")[0] for name in names}
    if len(tops) == 1 and any(name.count("/") > 1 for name in names):  # a README may lie there too
        return [name.split("/", 1)[1] for name in names]
    return names


# ── CSV and Parquet ────────────────────────────────────────────────────────────────────────────────────


def _tables(path: Path, suffixes: Sequence[str] = ()) -> list[Path]:
    """Lists the tables at a path; where examples may be CSV too, only those at its top are tables."""
    if path.is_file():
        return [path] if path.suffix.lower() in TABLES else []
    names = [name for name in _walk(path) if Path(name).suffix.lower() in TABLES]
    return sorted(
        path / name for name in names if "/" not in name or Path(name).suffix.lower() not in suffixes
    )


def _from_tables(
    files: list[Path], data: Data, spool: Path, inputs: Sequence[str], paths: bool
) -> pd.DataFrame:
    """Reads files of one set of columns; a file named train-….parquet declares its rows' split."""
    frames = []
    for number, file in enumerate(files):
        frame, heavy = _read_table(file, spool / f"column-{number}")
        source = _column(file, frame, "input", data.input, inputs)
        target = _column(file, frame, "label", data.label, LABEL_COLUMNS)
        unwanted = {"input", "label", *heavy} - {source, target}  # other media, and names about to be taken
        frame = frame.drop(columns=list(unwanted), errors="ignore")
        frame = frame.rename(columns={source: "input", target: "label"})
        if paths:
            frame["input"] = [_as_slice(value, file.parent) for value in frame["input"]]
        frames.append(_named(file, frame, files))
    return _joined(files, frames)


def _named(file: Path, frame: pd.DataFrame, files: list[Path]) -> pd.DataFrame:
    """Adds `id`, and the split that one of several files declares by its name."""
    split = re.match(r"[a-z]+", file.stem.lower())
    if len(files) > 1 and "split" not in frame and split and split[0] in SPLIT_NAMES:
        frame = frame.assign(split=split[0])
    return frame.assign(id=[f"{file.name}:{row}" for row in range(len(frame))])


def _joined(files: list[Path], frames: list[pd.DataFrame]) -> pd.DataFrame:
    table = pd.concat(frames, ignore_index=True)
    if "split" in table:
        table["split"] = _normal_splits(files, table["split"])
    table.attrs["ignored"] = []
    return table


def _read_table(file: Path, blob: Path) -> tuple[pd.DataFrame, list[str]]:
    """Reads a table; its columns of bytes, which are named, go to `blob` in small batches and stay there."""
    try:
        if file.suffix.lower() == ".csv":
            with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
                # Types follow from whole columns, not from parts of them: 007 is text where any value is.
                frame = pd.read_csv(
                    file, keep_default_na=False, na_values=[""], low_memory=False, index_col=False
                )
            with open(file, newline="", encoding="utf-8-sig") as lines:
                _check_names(file, next(csv.reader(lines)))
            return frame, []
        with pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as parquet:
            _check_names(file, parquet.schema_arrow.names)
            heavy = [field.name for field in parquet.schema_arrow if _holds_bytes(field.type)]
            light = [name for name in parquet.schema_arrow.names if name not in heavy]
            frame = parquet.read(columns=light).to_pandas()
            with open(blob, "wb") as out:
                for name in heavy:
                    frame[name] = _spool(parquet, name, out)
            return frame, heavy
    except pd.errors.ParserWarning:
        raise UserError(f"{file}: its rows have more values than its first line has names") from None
    except (UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError, pa.ArrowInvalid) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{file}: expected {file.suffix[1:]} in UTF-8, found: {reason}") from None


def _check_names(file: Path, names: list[str]) -> None:
    """Refuses columns of one name, which pandas would rename."""
    twice = [name for position, name in enumerate(names) if name and name in names[:position]]
    if twice:
        raise UserError(f"{file}: two columns are called {twice[0]!r}; expected different names")


def _holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column is bytes, or Hugging Face's struct of `bytes` and `path`."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _spool(parquet: pq.ParquetFile, name: str, out: BinaryIO) -> list[Any]:
    slices: list[Any] = []
    for batch in parquet.iter_batches(batch_size=256, columns=[name]):
        for cell in batch.column(0).to_pylist():
            value = cell if not isinstance(cell, dict) else cell.get("bytes") or cell.get("path")
            if isinstance(value, bytes):
                slices.append(Slice(out.name, out.tell(), len(value)))
                out.write(value)
            else:
                slices.append(value)
    return slices


def _as_slice(value: Any, folder: Path) -> Any:
    """Turns a path, which is relative to the table it stands in, into a `Slice`."""
    return Slice(str(folder / value)) if isinstance(value, str) else value


def _column(file: Path, frame: pd.DataFrame, what: str, wanted: str | None, usual: Sequence[str]) -> str:
    there = [str(name) for name in frame.columns]
    if wanted is not None:
        if wanted in there:
            return wanted
        raise UserError(
            f"data.{what}: {file} has no column {wanted!r}, only {', '.join(there)}{nearest(wanted, there)}"
        )
    for name in usual:
        if name in there:
            return name
    raise UserError(
        f"data.{what}: {file} has the columns {', '.join(there)} and none of the usual "
        f"{', '.join(usual)}; say which one it is"
    )


def _normal_splits(files: list[Path], column: pd.Series) -> pd.Series:
    unknown = set(column.dropna()) - set(SPLIT_NAMES)
    if unknown:
        raise UserError(
            f"{files[0].parent}: column 'split' holds {sorted(map(str, unknown))[0]!r}, "
            f"expected one of {', '.join(SPLITS)}"
        )
    return column.map(SPLIT_NAMES)

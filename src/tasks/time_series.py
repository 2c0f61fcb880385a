"""Time series of equal or unequal length, of one or many channels, as (length, channels) with masked padding.

They may lie there as
- CSV or Parquet in long form: a row for each step, with a column that names the series (`data.input`), one
  that sorts its steps (`data.order`), the label, the same in all its rows, and the channels (`data.columns`);
- .ts files, as aeon and sktime write them; NAME_TRAIN.ts and NAME_TEST.ts declare the splits;
- class folders of .npy files, (steps,) or (steps, channels), or of CSV files with a row for each step, whose
  first row may name the channels; a column of times is none.
"""

import csv
import hashlib
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

import numpy as np

from src.errors import BadExampleError, UserError, nearest
from src.files import read_json, write_json
from src.network import Layers
from src.options import Field, Section

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from src.dataset import Slice
    from src.params import Data

SUFFIXES = (".npy", ".csv")
SERIES = ("series", "series_id", "case", "id")  # usual names of the column that names the series
ORDER = ("time", "t", "timestamp", "step")  # and of the one that sorts its steps
NPY = b"\x93NUMPY"  # how such a file begins
PADDING = -1e9  # float32 holds it exactly
LONGEST = 10_000  # steps up to which a length is learned

RAW = "file"
CELL = (1.8, 1.2)


class Options(Section):
    """`encode:` the steps that the network sees; shorter series are padded at the end."""

    length: Annotated[int, Field(ge=1, le=1_000_000)] | None = None  # None: of the longest to train on
    cut: Literal["end", "start"] = "end"  # where longer series lose steps


def read(data: "Data", spool: Path) -> "pd.DataFrame":
    """Reads class folders, an archive of them, .ts files, or tables in long form.

    A series that cannot be put together is a `BadExampleError` in the column `input`; `digest` raises it.
    """
    from src import dataset
    from src.dataset import Slice

    path = Path(data.path)
    archive = path.is_file() and path.name.lower().endswith(dataset.ARCHIVES)
    files = {path.name: Slice(data.path)} if path.is_file() else {}
    if archive or path.is_dir():
        files = dict(zip(*dataset.files(path, spool), strict=True))
    problems = {name: files[name] for name in files if name.lower().endswith(".ts")}
    with open(spool / "series", "wb") as out:
        if problems:
            table = _from_ts(path, problems, out)
            table.attrs["ignored"] = [name for name in files if name not in problems]
            return table
        if archive:
            return dataset.from_files(path, [*files], [*files.values()], SUFFIXES)
        table = dataset.read(data, spool, SUFFIXES, SERIES, paths=False)
        return table if isinstance(table["input"].iloc[0], Slice) else _from_rows(table, data, out)


def digest(raw: Any) -> str:
    """Returns a hash of the values as float32, the same whatever they were stored as."""
    steps = _open(raw)[0] + np.float32(0)  # which makes one of the two zeros
    return hashlib.blake2b(f"{steps.shape}".encode() + steps.tobytes(), digest_size=16).hexdigest()


class Encoder:
    """Encodes a series as (length, channels) float32, padded at the end.

    The network always masks the padding: where all series to train on are equally long, a shorter one may
    still come later. Each channel is standardised by the training split's real steps; a `Rescaling` does it,
    since of Keras' `Normalization` with given statistics, ONNX makes further inputs.
    """

    dtype = "float32"
    vocabulary: list[str] = []

    def __init__(
        self, options: Options, channels: list[str] | None, mean: list[float], deviation: list[float]
    ) -> None:
        self.options, self.channels, self.mean, self.deviation = options, channels, mean, deviation
        self.shape = (options.length or 0, len(mean))
        both = list(zip(mean, deviation, strict=True))
        standard = {"scale": [1 / each for each in deviation], "offset": [-a / b for a, b in both]}
        self.layers: Layers = [{"Masking": {"mask_value": PADDING}}, {"Rescaling": standard}]

    @classmethod
    def learn(cls, raws: Iterable[Any], options: Options) -> "Encoder":
        """Learns the channels of the first series, the longest length, and each channel's mean and deviation.

        Series with other channels count for nothing here; `encode` refuses them.

        Raises:
            UserError: If the length would be too long to be learned.
        """
        longest = count = 0
        mean = squares = np.zeros(0)
        channels = None
        for raw in raws:
            values, names = _open(raw)
            if not count:
                mean, squares, channels = np.zeros(values.shape[1]), np.zeros(values.shape[1]), names
            if values.shape[1] != len(mean):
                continue
            steps = _cut(values, options).astype(np.float64)
            longest = max(longest, len(steps))
            # Chan, Golub and LeVeque (1979), Updating Formulae and a Pairwise Algorithm, equation 2.1.
            total, apart = count + len(steps), steps.mean(axis=0) - mean
            squares += steps.var(axis=0) * len(steps) + apart**2 * count * len(steps) / total
            mean += apart * len(steps) / total
            count = total
        if options.length is None and longest > LONGEST:
            raise UserError(
                f"encode.length: the longest training series has {longest:,} steps, more than {LONGEST:,}; "
                "expected the number of steps that the network sees, longer series are cut"
            )
        deviation = np.sqrt(squares / count)
        deviation[deviation <= np.finfo(np.float32).eps * np.abs(mean)] = (
            1  # constant, as far as float32 tells
        )
        length = {"length": options.length or longest}
        return cls(options.model_copy(update=length), channels, mean.tolist(), deviation.tolist())

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """Returns the encoder that `save` wrote."""
        content = read_json(folder / "encoder.json")
        learned = {name: content.pop(name) for name in ("channels", "mean", "deviation")}
        return cls(Options.model_validate(content), **learned)

    def save(self, folder: Path) -> None:
        """Writes the options, the length among them, and what was learned of the channels."""
        learned = {"channels": self.channels, "mean": self.mean, "deviation": self.deviation}
        write_json(folder / "encoder.json", {**self.options.model_dump(), **learned})

    def encode(self, raw: Any) -> np.ndarray:
        """Cuts or pads one series to the length.

        Args:
            raw: The bytes of a .npy or CSV file.

        Returns:
            (length, channels) float32, `PADDING` from the series' end on.

        Raises:
            BadExampleError: If it is not a series of finite numbers, or has other channels.
        """
        values, names = _open(raw)
        if values.shape[1] != len(self.mean):
            raise BadExampleError(
                f"{values.shape[1]} channels, expected {len(self.mean)} as in the first series to train on"
            )
        if names and self.channels and names != self.channels:
            raise BadExampleError(f"channels {', '.join(names)}, expected {', '.join(self.channels)}")
        steps = _cut(values, self.options)
        array = np.full(self.shape, PADDING, np.float32)
        array[: len(steps)] = steps
        return array

    def draw(self, axes: "Axes", array: np.ndarray) -> None:
        """Draws the channels as curves, standardised, and grey where the padding is."""
        from matplotlib import colormaps

        steps = array[(array != PADDING).any(axis=1)]
        colours = colormaps["viridis"](np.linspace(0, 0.9, steps.shape[1]))
        for curve, colour in zip(((steps - self.mean) / self.deviation).T, colours, strict=True):
            axes.plot(curve, color=colour, linewidth=0.8, marker="." if len(steps) == 1 else None)
        axes.axvspan(len(steps) - 1, len(array) - 1, color="#8882", linewidth=0)
        axes.margins(x=0)

    def describe(self, array: np.ndarray) -> dict[str, str]:
        """Returns nothing: series are looked at."""
        return {}


def _cut(values: np.ndarray, options: Options) -> np.ndarray:
    """Leaves out what is more than `options.length` steps."""
    if options.length is None:
        return values
    return values[: options.length] if options.cut == "end" else values[-options.length :]


# ── One series ─────────────────────────────────────────────────────────────────────────────────────────


def _open(raw: Any) -> tuple[np.ndarray, list[str] | None]:
    """Returns a series, (steps, channels) float32, all finite, and the channels' names if it has any."""
    if isinstance(raw, BadExampleError):
        raise raw
    if not isinstance(raw, bytes) or not raw:
        raise BadExampleError("empty" if raw == b"" else f"expected a series, found {raw!r}")
    if raw.startswith(NPY):
        return _from_npy(raw), None
    try:
        return _from_csv(raw)
    except (ValueError, csv.Error) as error:  # pandas' errors and UnicodeDecodeError are ValueErrors
        raise BadExampleError(f"expected CSV in UTF-8, found: {' '.join(str(error).split())}") from None


def _from_npy(raw: bytes) -> np.ndarray:
    try:
        array = np.load(io.BytesIO(raw), allow_pickle=False)
    except (ValueError, EOFError, OSError, MemoryError, SyntaxError, tokenize.TokenError) as error:
        raise BadExampleError(f"expected a whole .npy file of numbers, found: {error}") from None
    if array.dtype.kind not in "biuf" or array.ndim not in (1, 2):
        found = f"{' × '.join(map(str, array.shape))} of {array.dtype}"
        raise BadExampleError(f"expected (steps,) or (steps, channels) of numbers, found {found}")
    return _finite(array[:, None] if array.ndim == 1 else array)


def _from_csv(raw: bytes) -> tuple[np.ndarray, list[str] | None]:
    import pandas as pd

    raw = raw.removeprefix(b"\xef\xbb\xbf")
    head, _, rows = raw.partition(b"\n")
    first = next(csv.reader([head.decode().strip()]), [])
    named = not any(map(_is_number, first))
    if named and not rows.strip():
        raise BadExampleError("no steps, expected at least one")
    frame = pd.read_csv(io.BytesIO(raw), header=None, skiprows=int(named), low_memory=False)
    if frame.shape[1] != len(first):
        raise BadExampleError(f"rows of {frame.shape[1]} values, expected {len(first)} as in the first one")
    frame.columns = [name.strip() for name in first] if named else [str(name + 1) for name in frame]
    frame = frame.loc[:, [name.lower() not in ORDER for name in frame]]
    return _finite(_numbers(frame), frame), list(frame) if named else None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _numbers(frame: "pd.DataFrame") -> np.ndarray:
    """Returns a table's values, (rows, columns) float64, text that is no number as not a number."""
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    columns = [
        column if is_numeric_dtype(column) else pd.to_numeric(column.astype(str), errors="coerce")
        for _, column in frame.items()
    ]
    return np.stack(columns, axis=1).astype(np.float64) if columns else np.zeros((len(frame), 0))


def _finite(values: np.ndarray, frame: "pd.DataFrame | None" = None) -> np.ndarray:
    """Returns (steps, channels) as float32; names the first value that is not finite, or is the padding."""
    if not values.size:
        raise BadExampleError(f"{values.shape[0]} steps of {values.shape[1]} channels, expected at least one")
    with np.errstate(over="ignore"):
        small = values.astype(np.float32)
    bad = np.argwhere(~np.isfinite(small) | (small == PADDING))
    if len(bad):
        step, channel = bad[0]
        name = channel + 1 if frame is None else repr(frame.columns[channel])
        found = values[step, channel] if frame is None else frame.iloc[step, channel]
        raise BadExampleError(
            f"step {step + 1} of {len(values)}, channel {name}: found {found}, expected a finite number in "
            f"float32, other than {PADDING:g}, which stands for padding"
        )
    return small


def _store(out: BinaryIO, values: np.ndarray) -> "Slice":
    """Appends a series to a file, as .npy."""
    from src.dataset import Slice

    start = out.tell()
    np.save(out, values)
    return Slice(out.name, start, out.tell() - start)


# ── Long form ──────────────────────────────────────────────────────────────────────────────────────────


def _from_rows(table: "pd.DataFrame", data: "Data", out: BinaryIO) -> "pd.DataFrame":
    """Gathers the rows of a table in long form, file by file and series by series.

    Columns that are no channels stay, for slices, where they are the same in all rows of each series.
    """
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    there = [name for name in table if name not in ("id", "input", "label", "split")]
    chosen = data.columns or []
    _check_names(table, there, data)
    order = data.order or next((name for name in ORDER if name in there and name not in chosen), None)
    names = table["id"].str.replace(r"[0-9]+$", "", regex=True) + table["input"].astype(str)
    series = pd.factorize(names)[0]
    places = pd.factorize(_sortable(table[order], data), sort=True)[0] if order else np.arange(len(table))
    rows = np.lexsort((places, series))
    table, names, series, places = table.iloc[rows], names.iloc[rows], series[rows], places[rows]
    starts = np.flatnonzero(np.diff(series, prepend=-1))

    others = [name for name in there if name != order and name not in chosen]
    if not chosen:
        others = [name for name in others if not is_numeric_dtype(table[name])]
    steady = [name for name in others if not _differs(table[name], series, starts).any()]
    channels = chosen or [name for name in there if name not in (order, *steady)]
    if not channels:
        raise UserError(f"{data.path}: found no column beside series, order and label, expected channels")
    odd = _odd(table, series, starts, places, order)
    values, frame = _numbers(table[channels]), table[channels]
    inputs: list[Slice | BadExampleError] = []
    for number, (start, end) in enumerate(pairwise([*starts, len(table)])):
        try:
            if number in odd:
                raise BadExampleError(odd[number])
            inputs.append(_store(out, _finite(values[start:end], frame.iloc[start:end])))
        except BadExampleError as error:
            inputs.append(error)
    kept = ["label", *(["split"] if "split" in table else []), *steady]
    first = table[kept].iloc[starts]
    first = first.assign(id=names.iloc[starts], input=pd.Series(inputs, first.index, dtype=object))
    first.attrs["ignored"] = []
    return first.reset_index(drop=True)


def _check_names(table: "pd.DataFrame", there: list[str], data: "Data") -> None:
    """Refuses columns that are not there, and rows that name no series."""
    for key, wanted in (("order", [data.order] if data.order else []), ("columns", data.columns or [])):
        for name in wanted:
            if name not in there:
                raise UserError(
                    f"data.{key}: {data.path} has no column {name!r}, beside those of series and label only "
                    f"{', '.join(there)}{nearest(name, there)}"
                )
    nameless = table["id"][table["input"].isna()]
    if len(nameless):
        raise UserError(f"{data.path}: {nameless.iloc[0]} names no series, expected a name in each row")


def _differs(column: "pd.Series", series: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Returns whether each row has another value than the first row of its series, (rows,) bool."""
    import pandas as pd

    values = pd.factorize(column.astype(str))[0]
    return values != values[starts][series]


def _odd(
    table: "pd.DataFrame", series: np.ndarray, starts: np.ndarray, places: np.ndarray, order: str | None
) -> dict[int, str]:
    """Says which series have several labels or splits, or rows in no order.

    Args:
        table: Of rows, sorted by series and place.
        series: (rows,) the series' number.
        starts: (series,) its first row.
        places: (rows,) the rank of its time, -1 where it has none.
        order: The column of times.
    """
    found: dict[int, str] = {}

    def first_of_each(odd: np.ndarray) -> np.ndarray:
        rows = np.flatnonzero(odd)
        return rows[np.unique(series[rows], return_index=True)[1]]

    for name in ("label", "split"):
        if name in table:
            for row in first_of_each(_differs(table[name], series, starts)):
                pair = table[name].iloc[[starts[series[row]], row]].astype(str)
                found[series[row]] = f"{name} {' and '.join(pair)}, expected the same in all its rows"
    if order:
        twice = (np.diff(places, prepend=-1) == 0) & (np.diff(series, prepend=-1) == 0)
        for row in first_of_each(twice):
            found[series[row]] = f"two rows have the {order} {table[order].iloc[row]}"
        for row in first_of_each(places < 0):
            found[series[row]] = f"a row has no {order}"
    return found


def _sortable(column: "pd.Series", data: "Data") -> "pd.Series":
    """Returns numbers as they are, text as dates."""
    import pandas as pd
    from pandas.api.types import is_numeric_dtype

    if is_numeric_dtype(column):
        return column
    try:
        return pd.to_datetime(column, format="ISO8601")
    except (ValueError, TypeError):
        raise UserError(
            f"data.order: {data.path}: found {column.iloc[0]!r} in {column.name!r}, the column that sorts "
            "the steps; expected numbers, or dates such as 2024-05-31 14:00"
        ) from None


# ── .ts files ──────────────────────────────────────────────────────────────────────────────────────────


def _from_ts(path: Path, files: dict[str, "Slice"], out: BinaryIO) -> "pd.DataFrame":
    """Reads the .ts files of one dataset: below a header, a line for each series, its label at the end."""
    import pandas as pd

    rows: list[tuple[str, Slice | BadExampleError, str, str | None]] = []
    ends = {name: re.split(r"_(train|test)$", Path(name).stem.lower()) for name in files}
    for name, piece in files.items():
        split = ends[name][1] if len(ends[name]) > 1 else None
        lines = enumerate(_lines(piece), 1)
        header = _header(name, lines)
        known = header.get("@classlabel", "").split()[1:]
        for number, line in lines:
            if line:
                series, _, label = line.rpartition(":")
                rows.append((f"{name}:{number}", _parse(series, label, known, out), label, split))
    problems = sorted({end[0] for end in ends.values()})
    if len(problems) > 1:
        raise UserError(f"{path}: found the datasets {', '.join(problems)}, expected .ts files of one")
    if not rows:
        raise UserError(f"{path}: found no line below @data, expected a series in each")
    table = pd.DataFrame(rows, columns=["id", "input", "label", "split"])
    if "@targetlabel" in header:
        table["label"] = pd.to_numeric(table["label"], errors="coerce").astype(float)
    return table if table["split"].notna().any() else table.drop(columns="split")


def _lines(piece: "Slice") -> Iterator[str]:
    with open(piece.path, "rb") as file:
        file.seek(piece.offset)
        left = piece.size  # negative: to the end
        while left and (line := file.readline(left)):
            left -= len(line) if left > 0 else 0
            yield line.decode(errors="replace").strip()


def _header(name: str, lines: Iterator[tuple[int, str]]) -> dict[str, str]:
    """Reads the lines up to @data, as `{"@classlabel": "true a b"}`."""
    header: dict[str, str] = {}
    for number, line in lines:
        key, _, value = line.partition(" ")
        if key.lower() == "@data":
            break
        if line and line[0] not in "@#":
            raise UserError(f"{name}:{number}: found {line[:40]!r} before @data, expected a line of @ or #")
        header[key.lower()] = value.strip()
    else:
        raise UserError(f"{name}: found no line @data, expected a whole .ts file")
    if not any(header.get(key, "").lower().startswith("true") for key in ("@classlabel", "@targetlabel")):
        raise UserError(f"{name}: found no labels, expected @classLabel true or @targetLabel true")
    if header.get("@timestamps", "").lower() == "true":
        raise UserError(f"{name}: found @timeStamps true, expected values without times")
    return header


def _parse(series: str, label: str, known: list[str], out: BinaryIO) -> "Slice | BadExampleError":
    """Stores the series `1.5,2:3,?`, a dimension between colons, ? if missing, or returns what is wrong."""
    try:
        if known and label not in known:
            raise BadExampleError(f"found the label {label!r}, expected one of {', '.join(known)}")
        columns = [part.replace("?", "nan").split(",") if part else [] for part in series.split(":")]
        lengths = [len(column) for column in columns]
        if len(set(lengths)) > 1:
            raise BadExampleError(f"dimensions of {sorted(set(lengths))} values, expected one length")
        return _store(out, _finite(np.array(columns, float).T))
    except ValueError as error:
        return BadExampleError(f"{error}, expected numbers between commas")
    except BadExampleError as error:
        return error

"""Tables: each row of a CSV or Parquet file is an example, its columns of numbers, names and dates the input.

What a column holds is learned on the training split: numbers if at least `MOST` of its values are such, dates
likewise, names of categories otherwise. A number that is missing is the training median, and a column that
misses any in training has an indicator beside it.
"""

import array
import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np

from src.errors import BadExampleError, UserError, nearest
from src.files import read_json, write_json
from src.network import Layers
from src.options import Field, Section

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from src.params import Data

RAW = "row"
CELL = (2.0, 1.4)
SHOWN = 12  # columns that people are shown
MOST = 0.9  # of a column's values must be numbers, or dates, for the others to be errors
LARGEST = float(np.finfo(np.float32).max)
FINEST = 1e-6  # of the mean: what varies less is rounded away in float32
EPOCH = datetime(1970, 1, 1)
SINGLE = (bool, int, float, Decimal, str, date)  # what a cell may hold; a datetime is a date too


class Options(Section):
    """`encode:` which columns are taken, and how."""

    columns: list[str] | None = None  # None: all but the label, id, split and digest
    ignore: list[str] = []
    categorical: list[str] = []  # columns of numbers that are names, such as codes
    categories: Annotated[int, Field(ge=1)] = 50  # of a column, the most frequent; the rest is one, `other`
    # What stands for a missing number or date beside an empty cell, in any case. Among names it is a name.
    missing: list[str | int | float] = ["?", "-", "NA", "N/A", "NaN", "None", "null"]


def read(data: "Data", spool: Path) -> "pd.DataFrame":
    """Reads CSV or Parquet, one file or a folder of files with the same columns."""
    from src import dataset

    return dataset.read_rows(data, spool)


def digest(raw: Any) -> str:
    """Returns a hash of the row's values, whatever the order of its columns."""
    values = [(name, None if _blank(value) else _name(value)) for name, value in sorted(_row(raw).items())]
    if all(value is None for _, value in values):
        raise BadExampleError("no value in any column")
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=16).hexdigest()


# ── Values ─────────────────────────────────────────────────────────────────────────────────────────────


def _row(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise BadExampleError(f"expected a row, {{column: value}}, found {raw!r}")
    return raw


def _blank(value: Any, gaps: frozenset[Any] = frozenset()) -> bool:
    """Whether a value is missing: none, no number, empty text, or one of `gaps`."""
    if isinstance(value, str):
        text = value.strip().casefold()
        return not text or text in gaps
    return value is None or (isinstance(value, int | float) and (value != value or value in gaps))


def _name(value: Any) -> str:
    """Returns a value as a name: 1.0 is 1, since codes with gaps are fractions; midnight is a day."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    elif isinstance(value, datetime) and not (value - datetime.combine(value, time(), value.tzinfo)):
        value = value.date()
    return str(value).strip()


def _typed(text: str) -> Any:
    """Returns text as a column would be read that has nothing but such: 7.0 is a number, TRUE is True.

    A row that comes alone, as text, is the same example as in a table whose columns have types.
    """
    words = {"true": True, "false": False}
    number = _number(text)
    return words.get(text.strip().lower(), text) if number is None else number


def _number(value: Any) -> float | None:
    """Returns a number, or text that is one, as float64; None for anything else."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        return None
    try:
        return None if isinstance(value, str) and "_" in value else float(value)
    except OverflowError:
        return float("inf")
    except ValueError:
        return None


def _days(value: Any) -> float | None:
    """Returns a date or ISO 8601 text as days since 1970, the time as their fraction; None for anything else.

    A time zone is left out: the time is what a clock showed where it was written down.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
    if not isinstance(value, date):
        return None
    moment = value if isinstance(value, datetime) else datetime.combine(value, time())
    return (moment.replace(tzinfo=None) - EPOCH) / timedelta(days=1)


# ── Columns ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Column:
    """What training says about a column, and how one value of it becomes `size` numbers.

    A number becomes itself; a date its year, month, weekday (Monday is 0), days since 1970 and, where
    training has times, the hour; a name a 1 at its place among the categories, or behind them. Where
    training misses values, a last number is 1 for those.

    Args:
        name: Of the column.
        kind: `numbers`, `dates` or `names`.
        missing: Whether training misses any value.
        median: Of the numbers, or of the dates in days since 1970.
        hours: Whether the dates have times.
        categories: The most frequent names, in this order.
    """

    name: str
    kind: str
    missing: bool
    median: float = 0.0
    hours: bool = False
    categories: list[str] = field(default_factory=list)

    @property
    def scaled(self) -> int:
        """How many numbers, the first ones, the network normalises; the others are 0 or 1."""
        return {"numbers": 1, "dates": 4 + self.hours, "names": 0}[self.kind]

    @property
    def size(self) -> int:
        """How many numbers a value becomes."""
        return (self.scaled or len(self.categories) + 1) + self.missing

    def encode(self, value: Any) -> list[float]:
        """Returns one value, None where it is missing, as numbers."""
        if self.kind == "names":
            return self._encode_name(value)
        found = self.median if value is None else (_number if self.kind == "numbers" else _days)(value)
        if found is None or not abs(found) <= LARGEST:
            expected = "a finite number" if self.kind == "numbers" else "a date such as 2024-12-31"
            raise BadExampleError(f"column {self.name!r}: found {value!r}, expected {expected}")
        parts = [found]
        if self.kind == "dates":
            day = EPOCH + timedelta(days=found // 1)
            parts = [day.year, day.month, day.weekday(), found // 1, found % 1 * 24][: self.scaled]
        return parts + [float(value is None)] * self.missing

    def _encode_name(self, value: Any) -> list[float]:
        if value is not None and not isinstance(value, SINGLE):
            raise BadExampleError(f"column {self.name!r}: found {value!r}, expected a name")
        name = None if value is None else _name(value)
        if isinstance(value, str) and name not in self.categories:
            name = _name(_typed(value))
        place = self.categories.index(name) if name in self.categories else len(self.categories)
        if name is None and self.missing:
            place += 1
        return [float(place == position) for position in range(self.size)]

    def describe(self, parts: list[float]) -> str:
        """Returns what `encode` was given, as people read it."""
        if self.missing and parts[-1]:
            return "—"
        if self.kind == "names":
            return [*self.categories, "other"][parts.index(1)]
        if self.kind == "numbers":
            return f"{parts[0]:.7g}"
        moment = EPOCH + timedelta(days=parts[3], minutes=round(60 * parts[4]) if self.hours else 0)
        return moment.isoformat(" ", "minutes") if self.hours else moment.date().isoformat()

    def oddity(self, mean: np.ndarray, deviation: np.ndarray) -> str | None:
        """Says why it tells the network little, by the statistics of its numbers in training, if so."""
        others = mean[len(self.categories)]
        if not deviation.any():
            return "is the same in every training example: it is left out of account"
        if self.kind == "numbers" and 0 < deviation[0] < FINEST * abs(mean[0]):
            return (
                f"varies by {deviation[0]:.2g} around {mean[0]:.7g}: float32 can hardly tell; subtract that"
            )
        if self.kind == "names" and others > 0.5:
            return f"has so many values that {others:.0%} of the training examples count as 'other'"
        return None


class _Learner:
    """Sees the training values of a column one by one, and settles what it holds."""

    def __init__(self, name: str, gaps: frozenset[Any], options: Options) -> None:
        self.name, self.gaps, self.options = name, gaps, options
        self.numbers, self.dates = array.array("d"), array.array("d")
        self.names: Counter[str] = Counter()
        self.found: Counter[str] = Counter()

    def see(self, value: Any) -> None:
        """Takes one value."""
        blank = _blank(value, self.gaps)
        if blank and _blank(value):
            self.found["empty"] += 1
            return
        if not isinstance(value, SINGLE):
            raise UserError(f"encode.ignore: expected column {self.name!r} here, which holds {value!r}")
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        if not plain or self.name in self.options.categorical:  # numbers are too many to count in vain
            self.names[_name(value)] += 1
        if blank:
            self.found["gaps"] += 1
            return
        kind, values, number = "numbers", self.numbers, _number(value)
        if number is None:
            kind, values, number = "dates", self.dates, _days(value)
        self.found["values"] += 1
        self.found[kind] += number is not None
        if number is not None and abs(number) <= LARGEST:
            values.append(number)

    def settle(self) -> Column:
        """Returns what the column holds."""
        missing = self.found["empty"] + self.found["gaps"] > 0
        for kind, values in (("numbers", self.numbers), ("dates", self.dates)):
            enough = values and self.found[kind] >= MOST * self.found["values"]
            if enough and self.name not in self.options.categorical:
                times = kind == "dates" and bool(np.any(np.asarray(values) % 1))
                return Column(self.name, kind, missing, float(np.median(values)), times)
        ranked = sorted(self.names.items(), key=lambda pair: (-pair[1], pair[0]))[: self.options.categories]
        return Column(self.name, "names", self.found["empty"] > 0, categories=[name for name, _ in ranked])


# ── Rows ───────────────────────────────────────────────────────────────────────────────────────────────


class Encoder:
    """Encodes a row as one vector of raw numbers, and of ones for categories.

    The network normalises: numbers to mean 0 and deviation 1 on the training split. What is the same in all
    of training is multiplied by 0, since nothing can be learned of what it would mean if it changed.
    """

    dtype = "float32"
    vocabulary: list[str] = []

    def __init__(
        self, options: Options, columns: list[Column], mean: list[float], scale: list[float]
    ) -> None:
        self.options, self.columns, self.mean, self.scale = options, columns, mean, scale
        self.shape = (sum(column.size for column in columns),)
        # One Normalization layer would say the same, but its statistics become inputs of the ONNX file.
        self.layers: Layers = [
            {"Rescaling": {"scale": 1.0, "offset": [0.0 - value for value in mean]}},
            {"Rescaling": {"scale": scale}},
        ]
        self.warnings: list[str] = []
        self._gaps = _gaps(options)

    @classmethod
    def learn(cls, raws: Iterable[dict[str, Any]], options: Options) -> "Encoder":
        """Learns what each column holds, then the means and deviations of what that is encoded as.

        Raises:
            UserError: If `options` name a column that is not there, or there is nothing to learn from.
        """
        names = _choose(list(next(iter(raws))), options)
        learners = [_Learner(name, _gaps(options), options) for name in names]
        for raw in raws:
            for learner in learners:
                learner.see(raw[learner.name])
        columns = [learner.settle() for learner in learners]
        size = sum(column.size for column in columns)
        mean, deviation = cls(options, columns, [0.0] * size, [1.0] * size)._measure(raws)
        if not deviation.any():
            raise UserError("encode: every column is the same in all training examples; expected one to vary")
        scaled = np.array([part < column.scaled for column in columns for part in range(column.size)])
        scale = np.divide(1, np.where(scaled, deviation, 1), out=np.zeros(size), where=deviation > 0)
        encoder = cls(options, columns, np.where(scaled, mean, 0).tolist(), scale.tolist())
        ends = np.cumsum([column.size for column in columns])[:-1]
        for column, *own in zip(columns, np.split(mean, ends), np.split(deviation, ends), strict=True):
            if odd := column.oddity(*own):
                encoder.warnings.append(f"column {column.name!r} {odd}")
        return encoder

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """Returns the encoder that `save` wrote."""
        content = read_json(folder / "encoder.json")
        columns = [Column(**column) for column in content["columns"]]
        options = Options.model_validate(content["options"])
        return cls(options, columns, content["mean"], content["scale"])

    def save(self, folder: Path) -> None:
        """Writes the options, the columns, and what the network normalises by."""
        content = {
            "options": self.options.model_dump(),
            "columns": [asdict(column) for column in self.columns],
            "mean": self.mean,
            "scale": self.scale,
        }
        write_json(folder / "encoder.json", content)

    def encode(self, raw: Any) -> np.ndarray:
        """Encodes one row.

        Args:
            raw: Column → value; columns that are not used may be there or not.

        Returns:
            (numbers,) float32.

        Raises:
            BadExampleError: If a column is not there or holds something else than in training, or all are
                empty.
        """
        values = []
        _row(raw)
        for column in self.columns:
            if column.name not in raw:
                raise BadExampleError(_lost(column.name, raw))
            value = raw[column.name]
            blank = _blank(value, frozenset() if column.kind == "names" else self._gaps)
            values.append(None if blank else value)
        if all(value is None for value in values):
            raise BadExampleError("no value in any column that is used")
        pairs = zip(self.columns, values, strict=True)
        return np.array([part for column, value in pairs for part in column.encode(value)], np.float32)

    def draw(self, axes: "Axes", array: np.ndarray) -> None:
        """Writes names and values, a line for each column."""
        words = self.describe(array)
        for line, pair in enumerate(words.items()):
            y = 1 - (line + 0.5) / max(6, len(words))
            for x, side, most, text in zip((0.04, 0.96), ("left", "right"), (24, 16), pair, strict=True):
                short = text if len(text) <= most else text[: most - 1] + "…"
                axes.text(x, y, short, ha=side, va="center", fontsize=5, transform=axes.transAxes)

    def describe(self, array: np.ndarray) -> dict[str, str]:
        """Returns the first columns as people read them, and how many more there are."""
        words, parts = {}, array.tolist()
        for column in self.columns[:SHOWN]:
            words[column.name] = column.describe(parts[: column.size])
            parts = parts[column.size :]
        more = len(self.columns) - SHOWN
        return words | ({"…": f"{more} more"} if more > 0 else {})

    def _measure(self, raws: Iterable[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and deviation, (numbers,) float64 each, in one pass: Welford (1962)."""
        mean, squares, count = np.zeros(self.shape), np.zeros(self.shape), 0
        for raw in raws:
            try:
                row = self.encode(raw)
            except BadExampleError:
                continue  # `prepare` says which one it is
            count += 1
            change = row - mean
            mean += change / count
            squares += change * (row - mean)
        return mean, np.sqrt(squares / max(1, count))


def _gaps(options: Options) -> frozenset[Any]:
    texts = {str(value).casefold() for value in options.missing}
    return frozenset(texts | {_number(value) for value in options.missing} - {None})


def _choose(there: list[str], options: Options) -> list[str]:
    """Returns the columns that are used, in the order of the data."""
    for key in ("columns", "ignore", "categorical"):
        for name in getattr(options, key) or []:
            if name not in there:
                raise UserError(f"encode.{key}: {_lost(name, there)}")
    wanted = there if options.columns is None else options.columns
    names = [name for name in there if name in wanted and name not in options.ignore]
    if not names:
        raise UserError(f"encode: no column is left as input; the data has {', '.join(there) or 'none'}")
    return names


def _lost(name: str, there: Iterable[str]) -> str:
    there = list(there)
    return f"no column {name!r}, only {', '.join(there)}{nearest(name, there)}"

"""Writes predictions: a table for people, JSON lines or CSV for programs."""

import csv
import json
import sys
import time
from typing import Any, TextIO

from src.predict.predictor import Predictor

WIDEST = 60  # characters of an input's name in a table


class Json:
    """One JSON object a line."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, answers: list[dict[str, Any]]) -> None:
        """Writes a batch."""
        for answer in answers:
            self.stream.write(json.dumps(answer, ensure_ascii=False) + "\n")


class Csv:
    """One row each: input, prediction, probability, and a column for the probability of each class."""

    def __init__(self, stream: TextIO, predictor: Predictor, top: int | None) -> None:
        self.writer = csv.writer(stream, lineterminator="\n")
        self.classes = predictor.classes or []
        self.top = min(top, len(self.classes)) if top else 0
        self.single = bool(self.classes) and predictor.activation != "sigmoid"
        header = ["input", "prediction", *(["probability"] if self.single else [])]
        if self.top:
            ranks = range(1, self.top + 1)
            header += [name for rank in ranks for name in (f"class {rank}", f"probability {rank}")]
        else:
            header += [f"probability of {name}" for name in self.classes]
        self.writer.writerow(header)

    def write(self, answers: list[dict[str, Any]]) -> None:
        """Writes a batch."""
        for answer in answers:
            found = answer["prediction"]
            row = [answer["input"], "|".join(found) if isinstance(found, list) and self.classes else found]
            row += [answer["probability"]] if self.single else []
            probabilities = answer.get("probabilities", {})
            if self.top:
                row += [part for pair in probabilities.items() for part in pair]
            else:
                row += [probabilities[name] for name in self.classes]
            self.writer.writerow(row)


class Table:
    """Aligned columns; their widths follow from the first batch."""

    def __init__(self, stream: TextIO, predictor: Predictor, top: int | None) -> None:
        self.stream = stream
        self.single = predictor.classes is not None and predictor.activation != "sigmoid"
        self.classes = predictor.classes
        self.top = top or 1
        self.widths: list[int] | None = None

    def write(self, answers: list[dict[str, Any]]) -> None:
        """Writes a batch."""
        rows = [self._row(answer) for answer in answers]
        if self.widths is None:
            header = ["input", "prediction"] + (["probability"] if self.classes else [])
            header += ["next"] if self.single and self.top > 1 else []
            rows.insert(0, header)
            self.widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, self.widths, strict=True)]
            self.stream.write("  ".join(cells).rstrip() + "\n")

    def _row(self, answer: dict[str, Any]) -> list[str]:
        name = answer["input"]
        row = [name if len(name) <= WIDEST else "…" + name[1 - WIDEST :]]
        if self.classes is None:
            return [*row, f"{answer['prediction']:.6g}"]
        if self.single:
            row += [answer["prediction"], f"{answer['probability']:.1%}"]
            others = list(answer["probabilities"].items())[1 : self.top]
            return row + (
                [", ".join(f"{name} {value:.1%}" for name, value in others)] if self.top > 1 else []
            )
        found = answer["prediction"]
        shown = dict(list(answer["probabilities"].items())[: max(len(found), self.top)])
        return [
            *row,
            ", ".join(found) or "–",
            ", ".join(f"{name} {value:.1%}" for name, value in shown.items()),
        ]


class Progress:
    """How many are done and how fast, in one line of a terminal; elsewhere nothing."""

    def __init__(self, stream: TextIO) -> None:
        # A table on the same terminal is progress enough.
        self.stream = stream if stream.isatty() and not sys.stdout.isatty() else None
        self.started = self.last = time.monotonic()
        self.done = 0

    def add(self, count: int) -> None:
        """Counts what is done."""
        self.done += count
        now = time.monotonic()
        if self.stream and now - self.last > 0.5:
            self.last = now
            rate = self.done / (now - self.started)
            self.stream.write(f"\r{self.done:,} predicted, {rate:,.0f} a second")
            self.stream.flush()

    def clear(self) -> None:
        """Removes the line, for another one or at the end."""
        if self.stream and self.last > self.started:
            self.stream.write("\r\x1b[K")

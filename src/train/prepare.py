"""Reads the dataset, checks it, splits it and encodes it to memory-mapped arrays, without Keras.

in:   params.yaml (task, objective, data, encode), the dataset at data.path
out:  build/prepared/ (src/prepared.py says what lies there)

python -m src.train.prepare
"""

import hashlib
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
from tqdm import tqdm

from src import command, golden, objectives, params, prepared, splits
from src.dataset import SPLITS, content
from src.errors import BadExampleError, UserError
from src.files import replacing, write_json
from src.network import Frame, Input
from src.plugin import pick

CHUNK = 64  # examples that a thread takes at once: handing over single ones costs more than decoding them
AHEAD = 8  # chunks in flight: enough to keep the cores busy, few enough to keep memory flat


def main() -> None:
    """Runs the stage."""
    settings = params.load()
    task = pick("tasks", settings.task)
    prepared.FOLDER.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".spool-", dir=prepared.FOLDER.parent) as spool:
        table = task.read(settings.data, Path(spool))
        ignored = table.attrs["ignored"]
        kind = settings.objective or objectives.infer(table["label"])
        objective = pick("objectives", kind)
        table, bad = check(table, task.digest, objective.read, settings.data)

        classes = objective.classes(table["label"])

        def groups() -> splits.Groups:
            """Returns each class's examples, as the table is now."""
            if classes is None:
                return {}
            return objective.groups(objective.encode(table["label"], classes), classes)

        table["split"] = splits.assign(table, settings.data)
        table = splits.sample(table, settings.data.sample, groups()).sort_values(
            ["split", "id"], kind="stable"
        )
        findings = splits.examine(table, settings.data, groups())

        training = table[table["split"] == "train"]
        encoder = task.Encoder.learn(Contents(training["input"]), settings.encode)
        ends = Frame(
            Input(encoder.shape, str(np.dtype(encoder.dtype)), encoder.layers, encoder.vocabulary),
            objective.output(objective.encode(training["label"], classes), classes),
        )
        with replacing(prepared.FOLDER) as folder:
            refused = []
            for split in SPLITS:
                rows = table[table["split"] == split].drop(columns="split")
                encoded = objective.encode(rows["label"], classes)
                refused.append(write_split(folder / split, rows, encoder, encoded))
            encoder.save(folder)
            if any(map(len, refused)):
                bad = pd.concat([bad, *refused], ignore_index=True)
                refuse(bad, len(table), settings.data)
                table = table[~table["id"].isin(bad["id"])]
                findings = splits.examine(table, settings.data, groups())
            test = table[table["split"] == "test"].iloc[golden.spread((table["split"] == "test").sum())]
            reads = [
                (name, partial(content, value)) for name, value in zip(test["id"], test["input"], strict=True)
            ]
            write_json(folder / golden.NAME, golden.choose(reads))
            if classes is not None and len(bad):
                every = objective.classes(pd.concat([table["label"], bad["label"].dropna()]))
                lost = sorted(set(every) - set(classes))
                findings["warnings"] += [f"class {name!r} has no readable example" for name in lost]
            findings["warnings"] += getattr(encoder, "warnings", [])
            summary = {
                "objective": kind,
                "hash": data_hash(table, "id", "digest", "label", "split"),
                "test_hash": data_hash(table[table["split"] == "test"], "digest", "label"),
                "names": classes,
                "network": ends.to_json(),
                **findings,
                "bad": bad[["id", "reason"]].to_dict("records"),
                "ignored": ignored,
            }
            write_json(folder / "data.json", summary)
    if settings.objective is None:
        print(f"objective: {kind}, as the labels suggest; params.yaml can say another one")
    tell(summary)


class Contents:
    """The raw inputs of a column, read one by one as often as they are gone through."""

    def __init__(self, column: pd.Series) -> None:
        self.column = column

    def __iter__(self) -> Iterator[Any]:
        return map(content, self.column)

    def __len__(self) -> int:
        return len(self.column)


def check(
    table: pd.DataFrame, digest: Callable[[Any], str], read: Callable[[Any], Any], data: params.Data
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Reads every example and its label once, hashes it, and sets the bad ones apart.

    Returns:
        The good examples with their label as it was read and their `digest`, and the bad ones as a table of
        `id`, `label` (None where that is what is bad) and `reason`.

    Raises:
        UserError: If there are bad examples and `data.on_bad` is `fail`; all are listed.
    """

    def examine(row: tuple[Any, Any]) -> tuple[Any, str | None, str | None]:
        value, label = row[0], None
        try:
            label = read(row[1])
            return label, digest(content(value)), None
        except BadExampleError as error:
            return label, None, str(error)

    rows = zip(table["input"], table["label"], strict=True)
    results = list(parallel(examine, rows, len(table), "checking"))
    found = pd.DataFrame(results, table.index, ["label", "digest", "reason"], dtype=object)
    table = table.assign(**found)
    bad = table.loc[table["digest"].isna(), ["id", "label", "reason"]]
    refuse(bad, len(table), data)
    if len(bad) == len(table):
        raise UserError(f"{data.path}: none of the {len(table)} examples can be read")
    good = table[table["digest"].notna()].drop(columns="reason")
    return good.assign(label=good["label"].infer_objects()), bad


def refuse(bad: pd.DataFrame, total: int, data: params.Data) -> None:
    """Raises a UserError that lists bad examples, if there are any and `data.on_bad` is `fail`."""
    if len(bad) and data.on_bad == "fail":
        raise UserError(
            f"{data.path}: {len(bad)} of {total} examples cannot be read:\n"
            + splits.listing(bad["id"] + ": " + bad["reason"].astype(str))
            + "\n  Mend or remove them, or set data.on_bad: skip."
        )


def write_split(folder: Path, rows: pd.DataFrame, encoder: Any, labels: np.ndarray) -> pd.DataFrame:
    """Writes one split's arrays and table, without the examples that the encoder refuses.

    The inputs are appended to the file as they are encoded, never held together: memory stays flat.

    Returns:
        `id`, `label` and `reason` of what was refused.
    """

    def encode(value: Any) -> tuple[np.ndarray | None, str | None]:
        try:
            return np.ascontiguousarray(encoder.encode(content(value)), encoder.dtype), None
        except BadExampleError as error:
            return None, str(error)

    def write_header(file: BinaryIO, count: int) -> None:
        header = {"descr": np.dtype(encoder.dtype).str, "fortran_order": False}
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (count, *encoder.shape)})

    folder.mkdir(parents=True)
    reasons: list[str | None] = []
    with open(folder / "inputs.npy", "wb") as file:
        write_header(file, len(rows))
        for array, reason in parallel(encode, rows["input"], len(rows), f"encoding {folder.name}"):
            reasons.append(reason)
            if array is not None:
                file.write(array.data)
        file.seek(0)
        write_header(file, reasons.count(None))  # of the same length: NumPy leaves room for any count
    good = np.array([reason is None for reason in reasons], bool)
    np.save(folder / "labels.npy", labels[good])
    rows[good].drop(columns="input").reset_index(drop=True).to_parquet(folder / "table.parquet")
    return rows[["id", "label"]].assign(reason=reasons)[~good]


def parallel(function: Callable[[Any], Any], values: Iterable[Any], total: int, doing: str) -> Iterator[Any]:
    """Maps in threads (decoders let go of Python's lock), in order, a few chunks ahead of the reader."""
    remaining = iter(values)
    chunks = iter(lambda: list(islice(remaining, CHUNK)), [])
    with ThreadPoolExecutor(os.cpu_count()) as pool, tqdm(desc=doing, total=total, unit="example") as bar:

        def submit(chunk: list[Any]) -> Future[list[Any]]:
            return pool.submit(lambda: [function(value) for value in chunk])

        running = deque(map(submit, islice(chunks, AHEAD)))
        while running:
            results = running.popleft().result()
            running.extend(map(submit, islice(chunks, 1)))
            yield from results
            bar.update(len(results))


def data_hash(table: pd.DataFrame, *columns: str) -> str:
    """Returns a SHA-256 of these columns of every example, whatever the examples' order."""
    values = [table[name].astype(str) for name in columns]
    lines = "\n".join(sorted(map("\t".join, zip(*values, strict=True))))
    return hashlib.sha256(lines.encode()).hexdigest()


def tell(summary: dict[str, Any]) -> None:
    """Says what was prepared and what is odd about it."""
    counts = ", ".join(f"{count:,} {split}" for split, count in summary["examples"].items())
    print(f"{prepared.FOLDER}: {counts}")
    if summary["bad"]:
        print(f"skipped {len(summary['bad'])} unreadable examples; data.json lists them")
    if summary["ignored"]:
        first = ", ".join(summary["ignored"][:3])
        print(f"ignored {len(summary['ignored'])} files that are no examples: {first} …")
    for warning in summary["warnings"]:
        print(f"warning: {warning}")


if __name__ == "__main__":
    command.stage(__doc__, main)

"""The test split is worth its name: nothing in it was trained on, every class is there, all could be read.

Looked for again here, in what the network was given: an example that stands in two splits, exactly or nearly.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from src.gates import Portion
from src.judgement.evidence import Evidence, Verdict
from src.params import Section
from src.prepared import Split

# Bounds on the time that the search takes; where one is reached, every k-th training example is looked at.
MOST_BYTES = 2_000_000_000
MOST_PAIRS = 2_000_000_000
MOST_ALIKE = 20  # training examples that are compared with a test example pixel by pixel, the nearest first
CLOSE = 8  # bits of 64 in which two fingerprints of near duplicates differ at most
ALIKE = 0.02  # of the range of the values: how much they differ on average at most

SHOWN = 20  # ids that are listed
SAID = {
    "duplicates": "test examples that stand in another split",
    "near_duplicates": "of the test examples have a near duplicate in another split",
    "empty_classes": "classes without a training or a test example",
    "unreadable": "unreadable examples",
}

Count = Annotated[int, Field(ge=0)]


class Options(Section):
    """`gates.data:` how much of it may be wrong."""

    duplicates: Count = 0  # test examples that stand in another split
    near_duplicates: Portion = 0.01  # share of the test examples with a look-alike in another split
    empty_classes: Count = 0  # classes without a training or a test example
    unreadable: Count = 0  # examples that could not be read


STRICTER = {"duplicates": min, "near_duplicates": min, "empty_classes": min, "unreadable": min}


def judge(evidence: Evidence, options: Options) -> Verdict:
    """Counts what is wrong with the splits, and holds each count against its limit."""
    others = _Others([evidence.splits[name] for name in ("train", "validation")], len(evidence.test))
    again = _duplicates(evidence, others)
    rows = [_row(evidence, "duplicates", len(again), options.duplicates, again)]
    if evidence.fingerprint is not None:
        near = np.setdiff1d(_near_duplicates(evidence, others, evidence.fingerprint), again)
        share = len(near) / len(evidence.test)
        rows.append(_row(evidence, "near_duplicates", share, options.near_duplicates, near))
    if evidence.classes is not None:
        empty = _empty_classes(evidence, evidence.classes)
        rows.append({**_row(evidence, "empty_classes", len(empty), options.empty_classes), "examples": empty})
    rows.append(_row(evidence, "unreadable", len(evidence.data.get("bad", [])), options.unreadable))
    bad = [row for row in rows if row["verdict"] == "fail"]
    reason = "; ".join(_say(row) for row in bad or rows)
    looked = f" One in {others.step} training examples was looked at." if others.step > 1 else ""
    return Verdict(
        "fail" if bad else "pass",
        f"{reason[0].upper()}{reason[1:]}.{looked}",
        examples=len(evidence.test),
        details=rows,
    )


class _Others:
    """The examples of the other splits, thinned out so that a comparison with the test split ends in time."""

    def __init__(self, splits: list[Split], tests: int) -> None:
        self.splits = splits
        size = sum(split.inputs.nbytes for split in splits)
        pairs = tests * sum(len(split) for split in splits)
        self.step = max(1, -(-size // MOST_BYTES), -(-pairs // MOST_PAIRS))

    def batches(self, size: int = 4096) -> Iterator[np.ndarray]:
        """Yields their encoded inputs."""
        for split in self.splits:
            thinned = split.inputs[:: self.step]
            for start in range(0, len(thinned), size):
                yield np.ascontiguousarray(thinned[start : start + size])


def _duplicates(evidence: Evidence, others: _Others) -> np.ndarray:
    """Returns the positions of the test examples that stand in another split, encoded or as they were."""
    known = {_hash(row) for batch in others.batches() for row in batch}
    inputs = evidence.test.inputs
    again = np.fromiter((_hash(row) in known for row in inputs), bool, len(inputs))
    if "digest" in evidence.test.table:
        digests = [split.table["digest"] for split in others.splits if "digest" in split.table]
        again |= evidence.test.table["digest"].isin(set().union(*digests)).to_numpy()
    return np.flatnonzero(again)


def _hash(row: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=16).digest()


def _near_duplicates(
    evidence: Evidence, others: _Others, fingerprint: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Returns the positions of the test examples that look like an example of another split."""
    inputs = evidence.test.inputs
    prints = np.concatenate(
        [
            fingerprint(np.ascontiguousarray(inputs[start : start + 4096]))
            for start in range(0, len(inputs), 4096)
        ]
    )
    near = np.zeros(len(inputs), bool)
    for batch in others.batches():
        theirs = fingerprint(batch)
        for start in range(0, len(prints), 256):
            distance = np.bitwise_count(prints[start : start + 256, None] ^ theirs[None])
            mine, other = _nearest(distance)
            if len(mine):
                near[start + mine[_alike(inputs[start + mine], batch[other])]] = True
    return np.flatnonzero(near)


def _nearest(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows and columns of the close pairs, at most `MOST_ALIKE` in a row."""
    rows, columns = np.nonzero(distance <= CLOSE)
    order = np.lexsort((distance[rows, columns], rows))
    rows, columns = rows[order], columns[order]
    rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
    return rows[rank < MOST_ALIKE], columns[rank < MOST_ALIKE]


def _alike(mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Whether pairs of encoded inputs differ by little, (pairs,) bool."""
    if np.issubdtype(mine.dtype, np.integer):
        span = float(np.iinfo(mine.dtype).max)
    else:
        span = float(np.ptp(mine)) or 1.0
    axes = tuple(range(1, mine.ndim))
    return np.abs(mine.astype(np.float32) - theirs).mean(axis=axes) <= ALIKE * span


def _empty_classes(evidence: Evidence, classes: list[str]) -> list[str]:
    """Returns the classes without a training or a test example."""
    found = [
        evidence.objective.groups(np.asarray(evidence.splits[name].labels), classes)
        for name in ("train", "test")
    ]
    return [name for name in classes if not all(len(groups[name]) for groups in found)]


def _row(
    evidence: Evidence, name: str, found: float, limit: float, positions: np.ndarray | None = None
) -> dict[str, Any]:
    shown = (
        [] if positions is None else evidence.test.table["id"].iloc[positions[:SHOWN]].astype(str).tolist()
    )
    verdict = "pass" if found <= limit else "fail"
    return {"check": name, "verdict": verdict, "estimate": found, "limit": limit, "examples": shown}


def _say(row: dict[str, Any]) -> str:
    value, limit = row["estimate"], row["limit"]
    number = f"{100 * value:.2f} % " if row["check"] == "near_duplicates" else f"{value:,} "
    limit = f"{100 * limit:.2f} %" if row["check"] == "near_duplicates" else f"{limit:,}"
    listed = f" ({', '.join(row['examples'][:3])})" if row["verdict"] == "fail" and row["examples"] else ""
    return f"{number}{SAID[row['check']]}{listed}, the limit is {limit}"

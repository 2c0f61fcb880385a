"""Which examples train, which validate and which test, and what is wrong with the answer.

Splits that the data declares are kept. The rest is drawn by a hash of each example's content alone, so that
adding examples never moves an old one from one split to another and exact duplicates always fall together.
(A draw that also fixed each class's exact share would have to look at the other examples, and could not
promise this; each class gets its share up to the luck of the draw.)
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from src.dataset import SPLITS
from src.errors import UserError
from src.params import Data

IMBALANCE = 10  # the largest class has over so many times the training examples of the smallest: said
SHOWN = 20  # how many lines of a long list an error shows

Groups = Mapping[str, np.ndarray]  # class → positions of its examples in the table


def assign(table: pd.DataFrame, data: Data) -> pd.Series:
    """Gives each example its split.

    Args:
        table: With `digest` (hexadecimal hash of the content) and, where declared, `split`.
        data: `test` is the share drawn when the data declares no test split; `validation` the share of
            the rest, drawn when it declares no validation split.

    Returns:
        A column of `train`, `validation` and `test`.
    """
    declared = table["split"] if "split" in table else pd.Series(None, index=table.index, dtype=object)
    present = set(declared.dropna())
    draw = _uniform(table["digest"])
    test = 0.0 if "test" in present else data.test
    validation = 0.0 if "validation" in present else (1 - test) * data.validation
    drawn = np.select([draw < test, draw < test + validation], ["test", "validation"], "train")
    # A declared training split still gives up the share of the splits that were not declared.
    keeps = declared.isin(["validation", "test"])
    return declared.where(keeps, pd.Series(drawn, index=table.index)).astype(str)


def sample(table: pd.DataFrame, size: float | int, groups: Groups) -> pd.DataFrame:
    """Keeps a share, or a number, of the training examples, in the classes' proportions.

    The examples of a smaller sample are among those of a larger one. Validation and test stay whole.

    Args:
        table: With `split`, `label` and `digest`.
        size: A share (float) or a number (int) of training examples.
        groups: Each class's examples; one of several classes counts as one of the rarest of them.
    """
    training = table[table["split"] == "train"]
    share = size if isinstance(size, float) else min(1.0, size / max(1, len(training)))
    if share >= 1:
        return table
    order = _uniform(table["digest"].str[16:]).rename("order")  # other bits than those that split
    strata = pd.Series("", index=table.index, dtype=object)
    for name in sorted(groups, key=lambda name: -len(groups[name])):
        strata.iloc[groups[name]] = name
    strata = strata[training.index]
    rank = order[training.index].groupby(strata).rank(method="first")
    count = strata.map(strata.value_counts())
    dropped = training.index[rank > (count * share).map(math.ceil)]
    return table.drop(dropped)


def examine(table: pd.DataFrame, data: Data, groups: Groups) -> dict[str, Any]:
    """Looks for leaks, duplicates, contradictions and classes that are missing or rare.

    Args:
        table: With `id`, `split`, `label` and `digest`.
        data: `on_leak: fail` makes a leak an error.
        groups: Each class's examples; none where labels are numbers.

    Returns:
        The counts, the findings, and `warnings`: a sentence for each thing that a person should know.

    Raises:
        UserError: If an example stands in two splits, or a class cannot be learned.
    """
    warnings: list[str] = []
    by_content = table.groupby("digest", sort=False)
    leaks = table[by_content["split"].transform("nunique") > 1].sort_values("digest", kind="stable")
    if len(leaks):
        message = f"{data.path}: {leaks['digest'].nunique()} examples stand in two splits:\n" + listing(
            leaks["split"] + " " + leaks["id"]
        )
        if data.on_leak == "fail":
            raise UserError(message + "\n  Remove one of each, or set data.on_leak: warn.")
        warnings.append(message)
    contradictions = int((by_content["label"].nunique() > 1).sum())
    if contradictions:
        warnings.append(f"{contradictions} examples stand there twice with different labels")
    counts = {split: int((table["split"] == split).sum()) for split in SPLITS}
    for split, count in counts.items():
        if not count:
            raise UserError(f"{data.path}: the {split} split has no example; expected at least one")
    findings: dict[str, Any] = {
        "examples": counts,
        "duplicates": int(table["digest"].duplicated().sum()),
        "leaks": leaks["id"].tolist(),
        "contradictions": contradictions,
    }
    if groups:
        findings["classes"] = _count_classes(table["split"], groups, data, warnings)
    return {**findings, "warnings": warnings}


def listing(lines: pd.Series) -> str:
    """Returns up to a screenful of lines, and how many more there are."""
    shown = "\n".join(f"  {line}" for line in lines[:SHOWN])
    more = len(lines) - SHOWN
    return shown + (f"\n  … and {more} more" if more > 0 else "")


def _count_classes(
    split: pd.Series, groups: Groups, data: Data, warnings: list[str]
) -> dict[str, dict[str, int]]:
    """Counts each class in each split; errors on those that cannot be learned."""
    if len(groups) < 2:
        raise UserError(f"{data.path}: found one class, {next(iter(groups))!r}; expected at least two")
    counts = pd.DataFrame(
        {name: [int((split.iloc[rows] == part).sum()) for part in SPLITS] for name, rows in groups.items()},
        index=SPLITS,
    ).T
    for name, row in counts.iterrows():
        if row.sum() == 1:
            raise UserError(f"{data.path}: class {name!r} has one example; expected at least two")
        if row["train"] == 0:
            raise UserError(
                f"{data.path}: class {name!r} has {row['validation']} validation and {row['test']} test "
                "examples and none to train on; expected at least one in each"
            )
        warnings += [f"class {name!r} has no {split} example" for split in SPLITS if row[split] == 0]
    training = counts["train"]
    if training.max() > IMBALANCE * training.min():
        warnings.append(
            f"classes are heavily imbalanced: {training.max()} training examples of {training.idxmax()!r}, "
            f"{training.min()} of {training.idxmin()!r}"
        )
    return {str(name): {split: int(row[split]) for split in SPLITS} for name, row in counts.iterrows()}


def _uniform(digests: pd.Series) -> pd.Series:
    """Maps hexadecimal hashes to numbers that are uniform in [0, 1)."""
    return digests.map(lambda digest: int(digest[:13], 16) / 16**13).astype(float)

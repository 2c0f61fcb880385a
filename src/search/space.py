"""What a search tries: the lists and ranges of `search.parameters`, checked, and the values of a trial."""

import itertools
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial
from pydantic import BaseModel

from src import params
from src.errors import UserError
from src.search import edit

WHERE = "params.yaml: search.parameters"
RANGE = {"low", "high", "step", "log"}
DIGITS = 6  # of a number that is drawn: what params.yaml will say is what was tried
MOST = 1000  # combinations of a grid
PREPARED = ("task", "objective", "data", "encode")  # what prepare reads: a trial has its own training alone


@dataclass
class Parameter:
    """One key of params.yaml and what is tried there.

    Args:
        key: Dotted.
        distribution: Optuna's. A list's choices are its plain values, and JSON for lists and sections.
        values: Of a list; empty for a range.
    """

    key: str
    distribution: BaseDistribution
    values: list[Any]

    @property
    def first(self) -> Any:
        """Returns the first value of the list, or the low end of the range."""
        return self.values[0] if self.values else self.distribution.low  # type: ignore[attr-defined]

    def draw(self, trial: Trial) -> Any:
        """Draws from the list or range, as Optuna keeps it."""
        kind = self.distribution
        if isinstance(kind, CategoricalDistribution):
            return trial.suggest_categorical(self.key, kind.choices)
        if isinstance(kind, IntDistribution):
            return trial.suggest_int(self.key, kind.low, kind.high, step=kind.step, log=kind.log)
        assert isinstance(kind, FloatDistribution)
        return trial.suggest_float(self.key, kind.low, kind.high, step=kind.step, log=kind.log)

    def value(self, drawn: Any) -> Any:
        """Returns what params.yaml shall say for what Optuna has drawn."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.values[self.distribution.choices.index(drawn)]
        if isinstance(self.distribution, FloatDistribution):
            rounded = float(f"{drawn:.{DIGITS}g}")
            return min(max(rounded, self.distribution.low), self.distribution.high)
        return drawn


@dataclass
class Space:
    """All parameters of a search, in the order of params.yaml."""

    parameters: list[Parameter]

    @property
    def finite(self) -> bool:
        """Whether all are lists, so that a grid can be made of them."""
        return all(parameter.values for parameter in self.parameters)

    def draw(self, trial: Trial) -> dict[str, Any]:
        """Draws what a trial shall try; a trial that has drawn already gives the same.

        Returns:
            Dotted key → value.
        """
        return self.values({each.key: each.draw(trial) for each in self.parameters})

    def values(self, drawn: dict[str, Any]) -> dict[str, Any]:
        """Returns dotted key → value for what Optuna has drawn."""
        return {each.key: each.value(drawn[each.key]) for each in self.parameters if each.key in drawn}

    def grid(self, seed: int) -> list[dict[str, Any]]:
        """Returns every combination as Optuna's choices, shuffled: any first part of it is a fair sample."""
        lists = [each.distribution.choices for each in self.parameters]  # type: ignore[attr-defined]
        keys = [each.key for each in self.parameters]
        points = [dict(zip(keys, point, strict=True)) for point in itertools.product(*lists)]
        return [points[number] for number in np.random.default_rng(seed).permutation(len(points))]


def read(raw: dict[str, Any], search: params.Search) -> Space:
    """Checks `search.parameters` against the schema of params.yaml before anything is trained.

    Every value of a list and both ends of a range are put in their place and checked.

    Args:
        raw: The content of params.yaml.
        search: Its `search:` section.

    Raises:
        UserError: If a key does not exist or a value may not stand there; all that is wrong is said.
    """
    parameters, problems = [], []
    for key, tried in search.parameters.items():
        try:
            parameters.append(_parameter(raw, str(key), tried))
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n  ".join(f"{WHERE}: {problem}" for problem in problems))
    space = Space(parameters)
    if search.sampler == "grid" and not space.finite:
        key = next(each.key for each in parameters if not each.values)
        raise UserError(f"{WHERE}: {key}: found a range, expected a list of values for `sampler: grid`")
    points = math.prod(len(each.values) for each in parameters)
    if points > MOST and search.sampler in ("grid", None):
        raise UserError(
            f"{WHERE}: found a grid of {points:,} combinations, expected {MOST:,} at most; "
            "`sampler: random` or `tpe` draws from it"
        )
    return space


def check_values(raw: dict[str, Any], values: dict[str, Any]) -> params.Params:
    """Checks params.yaml with other values at dotted keys; the `search:` section is left out.

    Raises:
        UserError: With the schema's own sentence.
    """
    content = {name: section for name, section in raw.items() if name != "search"}
    try:
        return params.check(edit.put(content, values), Path())
    except UserError as error:
        raise UserError(str(error).removeprefix(".: ")) from None


def _parameter(raw: dict[str, Any], key: str, tried: Any) -> Parameter:
    first = key.split(".")[0]
    if first in PREPARED:
        raise UserError(
            f"{key}: changes the prepared data, expected a key below model or fit; `dvc exp run --queue "
            f"-S '{key}=...'` searches over it"
        )
    if first in ("search", "gates", "report"):
        raise UserError(f"{key}: changes no training, expected a key below model or fit")
    if isinstance(tried, list) and tried:
        for value in tried:
            check_values(raw, {key: value})
        choices = [value if _plain(value) else json.dumps(value) for value in tried]
        twice = next((choice for number, choice in enumerate(choices) if choice in choices[:number]), None)
        if twice is not None:
            raise UserError(f"{key}: lists {twice} twice, expected different values")
        return Parameter(key, CategoricalDistribution(choices), tried)
    numbers = isinstance(tried, dict) and all(
        type(tried.get(name, 1)) in (int, float) for name in ("low", "high", "step")
    )
    if numbers and {"low", "high"} <= set(tried) <= RANGE and type(tried.get("log", False)) is bool:
        return Parameter(key, _range(raw, key, tried), [])
    raise UserError(
        f"{key}: found {tried!r}, expected a list of values or a range {{low: ..., high: ...}}, "
        "with step or log: true if wanted"
    )


def _range(raw: dict[str, Any], key: str, tried: dict[str, Any]) -> BaseDistribution:
    """Returns a range of whole numbers if both ends are whole and the schema takes no others."""
    ends = [check_values(raw, {key: tried[end]}) for end in ("low", "high")]
    whole = all(type(value) is int for name, value in tried.items() if name != "log")
    try:
        if whole and not any(isinstance(_reach(end, key), float) for end in ends):
            return IntDistribution(**tried)
        return FloatDistribution(**tried)
    except ValueError as error:
        raise UserError(f"{key}: found {tried!r}, which is no range: {error}") from None


def _reach(content: Any, key: str) -> Any:
    """Returns the value at a dotted key of checked parameters."""
    for part in key.split("."):
        content = getattr(content, part, None) if isinstance(content, BaseModel) else content.get(part)
    return content


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)

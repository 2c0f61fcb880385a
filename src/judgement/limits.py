"""Which limits hold: those of the target branch wherever they are stricter than the checkout's own.

In:  the text of the target branch's params.yaml, and the gates of this one.
Out: the gates to apply, and every limit that was loosened.

Each gate says in `STRICTER` which of two values of a key is the stricter one, with the functions below.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from src import params
from src.plugin import names, pick

Stricter = Callable[[Any, Any], Any]


# ── Which of two values is the stricter one: f(target, candidate) ──────────────────────────────────────


def lower(target: float | None, candidate: float | None) -> float | None:
    """Of two upper limits, the lower one; None is no limit."""
    return min((value for value in (candidate, target) if value is not None), default=None)


def same(target: Any, candidate: Any) -> Any:
    """Neither is stricter, they are not comparable: that of the target branch holds."""
    return target


def last_of(*values: Any) -> Stricter:
    """Returns the rule that the later in a list of values, from lax to strict, is the stricter."""

    def stricter(target: Any, candidate: Any) -> Any:
        return max(candidate, target, key=values.index)

    return stricter


Table = Mapping[str, float]


def higher_for_each(target: Table | None, candidate: Table | None) -> Table | None:
    """Of two tables of lower limits with a `default`, the higher limit of every entry; None is no limit."""
    return _for_each(max, target, candidate)


def lower_for_each(target: Table | None, candidate: Table | None) -> Table | None:
    """Of two tables of upper limits with a `default`, the lower limit of every entry; None is no limit."""
    return _for_each(min, target, candidate)


def _for_each(choose: Callable[..., float], target: Table | None, candidate: Table | None) -> Table | None:
    if target is None or candidate is None:
        return candidate if target is None else target

    def limit(table: Table, name: str) -> float:
        return table.get(name, table["default"])

    every = {
        name: choose(limit(target, name), limit(candidate, name))
        for name in dict.fromkeys(["default", *candidate, *target])
    }
    # Entries that say what the default says are left out, so that equal tables are equal.
    return {name: value for name, value in every.items() if name == "default" or value != every["default"]}


RULES: dict[str, Stricter] = {
    "on_not_enough_data": last_of("warn", "fail"),
    "on_no_baseline": last_of("warn", "fail"),
}


# ── The comparison ─────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Loosened:
    """A limit of the target branch that this checkout would not hold."""

    key: str
    target: Any
    candidate: Any

    def to_json(self) -> dict[str, Any]:
        """Returns the entry in gate.json."""
        return asdict(self)


@dataclass(frozen=True)
class Limits:
    """The gates to apply.

    Args:
        gates: those that hold.
        loosened: what the checkout would not hold; without an override it fails.
        override: the reason that this checkout gives, if the target branch does not have the same one.
    """

    gates: params.Gates
    loosened: list[Loosened]
    override: str | None


def settle(own: params.Gates, target: str | None, where: str) -> Limits:
    """Compares the gates of this checkout with the target branch's.

    A reason that stands in the target branch already was given for another change, and does not count.

    Args:
        own: The gates of this checkout.
        target: The text of the target branch's params.yaml; None if there is none.
        where: What to call it in an error.

    Raises:
        UserError: If the target branch's file is no YAML.
    """
    raw = params.parse(target, where) if target is not None else {}
    theirs = raw.get("gates")
    theirs = theirs if isinstance(theirs, dict) else {}
    loosened: list[Loosened] = []
    rules, _ = _read(params.Rules, {key: theirs[key] for key in params.Rules.model_fields if key in theirs})
    held = {name: theirs[name] for name in theirs if name not in params.Rules.model_fields}
    strict_rules = _stricter("gates", RULES, rules, own.rules, loosened) if theirs else own.rules
    declared = dict(own.declared)
    for name, section in held.items():
        options = _settle_gate(name, section or {}, own.declared.get(name), loosened)
        if options is not None:
            declared[name] = options
    strict = params.Gates(strict_rules, declared)
    fresh = own.rules.override if own.rules.override != rules.override else None
    return Limits(own if fresh else strict, loosened, fresh or None)


def _settle_gate(name: str, section: Any, own: Any, loosened: list[Loosened]) -> Any:
    """Returns the options that hold for one gate of the target branch; None if it is gone altogether."""
    key = f"gates.{name}"
    if name not in names("gates"):
        loosened.append(Loosened(key, section, None))
        return None
    gate = pick("gates", name)
    theirs, unknown = _read(gate.Options, section)
    loosened += [Loosened(f"{key}.{part}", value, None) for part, value in unknown.items()]
    if own is None:
        loosened.append(Loosened(key, section, None))
        return theirs
    return _stricter(key, gate.STRICTER, theirs, own, loosened)


def _stricter(key: str, rules: dict[str, Stricter], theirs: Any, own: Any, loosened: list[Loosened]) -> Any:
    """Returns the stricter value of every key, and notes where that is not this checkout's."""
    values = {name: (getattr(theirs, name), getattr(own, name)) for name in rules}
    other = [name for name, (target, mine) in values.items() if rules[name] is same and target != mine]
    if other:  # the rest belongs to another metric, so that none of it can be compared
        loosened += [Loosened(f"{key}.{name}", *values[name]) for name in other]
        return theirs
    holds = {name: rules[name](*pair) for name, pair in values.items()}
    for name, (target, mine) in values.items():
        if holds[name] != rules[name](mine, mine):
            loosened.append(Loosened(f"{key}.{name}", target, mine))
    return own.model_copy(update=holds)


def _read(schema: type[BaseModel], section: Any) -> tuple[Any, dict[str, Any]]:
    """Reads a section as far as this checkout's schema knows it; returns the rest beside it."""
    unknown: dict[str, Any] = {}
    section = dict(section) if isinstance(section, dict) else {}
    while True:
        try:
            return schema.model_validate(section), unknown
        except ValidationError as error:
            for part in {str(problem["loc"][0]) for problem in error.errors()}:
                unknown[part] = section.pop(part)

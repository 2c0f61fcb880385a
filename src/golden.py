"""A few raw examples of the test split and what the model makes of them, to try copies of it by.

`prepare` writes build/prepared/golden.json, a list of {id, input}; `export` adds each `output`, as Keras
computes it, and writes src/models/golden.json: `unit`, in which outputs differ, and `examples`.
"""

import base64
import json
from collections.abc import Callable, Iterable
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np

NAME = "golden.json"
TOLERANCE = 1e-4  # of probabilities; relative for numbers, or to `unit` where that is larger
EXAMPLES = 8
LARGEST = 500_000  # bytes of all of them as JSON


def choose(rows: Iterable[tuple[str, Callable[[], Any]]]) -> list[dict[str, Any]]:
    """Returns examples as JSON, as many as there is room for.

    Args:
        rows: Name, and what returns the raw input, of as many examples as should be tried.
    """
    chosen: list[dict[str, Any]] = []
    size = 0
    for name, read in rows:
        try:
            example = {"id": name, "input": pack(read())}
            size += len(json.dumps(example, allow_nan=False))
        except (TypeError, ValueError):
            continue  # a cell that JSON cannot hold
        if size > LARGEST:
            break
        chosen.append(example)
    return chosen


def spread(count: int) -> list[int]:
    """Returns `EXAMPLES` positions among `count`, all apart."""
    return sorted(set(np.linspace(0, count - 1, EXAMPLES).astype(int).tolist())) if count else []


def pack(raw: Any) -> dict[str, Any]:
    """Returns a raw input as JSON can hold it."""
    if isinstance(raw, bytes):
        return {"base64": base64.b64encode(raw).decode()}
    if isinstance(raw, dict):
        texts = {name: _plain(value) for name, value in raw.items()}
        return {"row": texts}
    return {"text": raw}


def _plain(value: Any) -> Any:
    if isinstance(value, date):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def unpack(packed: dict[str, Any]) -> Any:
    """Returns the raw input that was packed."""
    ((kind, content),) = packed.items()
    return base64.b64decode(content) if kind == "base64" else content


def difference(expected: np.ndarray, found: np.ndarray, unit: float) -> np.ndarray:
    """Returns how far apart outputs are, each in proportion to itself or to `unit` if that is larger."""
    apart = np.abs(found - expected) / np.maximum(unit, np.abs(expected))
    return np.nan_to_num(apart, nan=np.inf)

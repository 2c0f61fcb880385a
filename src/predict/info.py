"""Tells what a model is, how well it does, and what the gate said of it."""

import json
import re
from typing import Any

from src.predict.predictor import describe
from src.predict.source import Source


def show(source: Source) -> str:
    """Returns the essentials as lines, and below them the card if there is one."""
    facts = {key: value for key, value in collect(source).items() if value is not None}
    width = max(map(len, facts))
    lines = [f"{key.ljust(width)}  {value}" for key, value in facts.items()]
    if source.has("README.md"):
        card = source.read("README.md").decode(errors="replace")
        lines += ["", re.sub(r"\A---\n.*?\n---\n", "", card, flags=re.DOTALL).strip()]
    return "\n".join(lines)


def collect(source: Source) -> dict[str, Any]:
    """Returns the essentials, a line each."""
    inference = describe(source)
    data = inference.get("data", {})
    gate = source.json("gate.json") if source.has("gate.json") else {}
    metrics = source.json("metrics.json") if source.has("metrics.json") else {}
    needs = source.json("needs.json") if source.has("needs.json") else {}
    classes = inference["classes"]
    count = data.get("examples", {})
    name = inference.get("architecture", {}).get("name")
    return {
        "model": f"{name}, {inference.get('parameters'):,} parameters",
        "predicts": f"one of {len(classes)} classes" if _single(inference) else _others(classes),
        "classes": ", ".join(classes[:20]) + (" …" if len(classes) > 20 else "") if classes else None,
        "from": f"{inference['task_type']}, {json.dumps(inference['encoder'])[:200]}",
        "data": f"{data.get('path')} ({', '.join(f'{number:,} {split}' for split, number in count.items())})",
        "metrics": ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if _is_number(value)),
        "verdict": gate.get("verdict", "none: the gate has not judged this model"),
        "created": inference.get("created"),
        "commit": inference.get("commit"),
        "needs": " ".join(need["package"] for need in needs.values() if need["always"]) or None,
    }


def _single(inference: dict[str, Any]) -> bool:
    return inference["classes"] is not None and inference["output"]["activation"] != "sigmoid"


def _others(classes: list[str] | None) -> str:
    return "a number" if classes is None else f"any number of {len(classes)} classes"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

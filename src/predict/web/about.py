"""What the server says of its model: /info, and what the page needs to ask for inputs."""

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import PurePosixPath
from typing import Any

from src import golden
from src.predict import info
from src.predict.predictor import Predictor
from src.predict.web.reading import Limits, file_types

CARD, REPORT = "README.md", "report/index.html"


def describe(predictor: Predictor, limits: Limits) -> dict[str, Any]:
    """Returns the model's name, data, classes, input, metrics, verdict and card."""
    source, inference = predictor.source, predictor.inference
    gate = source.json("gate.json") if source.has("gate.json") else {}
    return {
        "name": f"{PurePosixPath(inference['data']['path']).stem}-{inference['architecture']['name']}",
        "sha256": hashlib.sha256(source.read("model.onnx")).hexdigest(),
        "created": inference.get("created"),
        "commit": inference.get("commit"),
        "essentials": {key: value for key, value in info.collect(source).items() if value is not None},
        "predicts": predicts(predictor),
        "classes": predictor.classes,
        "input": describe_input(predictor, limits),
        "metrics": source.json("metrics.json") if source.has("metrics.json") else {},
        "verdict": gate.get("verdict"),
        "gates": [
            {key: row.get(key) for key in ("gate", "verdict", "reason")} for row in gate.get("gates", [])
        ],
        "card": source.read(CARD).decode(errors="replace") if source.has(CARD) else None,
        "report": source.has(REPORT),
        "examples": source.has(golden.NAME),
    }


def predicts(predictor: Predictor) -> str:
    """Returns `class`, `classes` (any number of them) or `number`."""
    if predictor.classes is None:
        return "number"
    return "classes" if predictor.activation == "sigmoid" else "class"


def describe_input(predictor: Predictor, limits: Limits) -> dict[str, Any]:
    """Returns what a raw input is: a file and how its name ends, a text, or a row and its columns."""
    task = predictor.task
    return {
        "kind": task.RAW,
        "files": list(getattr(task, "SUFFIXES", ())) if task.RAW == "file" else None,
        "media_types": file_types(task) if task.RAW == "file" else None,
        "columns": columns(predictor) if task.RAW == "row" else None,
        "most_bytes": limits.size,
        "most_inputs": limits.inputs,
    }


def columns(predictor: Predictor) -> list[dict[str, Any]]:
    """Returns name, kind (numbers, dates, names), categories, and whether a value may be missing."""
    keys = ("name", "kind", "categories", "missing")
    return [{key: getattr(column, key) for key in keys} for column in predictor.encoder.columns]


@cache
def page() -> dict[str, bytes]:
    """Returns the files of the page, by name."""
    folder = files("src.predict.web") / "page"
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}

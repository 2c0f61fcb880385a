"""What the files beside a model claim, held against what the gate found: a false claim is never published."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from src import git, lock, prepared
from src.files import read_json, sha256
from src.judgement.evidence import Evidence
from src.judgement.gather import MODELS

CLAIMED = 0.005  # by which a metric may differ from machine to machine


def find_contradictions(evidence: Evidence) -> list[str]:
    """Says where the files that the model comes with claim what was not found here."""
    scored = evidence.objective.score(evidence.labels, evidence.candidate.outputs, evidence.classes)
    headline = next(iter(scored))
    facts = {
        "objective": evidence.data["objective"],
        "classes": evidence.classes,
        "encoder": read_json(prepared.FOLDER / "encoder.json"),
        "data.test_hash": evidence.data["test_hash"],
        headline: scored[headline],
    }
    return [
        *_contradict(MODELS / "metrics.json", scored),
        *_contradict(MODELS / "inference.json", facts),
        *(f"{name} was made by no stage of dvc.lock." for name in find_files()[1]),
    ]


def _contradict(path: Path, facts: dict[str, Any]) -> list[str]:
    """Compares what a file says with what was found; what the file says besides is not looked at.

    The file may have been made anew on this runner. What was committed beside the same dvc.lock counts too.
    """
    contents = [path.read_bytes() if path.exists() else None]
    if git.run("diff", "--quiet", "HEAD", "--", lock.PATH) is not None:
        contents.append(git.blob("HEAD", str(path)))
    found = flatten(facts)
    for claims in map(parse, filter(None, contents)):
        wrong = [key for key, fact in found.items() if not _agrees(claims.get(key), fact)]
        if wrong:
            return [
                f"{path} claims {key} {claims.get(key)}, the gate found {found[key]}." for key in wrong[:5]
            ]
    return []


def parse(content: bytes) -> dict[str, Any]:
    """Returns what a JSON file says by dotted keys, nothing if it says nothing in JSON."""
    try:
        parsed = json.loads(content)
    except ValueError:
        return {}
    return flatten(parsed) if isinstance(parsed, dict) else {}


def _agrees(claimed: Any, found: Any) -> bool:
    if isinstance(found, float) and isinstance(claimed, float):
        return abs(claimed - found) <= CLAIMED * max(1.0, abs(found))
    return bool(claimed == found)


def flatten(content: Any, prefix: str = "") -> dict[str, Any]:
    """Returns nested keys as dotted ones, each with its value as JSON can hold it."""
    if not isinstance(content, dict) or not content:
        plain = isinstance(content, str | int | list | None) or (
            isinstance(content, float) and np.isfinite(content)
        )
        return {prefix: content if plain else str(content)}
    parts = [flatten(value, f"{prefix}.{key}" if prefix else str(key)) for key, value in content.items()]
    return {key: value for part in parts for key, value in part.items()}


def hash_files() -> dict[str, str]:
    """Returns the SHA-256 of every file of the model that a stage made: exactly these may be published."""
    return {name: sha256(name) for name in find_files()[0]}


def find_files() -> tuple[list[str], list[str]]:
    """Returns the files below src/models that dvc.lock names, and those that it does not, links included."""
    made = lock.outputs(lock.read(Path(lock.PATH).read_text())) if Path(lock.PATH).exists() else None
    found = [path for path in sorted(MODELS.rglob("*")) if path.is_symlink() or path.is_file()]
    names = [path.as_posix() for path in found if not path.name.startswith(".")]
    known = names if made is None else [*made, *_tokenizer()]
    own = [name for name in names if not Path(name).is_symlink() and name in known]
    return own, [name for name in names if name not in own]


def _tokenizer() -> list[str]:
    """Returns the name of the model's tokenizer if it is the one that was prepared here."""
    files = [MODELS / prepared.TOKENIZER, prepared.FOLDER / prepared.TOKENIZER]
    same = all(file.exists() for file in files) and sha256(files[0]) == sha256(files[1])
    return [files[0].as_posix()] if same else []

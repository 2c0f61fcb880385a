"""Gathers the evidence for the gates: both models are scored here, side by side on the same test examples."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from src import conversion, engine, params, prepared, scoring
from src.errors import UserError
from src.files import read_json, sha256
from src.judgement import baseline, limits, looks
from src.judgement.evidence import Evidence, Model
from src.lock.objects import md5
from src.plugin import pick

MODELS = Path("src/models")


def choose_baseline(scratch: Path, target: str | None, given: Path | None) -> tuple[baseline.Baseline, str]:
    """Finds the baseline.

    Args:
        scratch: A folder for its files.
        target: The target branch, if it was said.
        given: The folder of the baseline, if it was said.

    Returns:
        The baseline, and why it cannot be had although it should be: the gates that need it then fail.
    """
    if given:
        return baseline.Baseline("published", None, given, f"{given}, as the command line says"), ""
    try:
        return baseline.find(scratch, target), ""
    except UserError as error:
        return baseline.Baseline("none", None, None, f"none: {error}"), str(error)


def gather(
    settings: params.Params, settled: limits.Limits, chosen: baseline.Baseline, trouble: str
) -> tuple[Evidence, bool]:
    """Scores both models and gathers what the gates look at.

    Args:
        settings: params.yaml.
        settled: the gates that hold.
        chosen: the baseline.
        trouble: why it cannot be had although it should be.

    Returns:
        The evidence, and whether the override excuses a baseline that is no longer comparable.

    Raises:
        UserError: If the model or the prepared data cannot be read.
    """
    splits = {name: prepared.Split.open(name) for name in ("train", "validation", "test")}
    data = read_json(prepared.FOLDER / "data.json")
    path = MODELS / "model.keras"
    network = engine.load(path)
    candidate = score(network, path, splits["test"], data["names"])
    count, uncounted = count_looks(data, path)
    found: dict[str, Any] = {
        "candidate": candidate,
        "missing": trouble or chosen.reason,
        "broken": bool(trouble) or settled.gates.rules.on_no_baseline == "fail",
    }
    excused = False
    if chosen.folder:
        try:
            found |= look_at_baseline(network, chosen, splits["test"], data)
        except UserError as error:
            excused = bool(settled.override)
            found |= {"missing": str(error), "broken": not excused}
    evidence = Evidence(
        objective=pick("objectives", data["objective"]),
        classes=data["names"],
        splits=splits,
        data=data,
        looks=count,
        uncounted=uncounted,
        widen=widening(settled.gates.declared, count),
        fingerprint=getattr(pick("tasks", settings.task), "fingerprint", None),
        **found,
    )
    return evidence, excused


def widening(declared: dict[str, Any], count: int | None) -> Callable[[float], float]:
    """Returns the confidence that a verdict must use, as a function of the one that was asked for."""

    def widen(confidence: float) -> float:
        for name, options in declared.items():
            gate = pick("gates", name)
            if count and hasattr(gate, "widen"):
                confidence = gate.widen(confidence, count, options)
        return confidence

    return widen


def look_at_baseline(
    network: Any, chosen: baseline.Baseline, test: prepared.Split, data: dict[str, Any]
) -> dict[str, Any]:
    """Scores the baseline beside the candidate; returns the parts of the evidence that this makes.

    One that is no commit's, but a folder that somebody names, is foreign (src/engine.py).

    Raises:
        UserError: If it cannot be loaded, or answers another question.
    """
    folder = chosen.folder
    assert folder
    check_comparable(folder, data)
    path = folder / "model.keras"
    identical = sha256(path) == sha256(MODELS / "model.keras")
    model = engine.load(path, foreign=chosen.revision is None and not identical)
    scored = score(model, path, test, data["names"])
    seconds, measured_by, sizes = measure_both([(MODELS, network), (folder, model)], test.inputs)
    return {
        "baseline": scored,
        "identical": identical,
        "missing": "",
        "latency": seconds,
        "engine": measured_by,
        "sizes": sizes,
    }


def score(network: Any, path: Path, test: prepared.Split, classes: list[str] | None) -> Model:
    """Scores a model on the test split.

    Raises:
        UserError: If it takes other inputs or knows other classes.
    """
    outputs = scoring.predict(network, test, path)
    if classes is not None and outputs.shape[1:] != (len(classes),):
        raise UserError(
            f"{path}: has {outputs.shape[-1]} outputs, expected one for each of {len(classes)} classes"
        )
    return Model(outputs, path.stat().st_size, network.count_params())


def check_comparable(folder: Path, data: dict[str, Any]) -> None:
    """Checks that the baseline answers the same question.

    Raises:
        UserError: If it predicts something else, has other classes, or takes other inputs.
    """
    known = read_json(folder / "inference.json")
    encoder = read_json(prepared.FOLDER / "encoder.json")
    here = {"objective": data["objective"], "classes": data["names"], "encoder": encoder}
    for key, what in (("objective", "objective"), ("classes", "classes"), ("encoder", "inputs")):
        if known.get(key) != here[key]:
            raise UserError(
                f"the baseline has other {what}, {_brief(known.get(key))}, than this model, "
                f"{_brief(here[key])}; to go on without a comparison, say why in gates.override"
            )


def _brief(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 160 else text[:157] + "…"


def measure_both(
    models: list[tuple[Path, Any]], inputs: np.ndarray
) -> tuple[np.ndarray, str, tuple[int, int]]:
    """Times candidate and baseline side by side, as ONNX, and weighs what of them is published.

    One that has no model.onnx, as the baseline of a commit, is made one here. Where that fails for either,
    both are timed as Keras runs them, and weighed without model.onnx.

    Args:
        models: The folder of candidate and baseline, and the model loaded.
        inputs: Encoded examples, of which one is used.

    Returns:
        (rounds, 2) seconds, what they were measured with, and the bytes of the files of each.
    """
    with tempfile.TemporaryDirectory() as scratch:
        paths: list[Path] = []
        for number, (folder, network) in enumerate(models):
            path = folder / "model.onnx"
            if not path.exists():
                path = Path(scratch) / f"{number}.onnx"
                with suppress(UserError):
                    conversion.convert(network, path)
            paths += [path] if path.exists() else []
        sizes = [(folder / "model.keras").stat().st_size for folder, _ in models]
        both = len(paths) == len(models)
        if both:
            runs = [scoring.one_example_onnx(path, inputs) for path in paths]
            sizes = [size + path.stat().st_size for size, path in zip(sizes, paths, strict=True)]
        else:
            runs = [scoring.one_example(network, inputs) for _, network in models]
        seconds = scoring.latencies(*runs)
    return seconds, "ONNX Runtime" if both else "Keras", (sizes[0], sizes[1])


def count_looks(data: dict[str, Any], path: Path) -> tuple[int | None, str]:
    """Returns how many models the test split has judged, or None and why they cannot be counted."""
    try:
        return looks.count(data["test_hash"], md5(path)), ""
    except UserError as error:
        return None, str(error)

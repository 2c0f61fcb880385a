"""Gathers what the gate let through into one folder, unchanged, with a model card and its provenance.

in:   build/gate/, src/models/, params.yaml, dvc.lock, build/run.json
out:  build/bundle/, whole or not at all

python -m src.publish.bundle
"""

import importlib.metadata
import os
import platform
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
from ruamel.yaml import YAML
from ruamel.yaml.compat import StringIO

from src import checksums, command
from src.errors import UserError
from src.files import read_json, replacing, sha256, write_json
from src.stores import PROVENANCE

GATE = Path("build/gate")
MODELS = Path("src/models")
BUNDLE = Path("build/bundle")
TEMPLATE = Path(__file__).with_name("card.md")
NEEDED = ("model.keras", "model.onnx", "inference.json", "history.json", "metrics.json", "report/index.html")
FORMAT = 1  # of provenance.json
# Names that Hugging Face has for what a model does, https://huggingface.co/tasks
PIPELINES = {
    f"{task}-{objective}"
    for task, objective in (
        ("image", "classification"),
        ("text", "classification"),
        ("audio", "classification"),
        ("tabular", "classification"),
        ("tabular", "regression"),
    )
}
LICENCES = {"MIT License": "mit", "Apache License": "apache-2.0", "BSD 3-Clause License": "bsd-3-clause"}


def main() -> None:
    """Runs the command."""
    command.parser(__doc__).parse_args()
    shutil.rmtree(BUNDLE, ignore_errors=True)  # an older one must not be published in its place
    gate = read_gate()
    with replacing(BUNDLE) as temporary:
        temporary.mkdir()
        collect(gate, temporary)
        provenance = describe(gate)
        inference = read_json(temporary / "inference.json")
        inference |= {key: provenance[key] for key in ("created", "commit")}
        write_json(temporary / "inference.json", inference)
        write_json(temporary / PROVENANCE, provenance)
        (temporary / "README.md").write_text(write_card(gate, inference, temporary))
        write_sums(temporary)
    print(
        f"{BUNDLE}: {sum(1 for path in BUNDLE.rglob('*') if path.is_file())} files, as the gate judged them"
    )


def read_gate() -> dict[str, Any]:
    """Reads the gate's verdict.

    Raises:
        UserError: If there is none, or it does not allow publishing.
    """
    path = GATE / "gate.json"
    if not path.exists():
        raise UserError(f"{path}: not found; run `make gate`, which makes it")
    gate: dict[str, Any] = read_json(path)
    against = [row for row in gate["gates"] if row["verdict"] != "pass"]
    if gate["verdict"] != "pass":
        reasons = "; ".join(f"{row['gate']}: {row['reason']}" for row in against)
        raise UserError(
            f"{path}: the verdict is {gate['verdict']!r} ({reasons}); only a model that passed is published"
        )
    return gate


def collect(gate: dict[str, Any], bundle: Path) -> None:
    """Copies the judged files and the verdict, and checks the copies.

    Args:
        gate: gate.json.
        bundle: The folder to fill.

    Raises:
        UserError: If a file is missing, was not judged, or is not the one that was judged.
    """
    report = gate["files"]
    for name in NEEDED:
        if str(MODELS / name) not in report:
            raise UserError(
                f"{GATE / 'gate.json'}: files: {MODELS / name} is missing; expected it to be judged"
            )
    for name, digest in report.items():
        path = Path(name)
        if not path.is_relative_to(MODELS) or ".." in path.parts:
            raise UserError(f"{GATE / 'gate.json'}: files: found {name!r}, expected only files in {MODELS}")
        if not path.is_file():
            raise UserError(f"{path}: not found; the gate judged it")
        copy = bundle / path.relative_to(MODELS)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
        # The copy, so that nothing can change between the check and the copying.
        if sha256(copy) != digest:
            raise UserError(f"{path}: is not the file that the gate judged; run `make gate` again")
    for path in (GATE / "gate.json", GATE / "gate.md", *sorted(GATE.glob("*.png"))):
        if not path.is_file():
            raise UserError(f"{path}: not found; run `make gate`, which makes it")
        shutil.copyfile(path, bundle / path.name)


def describe(gate: dict[str, Any]) -> dict[str, Any]:
    """Returns provenance.json: from what, by what and when the model was made."""
    reader = YAML(typ="safe")
    now = datetime.now(UTC).isoformat(timespec="seconds")
    record = read_json(command.RECORD) if command.RECORD.exists() else {}
    trained = datetime.fromisoformat(record.get("fit", {}).get("finished", now)).astimezone(UTC)
    packages = {found.metadata["Name"]: found.version for found in importlib.metadata.distributions()}
    lock = Path("dvc.lock")
    if not lock.exists():
        raise UserError(f"{lock}: not found; run `dvc repro`, which makes it")
    return {
        "format": FORMAT,
        "created": trained.isoformat(timespec="seconds"),
        "bundled": now,
        "commit": command.commit(),
        "tag": os.environ.get("CI_COMMIT_TAG"),
        "job": os.environ.get("CI_JOB_URL"),
        "verdict": gate["verdict"],
        "files": {str(Path(name).relative_to(MODELS)): digest for name, digest in gate["files"].items()},
        "dvc.lock": {"sha256": sha256(lock), "stages": summarise_lock(reader.load(lock))},
        "parameters": reader.load(Path("params.yaml")),
        "python": platform.python_version(),
        "packages": dict(sorted(packages.items(), key=lambda item: item[0].lower())),
        "requirements.lock": sha256("requirements.lock") if Path("requirements.lock").exists() else None,
    }


def summarise_lock(lock: dict[str, Any]) -> dict[str, dict[str, dict[str, str]]]:
    """Returns, for each stage of dvc.lock, the MD5 of each dependency and output."""
    return {
        name: {
            kind: {item["path"]: item["md5"] for item in stage.get(kind, []) if "md5" in item}
            for kind in ("deps", "outs")
        }
        for name, stage in lock["stages"].items()
    }


def write_card(gate: dict[str, Any], inference: dict[str, Any], bundle: Path) -> str:
    """Returns the model card: Markdown under the fields that Hugging Face reads."""
    history = read_json(bundle / "history.json")
    front = StringIO()
    writer = YAML()
    writer.width = 1000
    writer.dump(front_matter(gate, inference), front)
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["number"] = show
    return environment.from_string(TEMPLATE.read_text()).render(
        front=front.getvalue(),
        name=title(inference),
        gate=gate,
        inference=inference,
        commit=inference["commit"],
        created=inference["created"],
        compared=any(row["baseline"] is not None for row in gate["metrics"]),
        override=gate["limits"]["override"],
        epochs=len(history),
        predictions=(bundle / "predictions.parquet").exists(),
        best=min(history, key=lambda epoch: epoch["val_loss"])["epoch"],
        data_card=find_data_card(inference["data"]["path"]),
        limits=list_limits(gate, read_json(bundle / "metrics.json")),
    )


def title(inference: dict[str, Any]) -> str:
    """Returns the model's name: that of its data and its architecture."""
    return f"{Path(inference['data']['path']).stem}-{inference['architecture']['name']}"


def front_matter(gate: dict[str, Any], inference: dict[str, Any]) -> dict[str, Any]:
    """Returns the card's metadata: https://huggingface.co/docs/hub/model-cards#model-card-metadata."""
    pipeline = f"{inference['task_type']}-{inference['objective']}"
    known = {"pipeline_tag": pipeline} if pipeline in PIPELINES else {}
    dataset = Path(inference["data"]["path"]).stem
    measured = [
        {"type": row["metric"], "value": row["candidate"], "name": row["metric"].replace("_", " ")}
        for row in gate["metrics"]
    ]
    job = os.environ.get("CI_JOB_URL")
    result: dict[str, Any] = {
        "task": {"type": pipeline},
        "dataset": {
            "type": dataset,
            "name": dataset,
            "split": "test",
            "args": {"examples": gate["test"]["examples"], "hash": gate["test"]["hash"]},
        },
        "metrics": measured,
    }
    if job:  # the field is a link, or is left out
        result["source"] = {"name": "the gate's verdict", "url": job}
    return {
        **find_licence(),
        "library_name": "keras",
        **known,
        "tags": ["keras", "onnx", inference["task_type"], inference["architecture"]["name"]],
        "datasets": [dataset],
        "metrics": [row["metric"] for row in gate["metrics"]],
        "model-index": [{"name": title(inference), "results": [result]}],
    }


def find_licence() -> dict[str, str]:
    """Returns the licence of the repository, by its name on Hugging Face where it has one."""
    path = Path("LICENSE")
    first = path.read_text().strip().splitlines()[0].strip() if path.exists() else ""
    if first in LICENCES:
        return {"license": LICENCES[first]}
    return {"license": "other", "license_name": first or "unknown"}


def find_data_card(path: str) -> str | None:
    """Returns the card of the dataset, its headings in bold so that they do not mix with the model's."""
    card = Path(path) / "README.md"
    if not card.exists():
        return None
    lines = card.read_text().strip().splitlines()
    return "\n".join(f"**{line.lstrip('# ')}**" if line.startswith("#") else line for line in lines)


def list_limits(gate: dict[str, Any], metrics: dict[str, Any]) -> list[str]:
    """Returns what a user should know before relying on the model, a sentence each."""
    limits = [
        f"{row['gate'].replace('_', ' ')}: {row['verdict']}, with a warning: {row['reason']}"
        for row in gate["gates"]
        if row["warning"]
    ]
    limits += [
        f"The limit {row['key']} was loosened from {row['target']} to {row['candidate']}."
        for row in gate["limits"]["loosened"]
    ]
    classes = metrics.get("classes") or {}
    worst = sorted(classes, key=lambda name: classes[name]["recall"])[:3] if len(classes) > 3 else []
    if worst:
        found = ", ".join(f"{name} ({classes[name]['recall']:.0%})" for name in worst)
        limits.append(f"It finds some classes less often than others; the least often: {found}.")
    if gate["looks"] and gate["looks"] > 1:
        limits.append(
            f"The test split has judged {gate['looks']} models, so its figures are slightly flattering."
        )
    return limits


def show(value: float | None) -> str:
    """Returns a number as a table shows it."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def write_sums(bundle: Path) -> None:
    """Writes SHA256SUMS."""
    files = [path for path in bundle.rglob("*") if path.is_file()]
    sums = {str(path.relative_to(bundle)): sha256(path) for path in files}
    (bundle / checksums.SUMS).write_text(checksums.written(sums))


if __name__ == "__main__":
    command.run(main)

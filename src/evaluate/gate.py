"""Judges the model: passes it, fails it, or says that the test set is too small to tell.

in:   params.yaml (gates), src/models/, build/prepared/, the target branch and the baseline from git and DVC
out:  build/gate/: gate.json (all that was decided), gate.md (for the merge request), gates.xml (JUnit),
      newly_broken.png, curves.png

The model and the baseline are scored here, on the test split; no score that a file claims counts. The limits
are the target branch's wherever those are stricter. Exits with 0 if the model may pass, else with 1.

python -m src.evaluate.gate [--target BRANCH] [--baseline FOLDER]
"""

import argparse
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src import command, git, params, prepared
from src.errors import UserError
from src.files import read_json, replacing, write_json
from src.judgement import baseline, claims, limits, verdict
from src.judgement.evidence import Evidence, Verdict
from src.judgement.gather import MODELS, choose_baseline, gather
from src.pictures import draw_curves, draw_examples, encode_png
from src.plugin import pick

GATE = Path("build/gate")
SHOWN = 0.95  # confidence of the intervals beside the metrics; the gates have their own
# What a merge request is about. Whatever else it changes may be part of the gate: the verdict names it.
SUBJECT = (
    *("datasets", "params.yaml", "dvc.lock", "src/models", "src/architectures", "src/tasks"),
    *("recipes", "README.md", "LICENSE"),
)


def main() -> None:
    """Runs the command."""
    arguments = parse()
    shutil.rmtree(
        GATE, ignore_errors=True
    )  # an older verdict must not outlive a gate that stops with an error
    settings = params.load()
    revision = find_target(arguments.target)
    settled = settle(settings.gates, revision)
    files = claims.hash_files()
    with tempfile.TemporaryDirectory(prefix="sluice-") as scratch:
        chosen, trouble = choose_baseline(Path(scratch), arguments.target, arguments.baseline)
        try:
            evidence, excused = gather(settings, settled, chosen, trouble)
        except UserError as error:  # no evidence, no pass: every gate says why
            outcome = refuse(str(error), settled, chosen, files, revision)
            write(outcome, settings, None)
        else:
            outcome = decide(evidence, excused, settled, chosen, files, revision)
            write(outcome, settings, evidence)
    print(verdict.to_table(outcome))
    print(f"{GATE / 'gate.md'} tells the whole story")
    sys.exit(outcome.verdict != "pass")


def parse() -> argparse.Namespace:
    """Reads the command line."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--target", metavar="BRANCH", help="whose limits hold, and whose model is the baseline"
    )
    parser.add_argument(
        "--baseline", metavar="FOLDER", type=Path, help="a model's folder to compare with instead"
    )
    return parser.parse_args()


# ── The limits ─────────────────────────────────────────────────────────────────────────────────────────


def find_target(target: str | None) -> str | None:
    """Returns the commit of the branch whose limits hold, None where there is no such branch.

    Raises:
        UserError: If the target branch is not in this clone.
    """
    name = target or baseline.target_branch()
    revision = name and baseline.resolve(name)
    if name and not revision:
        raise UserError(f"git: the target branch {name!r} is not in this clone; run `git fetch origin`")
    return revision


def settle(own: params.Gates, revision: str | None) -> limits.Limits:
    """Returns the gates to apply: this checkout's, and the target branch's where they are stricter.

    Raises:
        UserError: If no gate is declared.
    """
    text = baseline.show(revision, str(params.PATH)) if revision else None
    settled = limits.settle(own, text, f"{revision}:{params.PATH}")
    if not settled.gates.declared:
        raise UserError(f"{params.PATH}: gates: declares no gate, expected one at least, such as `minimum:`")
    return settled


# ── The verdict ────────────────────────────────────────────────────────────────────────────────────────


def decide(
    evidence: Evidence,
    excused: bool,
    settled: limits.Limits,
    chosen: baseline.Baseline,
    files: dict[str, str],
    revision: str | None,
) -> verdict.Outcome:
    """Asks every gate, and puts what else a person should know beside the answers."""
    return verdict.Outcome(
        gates=judge(evidence, settled.gates.declared),
        limits=settled,
        excused=excused,
        baseline={"source": chosen.source, "revision": chosen.revision, "reason": chosen.reason},
        looks=evidence.looks,
        metrics=measure(evidence),
        parameters=changed_parameters(chosen.revision),
        test={
            "examples": len(evidence.test),
            "hash": evidence.data.get("test_hash"),
            "changed": test_changed(evidence.data, chosen.folder),
        },
        files=files,
        contradictions=claims.find_contradictions(evidence),
        notes=find_edits(revision),
    )


def refuse(
    reason: str,
    settled: limits.Limits,
    chosen: baseline.Baseline,
    files: dict[str, str],
    revision: str | None,
) -> verdict.Outcome:
    """Returns the outcome where the model could not be scored at all."""
    answer = Verdict("fail", f"The model cannot be judged: {reason.rstrip('.')}.")
    return verdict.Outcome(
        gates=dict.fromkeys(settled.gates.declared, answer),
        limits=settled,
        excused=False,
        baseline={"source": chosen.source, "revision": chosen.revision, "reason": chosen.reason},
        looks=None,
        metrics=[],
        parameters=changed_parameters(chosen.revision),
        test={"examples": None, "hash": None, "changed": None},
        files=files,
        contradictions=[],
        notes=find_edits(revision),
    )


def judge(evidence: Evidence, declared: dict[str, Any]) -> dict[str, Verdict]:
    """Asks every gate; one that cannot work with its options fails and says so."""
    verdicts = {}
    for name, options in declared.items():
        try:
            verdicts[name] = pick("gates", name).judge(evidence, options)
        except UserError as error:
            verdicts[name] = Verdict("fail", f"{error}.")
    return verdicts


def measure(evidence: Evidence) -> list[dict[str, Any]]:
    """Returns every metric of the objective beside the baseline's, with intervals for display."""
    rows = []
    for name in evidence.objective.MEASURES:
        metric = evidence.metric(name, "")
        found = metric.measure(evidence.labels, evidence.candidate.outputs, SHOWN, 2).interval
        row: dict[str, Any] = {
            "metric": name,
            "candidate": found.estimate,
            "baseline": None,
            "difference": None,
        }
        row |= {"lower": None, "upper": None, "candidate_lower": found.lower, "candidate_upper": found.upper}
        if evidence.baseline is not None:
            outputs = evidence.candidate.outputs, evidence.baseline.outputs
            change = metric.compare(evidence.labels, *outputs, SHOWN, 2).interval
            row |= {"baseline": found.estimate - change.estimate, "difference": change.estimate}
            row |= {"lower": change.lower, "upper": change.upper}
        rows.append(
            {
                key: None if isinstance(value, float) and not np.isfinite(value) else value
                for key, value in row.items()
            }
        )
    return rows


def find_edits(revision: str | None) -> list[str]:
    """Says which files of the gate itself differ from the target branch's: a person must judge those."""
    base = revision and git.merge_base(revision, "HEAD")
    excluded = [f":(exclude){path}" for path in SUBJECT]
    changed = git.run("diff", "-z", "--name-only", "--relative", base, "--", ".", *excluded) if base else None
    names = [name for name in (changed or b"").decode(errors="replace").split("\0") if name]
    return [f"This change edits what judges it, or may: {', '.join(names)}."] if names else []


def changed_parameters(revision: str | None) -> list[dict[str, Any]]:
    """Returns what params.yaml says otherwise than at the baseline's commit."""
    text = baseline.show(revision, str(params.PATH)) if revision else None
    if text is None:
        return []
    was = claims.flatten(params.parse(text, f"{revision}:{params.PATH}"))
    now = claims.flatten(params.parse(params.PATH.read_bytes(), params.PATH))
    return [
        {"key": key, "baseline": was.get(key), "candidate": now.get(key)}
        for key in dict.fromkeys([*now, *was])
        if was.get(key) != now.get(key)
    ]


def test_changed(data: dict[str, Any], folder: Path | None) -> bool | None:
    """Whether the baseline was made with another test split; None if that is not known."""
    path = folder and folder / "inference.json"
    if not path or not path.exists():
        return None
    known = claims.parse(path.read_bytes()).get("data.test_hash")
    return None if known is None else bool(known != data.get("test_hash"))


# ── The files ──────────────────────────────────────────────────────────────────────────────────────────


def write(outcome: verdict.Outcome, settings: params.Params, evidence: Evidence | None) -> None:
    """Writes build/gate whole."""
    task = pick("tasks", settings.task)
    pictures: dict[str, str] = {}
    with replacing(GATE) as folder:
        folder.mkdir()
        with suppress(UserError, KeyError, ValueError, AttributeError):  # no curves, but a verdict
            curves = draw_curves(pd.DataFrame(read_json(MODELS / "history.json")))
            (folder / "curves.png").write_bytes(encode_png(curves))
            pictures["curves.png"] = "Learning curves"
        for answer in outcome.gates.values():
            for name, shown in answer.shown.items():
                assert evidence is not None  # without it no gate was asked
                encoder = task.Encoder.load(prepared.FOLDER)
                figure = draw_examples(encoder, task.CELL, evidence.test.inputs, shown)
                (folder / f"{name}.png").write_bytes(encode_png(figure))
                pictures[f"{name}.png"] = f"{name.replace('_', ' ').capitalize()}: {shown.attrs['caption']}"
        write_json(folder / "gate.json", outcome.to_json())
        (folder / "gate.md").write_text(verdict.to_markdown(outcome, pictures))
        (folder / "gates.xml").write_bytes(verdict.to_junit(outcome))


if __name__ == "__main__":
    command.run(main)

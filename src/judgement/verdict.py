"""The whole verdict, and how it is told: gate.json, gate.md, gates.xml, and a table in the terminal."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jinja2

from src.judgement.evidence import Answer, Verdict, say_confidence, say_number
from src.judgement.limits import Limits

TEMPLATE = Path(__file__).with_suffix(".md.jinja")
REPORT = "src/models/report/index.html"
WARNING = "⚠️"
SIGNS = {"pass": "✅", "fail": "❌", "not enough data": "❔"}


@dataclass(frozen=True)
class Outcome:
    """All that was decided, and on what grounds.

    Args:
        gates: each gate's verdict, in the order of params.yaml.
        limits: the gates that held, and what was loosened.
        excused: what else fails but for the override: a baseline that is no longer comparable.
        baseline: `source`, `revision`, `reason`.
        looks: models that the test split has judged; None if they could not be counted.
        metrics: rows for gate.json.
        parameters: rows of `key`, `baseline`, `candidate`: what differs.
        test: `examples`, `hash`, `changed`.
        files: path → SHA-256 of what was judged.
        contradictions: sentences on what the model's own files claim and the gate did not find; each fails.
        notes: sentences on what a person should look at.
    """

    gates: dict[str, Verdict]
    limits: Limits
    excused: bool
    baseline: dict[str, Any]
    looks: int | None
    metrics: list[dict[str, Any]]
    parameters: list[dict[str, Any]]
    test: dict[str, Any]
    files: dict[str, str]
    contradictions: list[str]
    notes: list[str]

    @property
    def override(self) -> str | None:
        """The reason for the exceptions that were made; None if none was."""
        return self.limits.override if self.limits.loosened or self.excused else None

    @property
    def tolerant(self) -> bool:
        """Whether a lack of data only warns."""
        return self.limits.gates.rules.on_not_enough_data == "warn"

    @property
    def verdict(self) -> Answer:
        """The whole: as good as the worst gate; a loosened limit or a false claim fails by itself."""
        answers = {verdict.verdict for verdict in self.gates.values()}
        if "fail" in answers or self.contradictions or (self.limits.loosened and not self.override):
            return "fail"
        return "not enough data" if "not enough data" in answers and not self.tolerant else "pass"

    def with_answer(self, *answers: str) -> list[str]:
        """Returns the gates that answered so."""
        return [name for name, verdict in self.gates.items() if verdict.verdict in answers]

    def warns(self, name: str) -> bool:
        """Whether a gate lets the model through, but not without a word."""
        verdict = self.gates[name]
        return verdict.warning or (self.tolerant and verdict.verdict == "not enough data")

    def sentence(self) -> str:
        """Returns the verdict in one sentence."""
        failed, unsure = self.with_answer("fail"), self.with_answer("not enough data")
        loosened = [entry.key for entry in self.limits.loosened]
        if self.verdict == "not enough data":
            return f"Not enough data: {_list(unsure)} cannot tell with so few test examples."
        if self.verdict == "fail":
            reasons = [f"{_list(failed)} failed"] if failed else []
            reasons += [f"{_list(unsure)} had not enough data"] if unsure else []
            if loosened and not self.override:
                reasons.append(
                    f"{_list(loosened)} would be looser than on the target branch, which takes a reason in "
                    "gates.override that is not there already"
                )
            reasons += ["the model's files claim what was not found"] if self.contradictions else []
            return f"Fail: {'; '.join(reasons)}."
        text = f"Pass: all {len(self.gates)} gates let this model through"
        warned = [name for name in self.gates if self.warns(name)]
        text += f", with a warning by {_list(warned)}" if warned else ""
        text += ", on another test set than the baseline's" if self.test["changed"] else ""
        text += f", by the exception that was asked for: {self.override}" if self.override else ""
        return text + ("" if text.endswith(".") else ".")

    def to_json(self) -> dict[str, Any]:
        """Returns gate.json."""
        gates = [
            {**verdict.to_json(name), "warning": self.warns(name)} for name, verdict in self.gates.items()
        ]
        loosened = [entry.to_json() for entry in self.limits.loosened]
        return {
            "verdict": self.verdict,
            "sentence": self.sentence(),
            "gates": gates,
            "baseline": self.baseline,
            "limits": {"loosened": loosened, "override": self.override},
            "looks": self.looks,
            "metrics": self.metrics,
            "parameters": self.parameters,
            "test": self.test,
            "contradictions": self.contradictions,
            "notes": self.notes,
            "files": self.files,
        }


def to_table(outcome: Outcome) -> str:
    """Returns what the terminal shows: a row for each gate, and a sentence for each."""
    head = ("gate", "verdict", "value", "interval", "confidence", "limit", "examples", "needed")
    rows = [
        (
            name,
            verdict.verdict + (" (warning)" if outcome.warns(name) else ""),
            _number(verdict.estimate),
            _interval(verdict.lower, verdict.upper),
            "–" if verdict.confidence is None else say_confidence(verdict.confidence),
            _number(verdict.limit),
            _number(verdict.examples),
            _number(verdict.needed),
        )
        for name, verdict in outcome.gates.items()
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in (head, *rows)
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    lines += [
        "",
        *(
            f"{WARNING if outcome.warns(name) else SIGNS[verdict.verdict]} {name}: {verdict.reason}"
            for name, verdict in outcome.gates.items()
        ),
    ]
    lines += ["", f"baseline: {outcome.baseline['reason']}"]
    for entry in outcome.limits.loosened:
        lines.append(f"loosened: {entry.key} is {entry.candidate}, on the target branch {entry.target}")
    lines += [f"override: {outcome.override}"] if outcome.override else []
    lines += [f"note: {note}" for note in outcome.notes]
    return "\n".join([*map(str.rstrip, lines), "", outcome.sentence()])


def to_junit(outcome: Outcome) -> bytes:
    """Returns gates.xml: a test case for each gate, and one for the limits if any was loosened."""
    cases = {
        name: (verdict.reason, verdict.verdict != "pass" and not outcome.warns(name), verdict.verdict)
        for name, verdict in outcome.gates.items()
    }
    if outcome.limits.loosened:
        told = ", ".join(
            f"{entry.key} is {entry.candidate}, on the target branch {entry.target}"
            for entry in outcome.limits.loosened
        )
        told += f"; override: {outcome.override}" if outcome.override else ""
        cases["limits"] = (f"Loosened: {told}.", not outcome.override, "fail")
    failures = sum(failed for _, failed, _ in cases.values())
    suite = ElementTree.Element("testsuite", name="gates", tests=str(len(cases)), failures=str(failures))
    for name, (reason, failed, kind) in cases.items():
        case = ElementTree.SubElement(suite, "testcase", classname="gates", name=name, time="0")
        if failed:
            ElementTree.SubElement(case, "failure", message=_plain(reason), type=kind).text = _plain(reason)
        else:
            ElementTree.SubElement(case, "system-out").text = _plain(reason)
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    content: bytes = ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True)
    return content


def to_markdown(outcome: Outcome, pictures: dict[str, str]) -> str:
    """Returns gate.md, the note of the merge request.

    Args:
        outcome: what was decided.
        pictures: file name → caption, of the pictures beside gate.md.
    """
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters |= {"text": _escape, "number": _number, "signed": lambda value: _number(value, True)}
    job = os.environ.get("CI_JOB_URL")
    return environment.from_string(TEMPLATE.read_text()).render(
        outcome=outcome,
        signs=SIGNS,
        interval=_interval,
        pictures=pictures,
        report=f"{job}/artifacts/file/{REPORT}" if job else f"../../{REPORT}",
    )


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"


def _number(value: float | None, signed: bool = False) -> str:
    """Returns a number for a table: whole ones with separators, others with four digits, none as a dash."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else say_number(value, signed)


def _interval(lower: float | None, upper: float | None, signed: bool = False) -> str:
    if lower is None and upper is None:
        return "–"
    low = "-∞" if lower is None else say_number(lower, signed)
    return f"{low} … {'∞' if upper is None else say_number(upper, signed)}"


def _plain(text: str) -> str:
    """Drops the characters that no XML file may hold."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\N{REPLACEMENT CHARACTER}", text)


def _escape(value: Any) -> str:
    """Returns a text that Markdown shows as it is: one line, no table cell, HTML, link, mention or picture.

    What stands in a params.yaml, a class name or a file name is written by whoever opens the merge request.
    """
    line = " ".join(str(value).split())
    return re.sub(r"[&<>|`*\[\]@~\\!$]", lambda found: f"&#{ord(found[0])};", line)

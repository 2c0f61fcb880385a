"""Each gate on evidence made to measure: it passes, fails, and says when there is not enough data."""

import inspect
import io
import json
import math
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML

from src import params
from src.errors import UserError
from src.judgement import limits, verdict
from src.judgement.evidence import Evidence, Model, Verdict, say_confidence
from src.objectives import classification
from src.plugin import names, pick
from src.prepared import Split
from src.statistics import confidence_after_looks
from src.tasks import image

CLASSES = ["ant", "bee", "cat", "dog"]


def rows(right: int, examples: int) -> np.ndarray:
    """So many right answers among so many, evenly spread over the classes."""
    answers = np.zeros(examples, dtype=bool)
    answers[np.linspace(0, examples - 1, right).round().astype(int)] = True
    return answers


def answers(labels: np.ndarray, right: np.ndarray, sure: float = 0.9) -> np.ndarray:
    """Outputs of a model that is right where it is told to be, and `sure` of everything."""
    outputs = np.full((len(labels), len(CLASSES)), (1 - sure) / (len(CLASSES) - 1))
    chosen = np.where(right, labels, (labels + 1) % len(CLASSES))
    outputs[np.arange(len(labels)), chosen] = sure
    return outputs.astype(np.float32)


def split(examples: int, seed: int) -> Split:
    random = np.random.default_rng(seed)
    labels = (np.arange(examples) % len(CLASSES)).astype(np.int32)
    table = pd.DataFrame(
        {"id": [f"{seed}/{row}" for row in range(examples)], "label": np.array(CLASSES)[labels]}
    )
    return Split(random.integers(0, 256, (examples, 9, 9, 1), dtype=np.uint8), labels, table)


def evidence(right: np.ndarray, baseline: np.ndarray | None = None, sure: float = 0.9, **changes) -> Evidence:
    splits = {"train": split(80, 1), "validation": split(20, 2), "test": split(len(right), 3)}
    labels = splits["test"].labels
    other = None if baseline is None else Model(answers(labels, baseline), 1_000_000, 1000)
    content = {
        "objective": classification,
        "classes": CLASSES,
        "splits": splits,
        "data": {"bad": []},
        "candidate": Model(answers(labels, right, sure), 1_000_000, 1000),
        "baseline": other,
        "fingerprint": image.fingerprint,
    }
    return Evidence(**{**content, **changes})


def judge(name: str, of: Evidence, **options) -> Any:
    gate = pick("gates", name)
    answer = gate.judge(of, gate.Options.model_validate(options))
    json.dumps(answer.to_json(name), allow_nan=False)
    assert answer.reason.endswith(".")
    return answer


# ── The promise ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", names("gates"))
def test_a_gate_keeps_the_promise_of_its_folder(name):
    gate = pick("gates", name)
    assert gate.__doc__
    assert gate.judge.__doc__
    assert issubclass(gate.Options, BaseModel)
    assert gate.Options() == gate.Options.model_validate(gate.Options().model_dump())
    with pytest.raises(ValidationError, match="Extra inputs"):
        gate.Options.model_validate({"no such key": 1})
    assert list(inspect.signature(gate.judge).parameters) == ["evidence", "options"]


@pytest.mark.parametrize("name", names("gates"))
def test_a_gate_says_of_each_of_its_keys_which_value_is_stricter(name):
    gate = pick("gates", name)
    assert set(gate.STRICTER) == set(gate.Options.model_fields)
    for key, stricter in gate.STRICTER.items():
        default = getattr(gate.Options(), key)
        assert stricter(default, default) == default


@pytest.mark.parametrize("name", names("gates"))
def test_a_gate_judges_with_its_defaults(name):
    both = rows(990, 1000)
    answer = judge(name, evidence(both, both, sure=0.99, latency=np.full((50, 2), 0.01)))
    assert answer.verdict == "pass", answer.reason


def test_reading_the_parameters_of_a_training_imports_no_statistics():
    program = "import sys\nfrom src import params\nfrom src.plugin import names, pick\n"
    program += "[pick('gates', name) for name in names('gates')]\nprint('scipy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


# ── minimum, maximum, calibration ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("right", "expected"), [(960, "pass"), (840, "fail"), (905, "not enough data"), (900, "not enough data")]
)
def test_minimum_holds_the_bound_and_not_the_value_against_the_limit(right, expected):
    answer = judge("minimum", evidence(rows(right, 1000)), limit=0.9)
    assert answer.verdict == expected
    assert (answer.estimate, answer.examples, answer.limit) == (right / 1000, 1000, 0.9)
    assert answer.lower < answer.estimate < answer.upper


def test_minimum_says_how_many_examples_would_do_and_keeps_that_promise():
    answer = judge("minimum", evidence(rows(186, 200)), limit=0.9)
    assert answer.verdict == "not enough data"
    assert answer.needed > 200
    assert f"{answer.needed:,}" in answer.reason
    random = np.random.default_rng(0)
    passed = [
        judge("minimum", evidence(random.random(answer.needed) < 0.93), limit=0.9).verdict == "pass"
        for _ in range(300)
    ]
    assert np.mean(passed) == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / 300) + 0.02)


def test_minimum_promises_nothing_where_the_value_is_the_limit():
    answer = judge("minimum", evidence(rows(900, 1000)), limit=0.9)
    assert answer.needed is None
    assert "no number of examples would" in answer.reason


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_minimum_takes_every_metric_of_which_more_is_better(metric):
    assert judge("minimum", evidence(rows(960, 1000)), metric=metric, limit=0.9).verdict == "pass"
    assert judge("minimum", evidence(rows(800, 1000)), metric=metric, limit=0.9).verdict == "fail"


def test_a_metric_of_the_wrong_direction_or_name_is_an_error_that_says_what_to_do():
    of = evidence(rows(90, 100))
    with pytest.raises(UserError, match=r"gates\.minimum\.metric: of log_loss less is better; use .*maximum"):
        judge("minimum", of, metric="log_loss")
    with pytest.raises(UserError, match=r"gates\.maximum\.metric: of accuracy more is better"):
        judge("maximum", of, metric="accuracy")
    with pytest.raises(UserError, match=r"no 'acuracy', .*did you mean 'accuracy'"):
        judge("minimum", of, metric="acuracy")
    with pytest.raises(UserError, match=r"gates\.flips\.metric: found 'log_loss', expected a share"):
        judge("flips", of, metric="log_loss")


@pytest.mark.parametrize(("right", "expected"), [(960, "pass"), (800, "fail"), (915, "not enough data")])
def test_maximum_holds_a_loss_under_its_limit(right, expected):
    # Right answers cost 0.105, wrong ones 3.40: 0.3 is where 94 % are right.
    answer = judge("maximum", evidence(rows(right, 1000)), limit=0.36)
    assert answer.verdict == expected


@pytest.mark.parametrize(("sure", "expected"), [(0.9, "pass"), (0.99, "fail"), (0.945, "not enough data")])
def test_calibration_asks_whether_stated_probabilities_come_true(sure, expected):
    assert judge("calibration", evidence(rows(900, 1000), sure=sure), limit=0.05).verdict == expected


# ── no_regression and flips ────────────────────────────────────────────────────────────────────────────


def swapped(examples: int, wins: int, losses: int) -> tuple[np.ndarray, np.ndarray]:
    """A candidate and a baseline that differ on so many examples."""
    baseline = np.ones(examples, dtype=bool)
    baseline[:wins] = False
    candidate = np.ones(examples, dtype=bool)
    candidate[wins : wins + losses] = False
    return candidate, baseline


@pytest.mark.parametrize(
    ("wins", "losses", "expected"),
    [(20, 10, "pass"), (0, 60, "fail"), (20, 30, "not enough data"), (0, 0, "pass")],
)
def test_no_regression_compares_on_the_same_examples(wins, losses, expected):
    answer = judge("no_regression", evidence(*swapped(1000, wins, losses)), margin=0.015)
    assert answer.verdict == expected
    assert answer.estimate == pytest.approx((wins - losses) / 1000)


def test_no_regression_promises_a_number_of_examples_and_keeps_it():
    answer = judge("no_regression", evidence(*swapped(500, 15, 15)), margin=0.015)
    assert answer.verdict == "not enough data"
    random, passed = np.random.default_rng(0), []
    for _ in range(120):
        kind = random.random(answer.needed)
        of = evidence(kind > 0.03, (kind <= 0.03) | (kind > 0.06))
        passed.append(judge("no_regression", of, margin=0.015).verdict == "pass")
    assert np.mean(passed) == pytest.approx(0.8, abs=3 * math.sqrt(0.8 * 0.2 / 120) + 0.03)


@pytest.mark.parametrize(
    ("wins", "losses", "expected"), [(50, 20, "pass"), (0, 150, "fail"), (10, 25, "not enough data")]
)
def test_no_regression_of_a_loss_counts_upwards(wins, losses, expected):
    answer = judge("no_regression", evidence(*swapped(1000, wins, losses)), metric="log_loss", margin=0.05)
    assert answer.verdict == expected
    assert answer.limit == 0.05


@pytest.mark.parametrize(
    ("losses", "expected"), [(20, "pass"), (80, "fail"), (48, "not enough data"), (0, "pass")]
)
def test_flips_counts_what_was_right_and_is_wrong_and_shows_it(losses, expected):
    answer = judge("flips", evidence(*swapped(1000, losses, losses)), limit=0.05)
    assert answer.verdict == expected
    assert answer.estimate == losses / 1000
    if losses:
        shown = answer.shown["newly_broken"]
        assert set(shown.index) <= set(range(losses, 2 * losses))
        first = answer.details[0]
        assert first["was"] == first["label"] != first["now"]
        assert first["id"] == f"3/{shown.index[0]}"


@pytest.mark.parametrize("name", ["no_regression", "flips", "budget"])
def test_without_a_baseline_a_gate_says_so_and_with_a_broken_one_it_fails(name):
    absent = judge(name, evidence(rows(90, 100), missing="none: it is the first commit"))
    assert (absent.verdict, absent.warning) == ("pass", True)
    assert "it is the first commit" in absent.reason
    broken = judge(name, evidence(rows(90, 100), missing="the remote lacks it", broken=True))
    assert broken.verdict == "fail"
    assert "the remote lacks it" in broken.reason


# ── slices ─────────────────────────────────────────────────────────────────────────────────────────────


def by_class(*right: float, examples: int = 400) -> np.ndarray:
    """A model with the given accuracy in each class."""
    place = np.arange(examples) // len(CLASSES)
    share = np.array(right)[np.arange(examples) % len(CLASSES)]
    return place < share * examples / len(CLASSES)


@pytest.mark.parametrize(("worst", "expected"), [(0.95, "pass"), (0.4, "fail"), (0.75, "not enough data")])
def test_slices_finds_the_class_that_falls_through(worst, expected):
    answer = judge("slices", evidence(by_class(1, 0.95, worst, 0.97)), limit=0.7)
    assert answer.verdict == expected
    assert len(answer.details) == len(CLASSES)
    if expected != "pass":
        assert answer.details[0]["slice"] == "cat"
        assert "'cat'" in answer.reason
    assert (answer.needed is not None) == (expected == "not enough data")


def test_slices_can_have_a_floor_of_their_own():
    of = evidence(by_class(1, 0.95, 0.6, 0.97))
    assert judge("slices", of, limit=0.8).verdict == "fail"
    assert judge("slices", of, limit={"default": 0.8, "cat": 0.4}).verdict == "pass"
    with pytest.raises(UserError, match=r"no test example has label 'cet'; did you mean 'cat'"):
        judge("slices", of, limit={"default": 0.8, "cet": 0.4})
    with pytest.raises(ValidationError, match="default"):
        judge("slices", of, limit={"cat": 0.4})


def test_slices_looks_at_any_column_of_the_table():
    of = evidence(by_class(1, 1, 0.1, 1))
    of.test.table["camera"] = ["old" if label == "cat" else None for label in of.test.table["label"]]
    answer = judge("slices", of, by="camera", limit=0.6)
    assert [(row["slice"], row["verdict"]) for row in answer.details] == [("old", "fail"), ("none", "pass")]
    with pytest.raises(UserError, match=r"no column 'camra', only id, label, camera; did you mean 'camera'"):
        judge("slices", of, by="camra")
    with pytest.raises(UserError, match="400 values"):
        judge("slices", of, by="id")


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_slices_let_no_bad_slice_through_more_often_than_they_say(metric):
    random, passed = np.random.default_rng(0), 0
    for _ in range(60):
        of = evidence(random.random(480) < 0.8)
        passed += judge("slices", of, limit=0.8, metric=metric, confidence=0.9).verdict != "not enough data"
    # All four slices are exactly at their floor: a pass of all, or a fail of one, are both wrong.
    assert passed / 60 <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 60)


# ── budget, data, looks ────────────────────────────────────────────────────────────────────────────────


def test_budget_holds_size_and_parameters_exactly():
    of = evidence(rows(90, 100))
    assert judge("budget", of, megabytes=1.0, parameters=1000, latency=None).verdict == "pass"
    assert judge("budget", of, megabytes=0.99, latency=None).verdict == "fail"
    assert judge("budget", of, parameters=999, latency=None).verdict == "fail"


@pytest.mark.parametrize(("ratio", "expected"), [(1.0, "pass"), (2.0, "fail"), (1.5, "not enough data")])
def test_budget_compares_latencies_by_their_median_ratio(ratio, expected):
    random = np.random.default_rng(0)
    seconds = random.gamma(9, 0.001, (100, 1)) * np.array([[ratio, 1.0]]) * random.lognormal(0, 0.1, (100, 2))
    seconds[:5] *= 50  # what else the machine does, now and then
    answer = judge("budget", evidence(rows(90, 100), rows(90, 100), latency=seconds), latency=1.5)
    assert answer.verdict == expected
    assert answer.lower < answer.estimate < answer.upper


@pytest.mark.parametrize(
    ("sizes", "expected"), [((1_500_000, 1_000_000), "pass"), ((1_500_001, 1_000_000), "fail")]
)
def test_budget_compares_what_is_published_with_what_was(sizes, expected):
    of = evidence(rows(90, 100), rows(90, 100), sizes=sizes)
    answer = judge("budget", of, latency=None, size=1.5)
    assert (answer.verdict, answer.limit) == (expected, 1.5)
    assert "1.5 MB are published, 1.50 times the baseline's 1.0 MB, the limit is 1.5." in answer.reason
    assert judge("budget", of, latency=None).reason == "No limit is set."


@pytest.mark.parametrize("options", [{"latency": None, "size": 1.5}, {"size": 1.5}, {}])
def test_budget_says_what_it_could_not_compare(options):
    answer = judge("budget", evidence(rows(90, 100)), megabytes=1.0, **options)
    assert (answer.verdict, answer.warning) == ("pass", True)
    wanted = {"size": None, "latency": 2.0} | options
    said = " and ".join(name for name in ("latency", "size") if wanted[name]).capitalize()
    assert f"{said}: Nothing was compared" in answer.reason
    assert judge("budget", evidence(rows(90, 100), broken=True), **options).verdict == "fail"


def test_data_finds_a_test_example_that_was_trained_on_whatever_data_json_says():
    of = evidence(rows(90, 100))
    assert judge("data", of).verdict == "pass"
    of.splits["train"].inputs[7] = of.test.inputs[3]
    answer = judge("data", of)
    assert answer.verdict == "fail"
    assert answer.details[0]["examples"] == ["3/3"]
    assert judge("data", of, duplicates=1).verdict == "pass"


def test_data_finds_a_near_duplicate_that_was_brightened_and_recompressed(photograph):
    of = evidence(rows(90, 100))
    shape = (100, 28, 28, 1)
    pictures = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    photo = photograph("flower", 0).convert("L")
    file = io.BytesIO()
    photo.point(lambda value: value + 2).save(file, "JPEG", quality=70)
    original, copy = (
        np.asarray(one.resize((28, 28))).reshape(28, 28, 1) for one in (photo, Image.open(file))
    )
    pictures[5] = copy
    of.splits["test"].inputs = pictures
    for name in ("train", "validation"):
        other = of.splits[name]
        other.inputs = np.random.default_rng(len(name)).integers(
            0, 256, (len(other), 28, 28, 1), dtype=np.uint8
        )
    of.splits["validation"].inputs[2] = original
    answer = judge("data", of, near_duplicates=0.0)
    assert answer.verdict == "fail"
    assert answer.details[0]["estimate"] == 0
    assert answer.details[1]["examples"] == ["3/5"]
    assert judge("data", of, near_duplicates=0.01).verdict == "pass"


def test_data_finds_an_empty_class_and_unreadable_files():
    of = evidence(rows(90, 100))
    of.splits["train"].labels[of.splits["train"].labels == 2] = 1
    answer = judge("data", of)
    assert answer.verdict == "fail"
    assert "(cat)" in answer.reason
    bad = evidence(rows(90, 100), data={"bad": [{"id": "x.png", "reason": "empty"}]})
    assert judge("data", bad).verdict == "fail"
    assert judge("data", bad, unreadable=1).verdict == "pass"


def test_looks_counts_and_in_the_end_asks_for_a_fresh_test_set():
    assert judge("looks", evidence(rows(90, 100), looks=20), limit=20).verdict == "pass"
    spent = judge("looks", evidence(rows(90, 100), looks=21), limit=20)
    assert spent.verdict == "fail"
    assert "fresh test examples" in spent.reason
    unknown = judge("looks", evidence(rows(90, 100), looks=None, uncounted="git: a shallow clone."))
    assert unknown.verdict == "fail"
    assert "shallow" in unknown.reason


def test_looks_widen_every_other_gate():
    looks = pick("gates", "looks")
    wide = looks.widen(0.95, 20, looks.Options())
    assert wide == confidence_after_looks(0.95, 20)
    assert looks.widen(0.95, 20, looks.Options(method="adaptive")) > wide
    fresh, worn = evidence(rows(915, 1000)), evidence(rows(915, 1000), widen=lambda confidence: wide)
    assert judge("minimum", fresh, limit=0.898).verdict == "pass"
    assert judge("minimum", worn, limit=0.898).verdict == "not enough data"
    assert judge("minimum", worn, limit=0.898).confidence == wide
    spent = evidence(rows(1000, 1000), rows(900, 1000), widen=lambda confidence: 1.0)
    for name in ("minimum", "no_regression", "flips", "slices", "calibration"):
        answer = judge(name, spent)
        assert answer.verdict == "not enough data", name
        assert answer.needed is None


# ── The target branch's limits ─────────────────────────────────────────────────────────────────────────


def settle(own: dict, target: dict | None) -> limits.Limits:
    problems: list[str] = []
    gates = params._gates(own, problems)
    assert not problems
    text = None
    if target is not None:
        lines: list[str] = []
        YAML(typ="safe").dump({"gates": target}, Lines(lines))
        text = "".join(lines)
    return limits.settle(gates, text, "main:params.yaml")


class Lines:
    """A text file in memory, as ruamel.yaml writes to one."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def write(self, text: str | bytes) -> None:
        self.lines.append(text if isinstance(text, str) else text.decode())


@pytest.mark.parametrize(
    ("gate", "target", "own", "key"),
    [
        ("minimum", {"limit": 0.9}, {"limit": 0.8}, "limit"),
        ("minimum", {"limit": 0.9, "confidence": 0.99}, {"limit": 0.9}, "confidence"),
        ("minimum", {"metric": "accuracy", "limit": 0.8}, {"metric": "macro_f1", "limit": 0.9}, "metric"),
        ("maximum", {"limit": 0.3}, {"limit": 0.4}, "limit"),
        ("no_regression", {"margin": 0.0}, {"margin": 0.5}, "margin"),
        ("flips", {"limit": 0.01}, {}, "limit"),
        ("calibration", {"limit": 0.01}, {"limit": 0.02}, "limit"),
        ("slices", {"limit": 0.8}, {"limit": {"default": 0.8, "cat": 0.1}}, "limit"),
        ("slices", {"limit": {"default": 0.8, "cat": 0.6}}, {"limit": {"default": 0.7, "cat": 0.6}}, "limit"),
        ("slices", {"by": "label"}, {"by": "camera"}, "by"),
        ("budget", {"parameters": 1000}, {"parameters": None}, "parameters"),
        ("budget", {"latency": 1.5}, {"latency": 3.0}, "latency"),
        ("budget", {"size": 1.2}, {"size": 2.0}, "size"),
        ("budget", {"size": 1.2}, {}, "size"),
        ("data", {}, {"duplicates": 5}, "duplicates"),
        ("looks", {"limit": 10}, {"limit": 1000}, "limit"),
        ("looks", {"method": "adaptive"}, {}, "method"),
    ],
)
def test_a_loosened_limit_is_named_and_the_target_branchs_is_applied(gate, target, own, key):
    settled = settle({gate: own}, {gate: target})
    assert [entry.key for entry in settled.loosened] == [f"gates.{gate}.{key}"]
    theirs = pick("gates", gate).Options.model_validate(target)
    assert getattr(settled.gates.declared[gate], key) == getattr(theirs, key)
    assert settled.override is None


@pytest.mark.parametrize(
    ("gate", "target", "own"),
    [
        ("minimum", {"limit": 0.8}, {"limit": 0.9}),
        ("no_regression", {"margin": 0.02}, {"margin": 0.01}),
        ("slices", {"limit": {"default": 0.8, "cat": 0.6}}, {"limit": 0.9}),
        ("slices", {"limit": 0.8}, {"limit": {"default": 0.8, "cat": 0.8}}),
        ("budget", {"parameters": None}, {"parameters": 10}),
        ("budget", {"size": 1.5}, {"size": 1.1}),
    ],
)
def test_a_stricter_limit_of_the_merge_request_holds(gate, target, own):
    settled = settle({gate: own}, {gate: target})
    assert settled.loosened == []
    chosen = pick("gates", gate).Options.model_validate(own)
    for key in own:
        if key != "limit" or gate != "slices":
            assert getattr(settled.gates.declared[gate], key) == getattr(chosen, key)


def test_a_gate_that_was_taken_out_still_judges():
    settled = settle({"minimum": {}}, {"minimum": {}, "flips": {"limit": 0.01}})
    assert [entry.key for entry in settled.loosened] == ["gates.flips"]
    assert settled.gates.declared["flips"].limit == 0.01


def test_a_gate_or_a_key_whose_code_was_taken_out_counts_as_loosened():
    settled = settle({"minimum": {}}, {"minimum": {"severity": 3}, "fairness": {"limit": 0.1}})
    assert [entry.key for entry in settled.loosened] == ["gates.fairness", "gates.minimum.severity"]


def test_a_warning_in_place_of_a_failure_is_a_loosened_limit():
    settled = settle({"minimum": {}, "on_not_enough_data": "warn"}, {"minimum": {}})
    assert [entry.key for entry in settled.loosened] == ["gates.on_not_enough_data"]
    assert settled.gates.rules.on_not_enough_data == "fail"


def test_an_override_holds_only_where_it_is_new():
    own = {"minimum": {"limit": 0.8}, "override": "the old test set was mislabelled"}
    fresh = settle(own, {"minimum": {"limit": 0.9}})
    assert fresh.override == own["override"]
    assert fresh.gates.declared["minimum"].limit == 0.8
    stale = settle(own, {"minimum": {"limit": 0.9}, "override": own["override"]})
    assert stale.override is None
    assert stale.gates.declared["minimum"].limit == 0.9


@pytest.mark.parametrize("reason", ["", "   ", "why not"])
def test_an_override_without_a_reason_is_none(workspace, write_params, reason):
    write_params(gates={"minimum": {"limit": 0.8}, "override": reason})
    with pytest.raises(UserError, match=r"gates\.override: found .* expected .*at least 10 characters"):
        params.load()


@pytest.mark.parametrize("limit", [float("nan"), float("inf"), float("-inf")])
def test_a_limit_that_nothing_can_miss_or_meet_is_refused(workspace, write_params, limit):
    write_params(gates={"minimum": {"limit": limit}})
    with pytest.raises(
        UserError, match=r"gates\.minimum\.limit: found -?(nan|inf), expected a finite number"
    ):
        params.load()


# ── The whole verdict ──────────────────────────────────────────────────────────────────────────────────

YES = Verdict("pass", "Good.")
NO = Verdict("fail", "accuracy is | 0.1 <b>@all</b>.", estimate=0.1, lower=0.05, limit=0.9, examples=10)
UNSURE = Verdict("not enough data", "Too few.", needed=1234)


def outcome(settled: limits.Limits | None = None, excused: bool = False, **gates: Verdict) -> verdict.Outcome:
    return verdict.Outcome(
        gates=gates,
        limits=settled or settle({"minimum": {}}, None),
        excused=excused,
        baseline={"source": "none", "revision": None, "reason": "none: the first commit"},
        looks=1,
        metrics=[],
        parameters=[],
        test={"examples": 10, "hash": "0", "changed": None},
        files={},
        contradictions=[],
        notes=[],
    )


def test_the_whole_is_as_good_as_its_worst_gate():
    assert outcome(minimum=YES, flips=YES).verdict == "pass"
    assert outcome(minimum=YES, flips=UNSURE).verdict == "not enough data"
    assert outcome(minimum=NO, flips=UNSURE).verdict == "fail"


def test_a_lack_of_data_can_be_made_a_warning():
    tolerant = outcome(settle({"minimum": {}, "on_not_enough_data": "warn"}, None), minimum=UNSURE)
    assert tolerant.verdict == "pass"
    assert tolerant.to_json()["gates"][0]["warning"] is True
    assert "with a warning by minimum" in tolerant.sentence()


def test_a_loosened_limit_fails_even_where_every_gate_passes_unless_it_is_overridden():
    target = {"minimum": {"limit": 0.9}}
    lowered = outcome(settle({"minimum": {"limit": 0.8}}, target), minimum=YES)
    assert lowered.verdict == "fail"
    assert "gates.minimum.limit" in lowered.sentence()
    reason = "labels were mended"
    allowed = outcome(settle({"minimum": {"limit": 0.8}, "override": reason}, target), minimum=YES)
    assert allowed.verdict == "pass"
    for text in (
        allowed.sentence(),
        verdict.to_table(allowed),
        verdict.to_markdown(allowed, {}),
        verdict.to_junit(allowed).decode(),
        json.dumps(allowed.to_json()),
    ):
        assert reason in text


def test_the_junit_report_has_a_case_for_each_gate_and_the_reason_of_each_failure():
    report = outcome(settle({"minimum": {}}, {"minimum": {"limit": 0.9}}), minimum=NO, flips=UNSURE, data=YES)
    suite: Any = ElementTree.fromstring(verdict.to_junit(report)).find("testsuite")
    failed: dict[str, Any] = {case.get("name"): case.find("failure") for case in suite}
    assert list(failed) == ["minimum", "flips", "data", "limits"]
    assert failed["minimum"].get("message") == NO.reason
    assert failed["flips"].get("type") == "not enough data"
    assert failed["data"] is None
    assert "gates.minimum.limit" in failed["limits"].get("message")
    assert (suite.get("tests"), suite.get("failures")) == ("4", "3")


def test_the_note_says_the_verdict_first_and_takes_no_orders_from_names():
    report = outcome(minimum=NO, flips=UNSURE)
    note = verdict.to_markdown(report, {"curves.png": "Curves"})
    assert note.splitlines()[0].endswith("Fail: minimum failed; flips had not enough data.")
    assert "<b>" not in note
    assert "@all" not in note
    assert "10 of about 1,234" not in note
    assert "of about 1,234" in note
    assert "![Curves](curves.png)" in note
    sneaky = outcome(minimum=Verdict("fail", "ok\n/approve\n| x |"))
    assert not any(line.startswith("/") for line in verdict.to_markdown(sneaky, {}).splitlines())


def test_the_note_links_to_the_report_of_the_job(monkeypatch):
    monkeypatch.setenv("CI_JOB_URL", "https://gitlab.example/x/-/jobs/7")
    link = "https://gitlab.example/x/-/jobs/7/artifacts/file/src/models/report/index.html"
    assert link in verdict.to_markdown(outcome(minimum=YES), {})


@pytest.mark.parametrize(
    ("confidence", "said"),
    [(0.9, "90 %"), (0.95, "95 %"), (0.975, "97.5 %"), (1 - 1e-5, "99.999 %"), (1.0, "100 %")],
)
def test_a_confidence_is_said_with_the_digits_that_it_takes(confidence, said):
    assert say_confidence(confidence) == said

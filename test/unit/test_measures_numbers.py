"""How the gates measure numbers and several labels: the intervals, and the direction of every limit."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression, Ridge

from src import params
from src.errors import UserError
from src.judgement import limits
from src.judgement.evidence import Evidence, Model
from src.judgement.measures import build
from src.objectives import multilabel, regression
from src.plugin import pick
from src.prepared import Split

ERROR = 0.05

# ── Evidence of real people: how far diabetes went, predicted by a good and by a poor regression ─────────


@pytest.fixture(scope="module")
def people() -> dict[str, np.ndarray]:
    """Labels and predictions of 302 people by models that were fitted to 140 others, and their sex."""
    features, target = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(target))
    train, test = order[:140], order[140:]
    good = LinearRegression().fit(features[train], target[train])
    poor = Ridge(0.5).fit(features[train, :1], target[train])
    return {
        "labels": regression.encode(pd.Series(target[test]), None),
        "good": good.predict(features[test]).astype(np.float32)[:, None],
        "poor": poor.predict(features[test, :1]).astype(np.float32)[:, None],
        "sex": np.where(features[test, 1] > 0, "one", "other"),
    }


def evidence(people: dict[str, np.ndarray], candidate="good", baseline: str | None = None) -> Evidence:
    count = len(people["labels"])
    table = pd.DataFrame(
        {"id": [str(row) for row in range(count)], "label": people["labels"], "sex": people["sex"]}
    )
    test = Split(np.arange(count, dtype=np.float32)[:, None], people["labels"], table)
    other = Split(-1 - test.inputs, test.labels, table)
    return Evidence(
        objective=regression,
        classes=None,
        splits={"train": other, "validation": other, "test": test},
        data={"bad": []},
        candidate=Model(people[candidate], 1000, 10),
        baseline=Model(people[baseline], 1000, 10) if baseline else None,
    )


def judge(name: str, of: Evidence, **options) -> Any:
    gate = pick("gates", name)
    answer = gate.judge(of, gate.Options.model_validate(options))
    assert answer.reason.endswith(".")
    return answer


@pytest.mark.parametrize(
    ("metric", "limits"),
    [
        ("mean_absolute_error", {"pass": 55, "not enough data": 44, "fail": 35}),
        ("root_mean_squared_error", {"pass": 65, "not enough data": 55, "fail": 45}),
    ],
)
def test_maximum_holds_an_error_under_its_limit_in_the_labels_unit(people, metric, limits):
    for verdict, limit in limits.items():
        answer = judge("maximum", evidence(people), metric=metric, limit=limit)
        assert answer.verdict == verdict, answer.reason
        assert answer.lower < answer.estimate < answer.upper


def test_minimum_holds_r2_above_its_limit(people):
    for verdict, limit in {"pass": 0.3, "not enough data": 0.5, "fail": 0.7}.items():
        answer = judge("minimum", evidence(people), metric="r2", limit=limit)
        assert answer.verdict == verdict, answer.reason
    with pytest.raises(
        UserError, match=r"gates\.maximum\.metric: of r2 more is better; use the gate `minimum`"
    ):
        judge("maximum", evidence(people), metric="r2")
    with pytest.raises(UserError, match="of root_mean_squared_error less is better; use the gate `maximum`"):
        judge("minimum", evidence(people), metric="root_mean_squared_error")


@pytest.mark.parametrize(
    ("metric", "margin"), [("mean_absolute_error", 5.0), ("root_mean_squared_error", 5.0), ("r2", 0.1)]
)
def test_no_regression_takes_a_margin_in_the_metrics_unit_in_both_directions(people, metric, margin):
    worse = judge("no_regression", evidence(people, "poor", "good"), metric=metric, margin=margin)
    better = judge("no_regression", evidence(people, "good", "poor"), metric=metric, margin=0.0)
    assert (worse.verdict, better.verdict) == ("fail", "pass")
    assert worse.estimate == pytest.approx(-better.estimate)
    sign = -1 if metric == "r2" else 1
    assert sign * worse.estimate > margin
    assert worse.limit == sign * margin
    generous = judge("no_regression", evidence(people, "poor", "good"), metric=metric, margin=100.0)
    assert generous.verdict == "pass"


def test_slices_of_an_error_have_a_ceiling_that_any_of_them_may_raise(people):
    options = {"by": "label", "metric": "mean_absolute_error"}
    assert judge("slices", evidence(people), **options, maximum=150).verdict == "not enough data"
    plenty = {name: np.tile(values.T, 20).T for name, values in people.items()}
    passed = judge("slices", evidence(plenty), **options, maximum=150)
    assert passed.verdict == "pass"
    assert passed.details[0]["slice"] == "highest quarter"  # the nearest to its limit
    failed = judge("slices", evidence(plenty), **options, maximum=50)
    assert failed.verdict == "fail"
    assert failed.details[0]["slice"] == "highest quarter"
    assert failed.details[0]["lower"] > 50
    assert "break their limit" in failed.reason
    assert {row["slice"]: row["limit"] for row in passed.details} == dict.fromkeys(regression.QUARTERS, 150)
    own = judge("slices", evidence(plenty), **options, maximum={"default": 50, "highest quarter": 90})
    assert "highest quarter" not in [row["slice"] for row in own.details if row["verdict"] == "fail"]


def test_slices_of_numbers_can_be_those_of_a_column(people):
    plenty = {name: np.tile(values.T, 5).T for name, values in people.items()}
    answer = judge("slices", evidence(plenty), by="sex", metric="r2", limit=0.2)
    assert answer.verdict == "pass"
    assert {row["slice"] for row in answer.details} == {"one", "other"}


def test_slices_ask_for_the_limit_that_fits_the_metric(people):
    of = evidence(people)
    with pytest.raises(
        UserError, match=r"gates\.slices\.maximum: missing; of mean_absolute_error less is bet"
    ):
        judge("slices", of, metric="mean_absolute_error", limit=50)
    with pytest.raises(UserError, match=r"gates\.slices\.maximum: of r2 more is better; use limit"):
        judge("slices", of, metric="r2", maximum=50)
    with pytest.raises(
        UserError, match=r"gates\.slices\.maximum: no test example has label 'highest quater'; d"
    ):
        judge("slices", of, metric="mean_absolute_error", maximum={"default": 50, "highest quater": 60})


def test_gates_for_right_answers_say_that_numbers_have_none(people):
    of = evidence(people, "good", "poor")
    with pytest.raises(
        UserError, match=r"gates\.flips\.metric: found 'r2', .*has none, so take the gate out"
    ):
        judge("flips", of, metric="r2")
    with pytest.raises(
        UserError, match=r"regression has no 'expected_calibration_error', expected one of mean_"
    ):
        judge("calibration", of)


def test_the_data_gate_looks_for_no_classes_in_numbers(people):
    answer = judge("data", evidence(people))
    assert answer.verdict == "pass"
    assert [row["check"] for row in answer.details] == ["duplicates", "unreadable"]


@pytest.mark.parametrize(
    ("value", "said"),
    [(43.21987, "43.2199"), (54321.26, "54,321.3"), (0.00004321, "4.32e-05"), (0.0, "0.0000")],
)
def test_numbers_of_any_unit_are_said_with_digits_that_tell_something(people, value, said):
    labels = np.zeros(300, np.float32)
    of = evidence({"labels": labels, "good": np.full((300, 1), value, np.float64), "sex": labels})
    assert f" is {said} on 300 test examples" in judge("maximum", of, metric="mean_absolute_error").reason


# ── Several labels ─────────────────────────────────────────────────────────────────────────────────────

CLASSES = ["grass", "sea", "sky", "town"]


def tags(examples: int, noise: float, seed: int = 0) -> Evidence:
    """Several labels, and a model that has most of them right, or a few more wrong."""
    random = np.random.default_rng(seed)
    labels = (random.random((examples, 4)) < [0.5, 0.3, 0.2, 0.1]).astype(np.uint8)
    drawn = random.random((2, examples, 4))
    good, poor = (
        np.where((drawn[0] < share) | (drawn[1] < 0.02), 1 - labels, labels) for share in (0, noise)
    )
    table = pd.DataFrame({"id": np.arange(examples).astype(str)})
    table["label"] = multilabel.predict(labels.astype(np.float32), CLASSES)["prediction"]
    test = Split(np.arange(examples, dtype=np.float32)[:, None], labels, table)
    other = Split(-1 - test.inputs, labels, table)
    return Evidence(
        objective=multilabel,
        classes=CLASSES,
        splits={"train": other, "validation": other, "test": test},
        data={"bad": []},
        candidate=Model((0.1 + 0.8 * poor).astype(np.float32), 1000, 10),
        baseline=Model((0.1 + 0.8 * good).astype(np.float32), 1000, 10),
    )


def test_gates_judge_several_labels():
    for noise, verdict in ((0.0, "pass"), (0.3, "fail")):
        of = tags(1000, noise)
        for metric in ("micro_f1", "macro_f1", "subset_accuracy"):
            assert judge("minimum", of, metric=metric, limit=0.85).verdict == verdict
            assert judge("no_regression", of, metric=metric, margin=0.05).verdict == verdict
        for metric, limit in (("hamming_loss", 0.05), ("log_loss", 0.25)):
            assert judge("maximum", of, metric=metric, limit=limit).verdict == verdict
            assert judge("no_regression", of, metric=metric, margin=0.02).verdict == verdict
        assert judge("flips", of, metric="subset_accuracy", limit=0.1).verdict == verdict


def test_slices_by_label_are_those_of_each_class_even_where_an_example_has_several():
    of = tags(3000, 0.0)
    answer = judge("slices", of, metric="subset_accuracy", limit=0.8)
    assert answer.verdict == "pass"
    assert {row["slice"]: row["examples"] for row in answer.details} == dict(
        zip(CLASSES, of.labels.sum(axis=0), strict=True)
    )
    assert judge("slices", of, metric="hamming_loss", maximum=0.1).verdict == "pass"


def test_a_class_that_was_never_trained_on_is_found_among_several():
    of = tags(300, 0.0)
    assert judge("data", of).verdict == "pass"
    of.splits["train"].labels = of.labels * np.array([1, 1, 0, 1], np.uint8)
    answer = judge("data", of)
    assert answer.verdict == "fail"
    assert "(sky)" in answer.reason


def test_a_class_with_a_handful_of_examples_leaves_macro_f1_open():
    of = tags(1000, 0.0)
    of.test.labels[:, 3] = 0
    of.test.labels[:9, 3] = 1
    answer = judge("minimum", of, metric="macro_f1", limit=0.1)
    assert answer.verdict == "not enough data"
    assert "some part of it, such as a rare class, has too few" in answer.reason
    assert judge("minimum", of, metric="micro_f1", limit=0.1).verdict == "pass"


# ── The target branch's limits ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("target", "candidate", "holds"),
    [
        ({"default": 50.0}, {"default": 60.0}, {"default": 50.0}),
        ({"default": 50.0}, {"default": 40.0}, {"default": 40.0}),
        ({"default": 50.0}, None, {"default": 50.0}),
        (None, {"default": 50.0}, {"default": 50.0}),
        (None, None, None),
        ({"default": 50.0, "old": 60.0}, {"default": 55.0, "old": 45.0}, {"default": 50.0, "old": 45.0}),
        ({"default": 50.0}, {"default": 50.0, "old": 90.0}, {"default": 50.0}),
    ],
)
def test_of_two_ceilings_the_lower_one_is_stricter(target, candidate, holds):
    slices = pick("gates", "slices")
    assert slices.STRICTER["maximum"](target, candidate) == holds


@pytest.mark.parametrize(
    ("gate", "target", "own", "key", "holds"),
    [
        ("slices", {"maximum": 50}, {"maximum": 60}, "maximum", {"default": 50.0}),
        ("slices", {"maximum": 50}, {}, "maximum", {"default": 50.0}),
        ("maximum", {"limit": 50.0}, {"limit": 60.0}, "limit", 50.0),
        ("no_regression", {"margin": 1.0}, {"margin": 2.0}, "margin", 1.0),
    ],
)
def test_a_loosened_limit_of_an_error_is_named_and_the_target_branchs_is_applied(
    gate, target, own, key, holds
):
    section = {"metric": "mean_absolute_error"}
    problems: list[str] = []
    mine = params._gates({gate: {**section, **own}}, problems)
    assert not problems
    theirs = f"gates: {{{gate}: {{metric: mean_absolute_error, {key}: {target[key]}}}}}"
    settled = limits.settle(mine, theirs, "main:params.yaml")
    assert [entry.key for entry in settled.loosened] == [f"gates.{gate}.{key}"]
    assert getattr(settled.gates.declared[gate], key) == holds
    stricter = params._gates({gate: {**section, key: target[key] / 2}}, problems)
    assert limits.settle(stricter, theirs, "main:params.yaml").loosened == []


# ── Intervals ──────────────────────────────────────────────────────────────────────────────────────────


def rmse(labels, outputs, axis=-1):
    return np.sqrt(((labels - outputs) ** 2).mean(axis=axis))


def r2(labels, outputs, axis=-1):
    return 1 - ((labels - outputs) ** 2).mean(axis=axis) / labels.var(axis=axis)


@pytest.mark.parametrize(
    ("name", "function"), [("root_mean_squared_error", rmse), ("r2", r2)], ids=["rmse", "r2"]
)
def test_intervals_are_those_of_scipys_bca_but_a_little_wider(people, name, function):
    labels, good, poor = (people[key].astype(float).ravel() for key in ("labels", "good", "poor"))
    measure = build(**regression.MEASURES[name])

    def difference(y, p, q, axis=-1):
        return function(y, p, axis) - function(y, q, axis)

    cases = (
        (measure.measure(labels, good[:, None], 0.95, 2), function, (labels, good)),
        (measure.compare(labels, good[:, None], poor[:, None], 0.95, 2), difference, (labels, good, poor)),
    )
    for finding, statistic, columns in cases:
        expected = bootstrap(columns, statistic, paired=True, n_resamples=4000, method="BCa", rng=1)
        low, high = expected.confidence_interval
        width, found = high - low, finding.interval
        assert found.estimate == pytest.approx(statistic(*columns))
        assert found.standard_error == pytest.approx(expected.standard_error, rel=0.05)
        assert found.lower == pytest.approx(low, abs=0.06 * width)
        assert found.upper == pytest.approx(high, abs=0.06 * width)
        assert found.upper - found.lower > 0.97 * width


def draw_numbers(random, examples, tails):
    """Numbers, and predictions of two models whose errors share half of their variance."""
    labels = random.normal(150, 77, examples)
    errors = random.normal if tails == "normal" else random.laplace
    shared, *own = errors(0, 30, (3, examples))
    return labels, *(labels[:, None] * 0.8 + 30 + (shared + one)[:, None] for one in own)


def draw_tags(random, examples, tails):
    """Several labels, and the outputs of two models."""
    labels = random.random((examples, 4)) < [0.5, 0.3, 0.2, 0.1]
    shared, *own = random.normal(size=(3, examples, 4))
    return labels.astype(np.uint8), *(1 / (1 + np.exp(-(3 * labels - 1.8 + shared + one))) for one in own)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name", "draw", "tails"),
    [
        (regression, "mean_absolute_error", draw_numbers, "laplace"),
        (regression, "root_mean_squared_error", draw_numbers, "laplace"),
        (regression, "r2", draw_numbers, "normal"),
        (multilabel, "micro_f1", draw_tags, ""),
        (multilabel, "macro_f1", draw_tags, ""),
    ],
)
def test_a_bound_is_wrong_about_as_often_as_it_says(module, name, draw, tails):
    measure = build(**module.MEASURES[name])
    labels, candidate, baseline = draw(np.random.default_rng(1), 1_000_000, tails)
    entry = module.MEASURES[name]
    combine = entry.get("combine", lambda means: means)
    one, other = (
        float(combine(entry["values"](labels, outputs).mean(axis=0))) for outputs in (candidate, baseline)
    )
    random, sets = np.random.default_rng(2), 500
    wrong = np.zeros(4)
    for _ in range(sets):
        labels, candidate, baseline = draw(random, 250, tails)
        alone = measure.measure(labels, candidate, 1 - ERROR).interval
        both = measure.compare(labels, candidate, baseline, 1 - ERROR).interval
        wrong += [alone.lower > one, alone.upper < one, both.lower > one - other, both.upper < one - other]
    # 3.5 standard errors of the simulation, and a bound of a bootstrap may err by a point more than it says.
    allowed = ERROR + 0.01 + 3.5 * np.sqrt(ERROR * (1 - ERROR) / sets)
    assert (wrong / sets <= allowed).all(), wrong / sets
    assert (wrong / sets >= 0.01).all(), wrong / sets

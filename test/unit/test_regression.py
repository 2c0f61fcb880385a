"""Numbers as labels: what is read, what is learned of them, and the metrics against scikit-learn's."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap
from sklearn import metrics as sklearn_metrics
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression

from src import objectives
from src.errors import BadExampleError, UserError
from src.network import Frame, Input
from src.objectives import regression

# ── Labels ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0.5, 1.5, 2.0], "regression"),
        ([1.0, 2.0, 3.0], "regression"),
        ([1.0, 2.0, None], "classification"),  # whole numbers in a table with an empty cell
        ([*range(25, 346), None], "regression"),
        (range(25, 346), "regression"),
        (range(100), "classification"),
        (range(1, 101), "classification"),
        ([0, 7, 9], "classification"),
        ([True, False, True], "classification"),
        (["cat", "dog", None], "classification"),
        (["1.5", "2.5", "n/a"], "regression"),
        (["10115", "10117"] * 20, "classification"),
        ([Decimal("1.50"), Decimal("2.00")], "regression"),
        ([["cat"], None, []], "multilabel"),
        ([np.array(["cat"]), np.array([])], "multilabel"),
    ],
)
def test_the_label_column_suggests_the_objective(labels, expected):
    assert objectives.infer(pd.Series(labels)) == expected


@pytest.mark.parametrize("label", [3, 3.0, "3", np.float32(3), Decimal(3)])
def test_a_label_that_reads_as_a_number_is_one(label):
    assert regression.read(label) == 3.0


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (None, "no label"),
        (float("nan"), "no label"),
        ("n/a", "expected a number as the label, found 'n/a'"),
        ("1,5", "expected a number as the label, found '1,5'"),
        (float("inf"), "expected a finite number as the label, found inf"),
        (1e300, "expected a finite number as the label, found 1e+300"),
        ([1.0, 2.0], "expected one number as the label, found [1.0, 2.0]"),
    ],
)
def test_what_is_no_number_is_said(label, reason):
    with pytest.raises(BadExampleError) as error:
        regression.read(label)
    assert str(error.value) == reason


def test_labels_that_are_all_the_same_are_an_error():
    labels = regression.encode(pd.Series([151.0] * 30), None)
    with pytest.raises(UserError, match=r"data\.label: each training example has 151; expected different"):
        regression.output(labels, None)


def test_each_quarter_of_the_labels_is_a_group_and_equal_labels_stay_together():
    groups = regression.groups(np.array([4, 1, 3, 2, 8, 7, 6, 5], np.float32), None)
    assert [sorted(group) for group in groups.values()] == [[1, 3], [0, 2], [6, 7], [4, 5]]
    tied = regression.groups(np.array([0] * 6 + [1, 2], np.float32), None)
    assert [len(group) for group in tied.values()] == [6, 0, 0, 2]


# ── The network ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("unit", [1e-4, 1e6])
def test_a_network_learns_numbers_whatever_their_unit(unit):
    import keras

    features, labels = load_diabetes(return_X_y=True)
    labels = regression.encode(pd.Series(labels * unit), None)
    end = regression.output(labels, None)
    keras.utils.set_random_seed(0)
    frame = Frame(Input((10,), "float32"), end)
    inputs, x = frame.begin()
    model = frame.end(inputs, x, "linear")
    model.compile(keras.optimizers.Adam(0.1), regression.LOSS, metrics=regression.METRICS)
    before = regression.score(labels, model.predict(features, verbose=0), None)
    for _ in range(150):
        model.train_on_batch(features, labels)
    after = regression.score(labels, model.predict(features, verbose=0), None)
    # Untrained it already answers in the labels' unit, trained it is about as good as least squares.
    assert before["mean_absolute_error"] < 1.5 * before["mean_predictor_mean_absolute_error"]
    assert after["r2"] == pytest.approx(
        LinearRegression().fit(features, labels).score(features, labels), abs=0.03
    )


# ── Metrics ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def scored():
    """Labels of real people, predictions in float32 as a network gives them, and their metrics."""
    features, labels = load_diabetes(return_X_y=True)
    model = LinearRegression().fit(features[:200], labels[:200])
    labels = regression.encode(pd.Series(labels[200:]), None)
    outputs = model.predict(features[200:]).astype(np.float32)[:, None]
    return labels, outputs, regression.score(labels, outputs, None)


def test_the_metrics_are_those_of_scikit_learn(scored):
    labels, outputs, metrics = scored
    for name, expected in {
        "mean_absolute_error": sklearn_metrics.mean_absolute_error,
        "root_mean_squared_error": sklearn_metrics.root_mean_squared_error,
        "r2": sklearn_metrics.r2_score,
        "median_absolute_error": sklearn_metrics.median_absolute_error,
    }.items():
        assert metrics[name] == pytest.approx(expected(labels, outputs), rel=1e-5), name
    mean = np.full(len(labels), labels.mean())
    assert metrics["mean_predictor_mean_absolute_error"] == pytest.approx(np.abs(labels - mean).mean())
    assert metrics["mean_predictor_root_mean_squared_error"] == pytest.approx(labels.std())
    assert metrics["examples"] == 242
    assert next(iter(metrics)) == "mean_absolute_error"


@pytest.mark.parametrize("name", ["mean_absolute_error", "root_mean_squared_error", "r2"])
def test_the_intervals_are_those_of_scipys_percentile_bootstrap(scored, name):
    labels, outputs, metrics = scored
    functions = {
        "mean_absolute_error": lambda y, p, axis: np.abs(y - p).mean(axis),
        "root_mean_squared_error": lambda y, p, axis: np.sqrt(((y - p) ** 2).mean(axis)),
        "r2": lambda y, p, axis: 1 - ((y - p) ** 2).mean(axis) / y.var(axis),
    }
    expected = bootstrap(
        (labels.astype(float), outputs[:, 0].astype(float)),
        functions[name],
        paired=True,
        n_resamples=2000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = expected.high - expected.low
    assert metrics[f"{name}_low"] == pytest.approx(expected.low, abs=0.1 * width)
    assert metrics[f"{name}_high"] == pytest.approx(expected.high, abs=0.1 * width)


def test_r2_of_labels_that_are_all_the_same_is_what_scikit_learn_says():
    labels = np.full(30, 7.0, np.float32)
    for outputs in (np.full((30, 1), 7.0, np.float32), np.full((30, 1), 8.0, np.float32)):
        assert regression.score(labels, outputs, None)["r2"] == sklearn_metrics.r2_score(labels, outputs)


def test_r2_of_labels_far_from_zero_is_exact():
    labels = (2_000_000 + np.arange(1000) % 7).astype(np.float32)
    outputs = (labels + (np.arange(1000) % 3 - 1))[:, None]
    assert regression.score(labels, outputs, None)["r2"] == pytest.approx(
        sklearn_metrics.r2_score(labels.astype(float), outputs.astype(float))
    )


# ── What is shown ──────────────────────────────────────────────────────────────────────────────────────


def test_the_nearest_and_the_worst_predictions_are_shown_with_both_numbers(scored):
    labels, outputs, _ = scored
    predictions = pd.DataFrame({"label": labels}).join(regression.predict(outputs, None))
    shown = regression.showcase(predictions, 4)
    error = (predictions["label"] - predictions["prediction"]).abs()
    near, far = shown["correct_predictions"], shown["incorrect_predictions"]
    assert list(near.index) == list(error.nsmallest(4).index)
    assert list(far.index) == list(error.nlargest(4).index)
    worst = predictions.loc[far.index[0]]
    assert far["title"].iloc[0] == f"true {worst['label']:.0f}\npredicted {worst['prediction']:.0f}"
    assert far.attrs["heading"] == "The largest errors"


@pytest.mark.parametrize(("unit", "digits"), [(1, 0), (0.01, 2), (1000, 0)])
def test_numbers_are_said_to_about_a_hundredth_of_their_spread(unit, digits):
    predictions = pd.DataFrame(
        {"label": [unit * 100.0, unit * 250], "prediction": [unit * 110.0, unit * 240]}
    )
    title = regression.showcase(predictions, 1)["correct_predictions"]["title"].iloc[0]
    assert title == f"true {unit * 100:.{digits}f}\npredicted {unit * 110:.{digits}f}"


def test_an_example_is_not_both_near_and_far():
    predictions = pd.DataFrame({"label": [1.0, 2.0, 3.0], "prediction": [1.0, 2.5, 5.0]})
    shown = regression.showcase(predictions, 25)
    assert not set(shown["correct_predictions"].index) & set(shown["incorrect_predictions"].index)


def test_predicted_against_true_comes_first_and_every_example_is_a_point(scored):
    labels, outputs, _ = scored
    predictions = pd.DataFrame({"label": labels}).join(regression.predict(outputs, None))
    pictures = regression.pictures(predictions, None)
    assert list(pictures) == ["predicted_against_true", "residuals"]
    first, second = (
        np.asarray(figure.axes[0].collections[0].get_offsets()) for _, figure in pictures.values()
    )
    assert np.allclose(first, predictions[["label", "prediction"]])
    assert np.allclose(second[:, 1], predictions["label"] - predictions["prediction"])

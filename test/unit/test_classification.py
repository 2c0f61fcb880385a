"""The metrics of a classifier, against other computations of the same."""

import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from src.objectives import classification
from src.objectives.classification import calibration_error, reliability, score

CLASSES = ["bag", "boot", "coat", "dress", "shirt"]


@pytest.fixture(scope="module")
def scored():
    """Labels, noisy probabilities in float32 as a network gives them, and their metrics."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 5, 400)
    logits = draw.normal(size=(400, 5)) + 1.5 * np.eye(5)[labels]
    outputs = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    return labels, outputs, score(labels, outputs, CLASSES)


def test_the_metrics_are_those_of_scikit_learn(scored):
    labels, outputs, metrics = scored
    predicted = outputs.argmax(axis=1)
    assert metrics["accuracy"] == sklearn_metrics.accuracy_score(labels, predicted)
    assert metrics["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(labels, predicted, average="macro"))
    assert metrics["top_3_accuracy"] == sklearn_metrics.top_k_accuracy_score(labels, outputs, k=3)
    assert metrics["examples"] == 400
    report = sklearn_metrics.classification_report(labels, predicted, target_names=CLASSES, output_dict=True)
    for name in CLASSES:
        expected = {key.replace("f1-score", "f1"): value for key, value in report[name].items()}
        assert metrics["classes"][name] == pytest.approx(expected)


def test_log_loss_is_the_mean_of_the_logarithms(scored):
    labels, outputs, metrics = scored
    expected = -np.mean([math.log(row[label]) for row, label in zip(outputs, labels, strict=True)])
    assert metrics["log_loss"] == pytest.approx(expected, rel=1e-5)


def test_the_interval_is_wilsons(scored):
    _, _, metrics = scored
    p, n, z = metrics["accuracy"], 400, 1.959963984540054
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    assert metrics["accuracy_low"] == pytest.approx(middle - half)
    assert metrics["accuracy_high"] == pytest.approx(middle + half)


def test_the_interval_is_that_of_statsmodels(scored):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    _, _, metrics = scored
    expected = proportion.proportion_confint(round(metrics["accuracy"] * 400), 400, method="wilson")
    assert (metrics["accuracy_low"], metrics["accuracy_high"]) == pytest.approx(expected)


def test_calibration_error_is_the_weighted_gap_of_fifteen_bins(scored):
    labels, outputs, metrics = scored
    confidence, correct = outputs.max(axis=1).astype(float), outputs.argmax(axis=1) == labels
    expected = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = [i for i, value in enumerate(confidence) if low < value <= high]
        if inside:
            accuracy = sum(bool(correct[i]) for i in inside) / len(inside)
            mean = sum(confidence[i] for i in inside) / len(inside)
            expected += len(inside) / len(labels) * abs(accuracy - mean)
    assert metrics["expected_calibration_error"] == pytest.approx(expected, abs=1e-6)


def test_calibration_error_is_none_when_confidence_is_accuracy():
    confidence = np.repeat([0.25, 0.75], 400)
    correct = (
        np.tile([True, False, False, False], 100).tolist() + np.tile([True, True, True, False], 100).tolist()
    )
    assert calibration_error(confidence, np.array(correct)) == pytest.approx(0)
    bins = reliability(confidence, np.array(correct))
    assert bins["examples"].tolist() == [400, 400]
    assert bins["accuracy"].tolist() == [0.25, 0.75]


def test_a_perfect_prediction_scores_one_with_an_interval_below_it():
    labels = np.arange(50) % 5
    metrics = score(labels, np.eye(5, dtype=np.float32)[labels], CLASSES)
    assert metrics["accuracy"] == metrics["macro_f1"] == metrics["top_3_accuracy"] == 1
    assert metrics["log_loss"] == pytest.approx(0, abs=1e-6)
    assert metrics["expected_calibration_error"] == 0
    assert metrics["accuracy_high"] == pytest.approx(1)
    assert metrics["accuracy_low"] == pytest.approx(50 / (50 + 1.959963984540054**2))


def test_a_hopeless_prediction_scores_nought_and_a_finite_loss():
    labels = np.arange(50) % 5
    metrics = score(labels, np.eye(5, dtype=np.float32)[(labels + 1) % 5], CLASSES)
    assert metrics["accuracy"] == metrics["macro_f1"] == metrics["accuracy_low"] == 0
    assert metrics["expected_calibration_error"] == 1
    assert 10 < metrics["log_loss"] < math.inf


def test_equal_outputs_are_no_top_three_hit():
    # Every class is as probable as the right one: it is not among the three best.
    metrics = score(np.arange(50) % 5, np.full((50, 5), 0.2, np.float32), CLASSES)
    assert metrics["top_3_accuracy"] == 0


def test_a_class_without_test_examples_scores_nought_and_is_listed():
    labels = np.zeros(10, int)
    metrics = score(labels, np.tile(np.array([0.9, 0.1], np.float32), (10, 1)), ["bag", "boot"])
    assert metrics["classes"]["boot"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}


def test_labels_of_any_kind_are_encoded_by_their_sorted_names():
    labels = pd.Series([10, 9, 10, 2])
    assert classification.classes(labels) == ["10", "2", "9"]
    encoded = classification.encode(labels, classification.classes(labels))
    assert encoded.tolist() == [0, 2, 0, 1]
    assert encoded.dtype == np.int32


def test_predictions_name_the_class_its_probability_and_all_others():
    frame = classification.predict(np.array([[0.2, 0.7, 0.1]], np.float32), ["bag", "boot", "coat"])
    assert frame.columns.tolist() == [
        "prediction",
        "confidence",
        "probability of bag",
        "probability of boot",
        "probability of coat",
    ]
    assert frame.iloc[0].tolist() == ["boot", *(pytest.approx(each) for each in (0.7, 0.2, 0.7, 0.1))]


def test_the_showcase_puts_the_most_confident_mistakes_first_and_every_class_in_turn():
    predictions = pd.DataFrame(
        {
            "label": ["bag", "bag", "bag", "boot", "bag", "boot"],
            "prediction": ["bag", "bag", "bag", "boot", "boot", "bag"],
            "confidence": [0.9, 0.8, 0.7, 0.6, 0.5, 0.99],
        }
    )
    chosen = classification.showcase(predictions, 2)
    assert sorted(chosen["correct_predictions"].index) == [0, 3]
    assert chosen["incorrect_predictions"].index.tolist() == [5, 4]
    assert chosen["incorrect_predictions"]["title"].tolist() == ["bag 99%\nis boot", "boot 50%\nis bag"]

"""Several labels for each example: how they are read, and the metrics against scikit-learn's."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sklearn_metrics

from src import splits
from src.errors import BadExampleError, UserError
from src.objectives import multilabel
from src.params import Data

CLASSES = ["grass", "sea", "sky", "town"]

# ── Labels ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("sky|sea", "sea|sky"),
        (" sky | sea |", "sea|sky"),
        ("sky", "sky"),
        ("", ""),
        (float("nan"), ""),  # an empty cell of a CSV file
        (["sky", "sea", "sky"], "sea|sky"),
        (np.array(["sky"], dtype=object), "sky"),
        ([], ""),
        ([3, 1], "1|3"),
        (7, "7"),
    ],
)
def test_a_label_is_the_set_of_its_names(label, expected):
    assert multilabel.read(label) == expected


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        (None, "no label"),
        (["sky", None], "expected class names without '|' as the label, found None"),
        (["sky|sea"], "expected class names without '|' as the label, found 'sky|sea'"),
        (["sky", ""], "expected class names without '|' as the label, found ''"),
        ([["sky"]], "expected class names without '|' as the label, found ['sky']"),
    ],
)
def test_what_is_no_set_of_names_is_said(label, reason):
    with pytest.raises(BadExampleError) as error:
        multilabel.read(label)
    assert str(error.value) == reason


def test_labels_become_a_table_of_noughts_and_ones_and_come_back():
    labels = pd.Series(["sea|sky", "", "town", "grass|sea|sky|town"])
    classes = multilabel.classes(labels)
    encoded = multilabel.encode(labels, classes)
    assert classes == CLASSES
    assert encoded.tolist() == [[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1]]
    assert multilabel.predict(encoded.astype(np.float32), classes)["prediction"].tolist() == labels.tolist()
    groups = multilabel.groups(encoded, classes)
    assert {name: list(rows) for name, rows in groups.items()} == {
        "grass": [3],
        "sea": [0, 3],
        "sky": [0, 3],
        "town": [2, 3],
    }


def test_labels_without_any_class_are_an_error():
    with pytest.raises(UserError, match=r"data\.label: no example has a class"):
        multilabel.classes(pd.Series(["", ""]))


# ── Splits ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def rows() -> tuple[pd.DataFrame, splits.Groups]:
    """Examples in splits: of each hundred 50 have sky, 25 sea too, 4 town besides, and 50 nothing."""
    random = np.random.default_rng(0)
    labels = ["sky", "sea|sky", "", "", "sky", "sea|sky", "", ""] * 12 + ["sea|sky|town"] * 4
    table = pd.DataFrame(
        {
            "id": [str(number) for number in range(2000)],
            "label": labels * 20,
            "digest": [random.bytes(16).hex() for _ in range(2000)],
        }
    )
    table["split"] = splits.assign(table, Data(path="photos"))
    classes = multilabel.classes(table["label"])
    return table, multilabel.groups(multilabel.encode(table["label"], classes), classes)


def test_each_class_is_counted_in_each_split(rows):
    table, groups = rows
    findings = splits.examine(table, Data(path="photos"), groups)
    assert list(findings["classes"]) == ["sea", "sky", "town"]
    for name, counts in findings["classes"].items():
        has = table["label"].str.split("|").map(lambda names, name=name: name in names)
        assert counts == {split: int((has & (table["split"] == split)).sum()) for split in counts}
    assert findings["contradictions"] == 0


def test_the_same_example_with_other_labels_is_a_contradiction(rows):
    table, groups = rows
    training = table.index[table["split"] == "train"]
    twice = table.copy()
    twice.loc[training[1], "digest"] = twice.loc[training[0], "digest"]
    twice.loc[training[:2], "label"] = ["sea|sky", "sky"]
    assert splits.examine(twice, Data(path="photos"), groups)["contradictions"] == 1


def test_a_sample_keeps_the_rarest_classes_in_proportion(rows):
    table, groups = rows
    few = splits.sample(table, 0.1, groups)
    before, after = (part[part["split"] == "train"]["label"].value_counts() for part in (table, few))
    assert after["sea|sky|town"] == np.ceil(0.1 * before["sea|sky|town"])
    assert after["sea|sky"] == np.ceil(0.1 * before["sea|sky"])
    assert after.sum() == pytest.approx(0.1 * before.sum(), abs=4)


# ── Metrics ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def scored():
    """Labels, noisy probabilities in float32 as a network gives them, and their metrics."""
    random = np.random.default_rng(0)
    labels = (random.random((500, 4)) < [0.5, 0.3, 0.2, 0.02]).astype(np.uint8)
    outputs = 1 / (1 + np.exp(-(3 * labels - 1.8 + random.normal(size=(500, 4)))))
    outputs = outputs.astype(np.float32)
    return labels, outputs, multilabel.score(labels, outputs, CLASSES)


def test_the_metrics_are_those_of_scikit_learn(scored):
    labels, outputs, metrics = scored
    said = outputs > 0.5
    assert metrics["micro_f1"] == pytest.approx(sklearn_metrics.f1_score(labels, said, average="micro"))
    assert metrics["macro_f1"] == pytest.approx(sklearn_metrics.f1_score(labels, said, average="macro"))
    assert metrics["subset_accuracy"] == sklearn_metrics.accuracy_score(labels, said)
    assert metrics["hamming_loss"] == pytest.approx(sklearn_metrics.hamming_loss(labels, said))
    columns = zip(labels.T, outputs.T.astype(float), strict=True)
    expected = np.mean([sklearn_metrics.log_loss(*column) for column in columns])
    assert metrics["log_loss"] == pytest.approx(expected)
    report = sklearn_metrics.classification_report(
        labels, said, target_names=CLASSES, output_dict=True, zero_division=0
    )
    for name in CLASSES:
        expected = {key.replace("f1-score", "f1"): value for key, value in report[name].items()}
        assert metrics["classes"][name] == pytest.approx(expected)
    assert next(iter(metrics)) == "micro_f1"
    assert metrics["micro_f1_low"] < metrics["micro_f1"] < metrics["micro_f1_high"]
    assert metrics["subset_accuracy_low"] < metrics["subset_accuracy"] < metrics["subset_accuracy_high"]


def test_confidence_is_the_probability_of_the_set_and_comes_true_where_the_probabilities_do():
    random = np.random.default_rng(0)
    outputs = random.random((8_000, 3)).astype(np.float32)
    labels = (random.random(outputs.shape) < outputs).astype(np.uint8)
    columns = multilabel.predict(outputs, CLASSES[:3])
    by_hand = [np.prod([max(p, 1 - p) for p in row]) for row in outputs[:50].astype(float)]
    assert columns["confidence"][:50].to_numpy() == pytest.approx(by_hand)
    assert columns["confidence"].mean() == pytest.approx(multilabel.right(labels, outputs).mean(), abs=0.015)
    assert multilabel.score(labels, outputs, CLASSES[:3])["expected_calibration_error"] < 0.03


def test_nothing_there_and_nothing_said_scores_nought_but_all_right():
    labels, outputs = np.zeros((30, 4), np.uint8), np.full((30, 4), 0.1, np.float32)
    metrics = multilabel.score(labels, outputs, CLASSES)
    assert metrics["micro_f1"] == metrics["macro_f1"] == metrics["hamming_loss"] == 0
    assert metrics["subset_accuracy"] == 1


def test_a_class_without_test_examples_is_listed_and_leaves_macro_f1_alone():
    labels = np.array([[1, 0, 0, 0], [0, 1, 0, 0]] * 20, np.uint8)
    metrics = multilabel.score(labels, labels.astype(np.float32), CLASSES)
    assert metrics["macro_f1"] == 1
    assert metrics["classes"]["town"]["support"] == 0


# ── What is shown ──────────────────────────────────────────────────────────────────────────────────────


def test_found_and_missed_classes_are_counted_in_the_first_picture(scored):
    labels, outputs, metrics = scored
    predictions = multilabel.predict(outputs, CLASSES)
    label = multilabel.predict(labels.astype(np.float32), CLASSES)["prediction"]
    pictures = multilabel.pictures(predictions.assign(label=label), CLASSES)
    assert list(pictures) == ["found_and_missed", "reliability"]
    found, missed, alarms = pictures["found_and_missed"][1].axes[0].containers
    for row, name in enumerate(CLASSES):
        hits, misses, others = (bars[row].get_width() for bars in (found, missed, alarms))
        assert hits + misses == metrics["classes"][name]["support"]
        assert hits / (hits + misses) == pytest.approx(metrics["classes"][name]["recall"])
        assert hits / (hits + others) == pytest.approx(metrics["classes"][name]["precision"])


def test_the_surest_mistakes_are_shown_with_all_their_classes():
    outputs = np.array([[0.9, 0.9, 0.1, 0.1], [0.1, 0.2, 0.1, 0.1], [0.1, 0.1, 0.99, 0.1]], np.float32)
    predictions = multilabel.predict(outputs, CLASSES).assign(label=["grass|sea", "town", ""])
    shown = multilabel.showcase(predictions, 5)
    assert shown["correct_predictions"]["title"].tolist() == ["grass, sea\n66%"]
    assert shown["incorrect_predictions"]["title"].tolist() == ["sky 72%\nis none", "none 58%\nis town"]
    assert list(shown["incorrect_predictions"].index) == [2, 1]

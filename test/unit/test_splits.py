"""Splits: drawn by content, kept where declared, and what is wrong with them is said."""

import hashlib
from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from src import splits
from src.errors import UserError
from src.params import Data

DATA = Data(path="photos", validation=0.1, test=0.2)


def table(count: int, classes=("cat", "dog"), first: int = 0, **columns) -> pd.DataFrame:
    """Examples of different content; their classes take turns."""
    numbers = range(first, first + count)
    digests = [hashlib.blake2b(str(number).encode(), digest_size=16).hexdigest() for number in numbers]
    return pd.DataFrame(
        {
            "id": [f"{number}.png" for number in numbers],
            "label": [classes[number % len(classes)] for number in numbers],
            "digest": digests,
            **columns,
        }
    )


def groups(rows: pd.DataFrame) -> splits.Groups:
    return {name: np.flatnonzero(rows["label"] == name) for name in sorted(rows["label"].unique())}


def drawn(rows: pd.DataFrame, data: Data = DATA) -> pd.DataFrame:
    return rows.assign(split=splits.assign(rows, data))


# ── Drawing ────────────────────────────────────────────────────────────────────────────────────────────


def test_adding_examples_and_shuffling_them_moves_none():
    before = drawn(table(500)).set_index("id")["split"]
    more = pd.concat([table(700, first=500), table(500)]).sample(frac=1, random_state=1, ignore_index=True)
    after = drawn(more).set_index("id")["split"]
    assert (after[before.index] == before).all()


def test_exact_duplicates_fall_together_whatever_their_class():
    rows = table(300)
    copies = rows.assign(id="copy of " + rows["id"], label="dog")
    both = drawn(pd.concat([rows, copies], ignore_index=True))
    assert (both.groupby("digest")["split"].nunique() == 1).all()


@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.2), (0.5, 0.5), (0.25, 0.01)])
def test_the_shares_are_about_those_asked_for_in_every_class(validation, test):
    rows = drawn(table(20_000), Data(path="photos", validation=validation, test=test))
    shares = pd.crosstab(rows["label"], rows["split"], normalize="index")
    for label in ("cat", "dog"):
        assert shares.loc[label, "test"] == pytest.approx(test, abs=0.015)
        assert shares.loc[label, "validation"] == pytest.approx((1 - test) * validation, abs=0.015)


def test_a_larger_test_share_only_adds_to_the_test_split():
    small = drawn(table(1000), Data(path="photos", test=0.1))
    large = drawn(table(1000), Data(path="photos", test=0.3))
    assert set(small.loc[small["split"] == "test", "id"]) < set(large.loc[large["split"] == "test", "id"])


def test_declared_splits_are_kept():
    declared = ["train", "validation", "test", "train"] * 50
    rows = table(200, split=declared)
    assert drawn(rows)["split"].tolist() == declared


def test_validation_that_is_not_declared_is_drawn_from_training_alone():
    rows = table(2000, split=["train"] * 1500 + ["test"] * 500)
    after = drawn(rows)
    assert (after["split"][1500:] == "test").all()
    counts = Counter(after["split"][:1500])
    assert set(counts) == {"train", "validation"}
    assert counts["validation"] == pytest.approx(150, abs=40)


def test_examples_without_a_declared_split_are_drawn_among_the_undeclared_ones():
    rows = table(2000, split=[None] * 1500 + ["test"] * 500)
    counts = Counter(drawn(rows)["split"])
    assert counts["test"] == 500
    assert counts["validation"] == pytest.approx(150, abs=40)


# ── Samples ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    """Examples in splits, nine of one class for each one of the other."""
    return drawn(table(4000, classes=("dog",) * 9 + ("cat",)))


def training(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["split"] == "train"]


def test_a_sample_keeps_the_classes_in_proportion_and_the_other_splits_whole(rows):
    few = splits.sample(rows, 0.1, groups(rows))
    for label in ("cat", "dog"):
        whole = (training(rows)["label"] == label).sum()
        assert (training(few)["label"] == label).sum() == np.ceil(whole * 0.1)
    for split in ("validation", "test"):
        assert few[few["split"] == split].equals(rows[rows["split"] == split])


def test_a_smaller_sample_is_part_of_a_larger_one(rows):
    sizes = [0.01, 0.1, 0.5, 0.9, 1.0]
    samples = [set(splits.sample(rows, size, groups(rows))["id"]) for size in sizes]
    for smaller, larger in pairwise(samples):
        assert smaller < larger


def test_a_sample_can_be_a_number(rows):
    assert len(training(splits.sample(rows, 100, groups(rows)))) in (100, 101)  # each class is rounded up
    assert len(splits.sample(rows, 1_000_000, groups(rows))) == len(rows)
    assert len(splits.sample(rows, 1.0, groups(rows))) == len(rows)


def test_the_smallest_sample_has_every_class(rows):
    assert set(training(splits.sample(rows, 2, groups(rows)))["label"]) == {"cat", "dog"}


def test_a_sample_is_independent_of_the_split():
    # If both looked at the same bits, a sample would favour the examples next to the other splits.
    whole = drawn(table(4000))
    few = splits.sample(whole, 0.5, groups(whole))
    position = whole["digest"].map(lambda digest: int(digest[:13], 16) / 16**13)
    assert position[training(few).index].mean() == pytest.approx(
        position[training(whole).index].mean(), abs=0.02
    )


def test_labels_that_are_numbers_are_sampled_as_one(rows):
    numbers = rows.assign(label=np.linspace(0, 1, len(rows)))
    assert len(training(splits.sample(numbers, 0.1, {}))) == np.ceil(len(training(numbers)) * 0.1)


# ── Findings ───────────────────────────────────────────────────────────────────────────────────────────


def examine(rows: pd.DataFrame, **data):
    return splits.examine(rows, Data(path="photos", **data), groups(rows))


def declared(**counts: tuple[int, int, int]) -> pd.DataFrame:
    """So many training, validation and test examples of each class."""
    names = [
        (label, split)
        for label, numbers in counts.items()
        for split, number in zip(("train", "validation", "test"), numbers, strict=True)
        for _ in range(number)
    ]
    labels, parts = zip(*names, strict=True)
    return table(len(names)).assign(label=labels, split=parts)


def test_sound_data_is_counted_without_a_warning():
    findings = examine(declared(cat=(6, 2, 3), dog=(5, 1, 2)))
    assert findings == {
        "examples": {"train": 11, "validation": 3, "test": 5},
        "duplicates": 0,
        "leaks": [],
        "contradictions": 0,
        "classes": {
            "cat": {"train": 6, "validation": 2, "test": 3},
            "dog": {"train": 5, "validation": 1, "test": 2},
        },
        "warnings": [],
    }


@pytest.fixture
def leaking() -> pd.DataFrame:
    """Two test examples are also training examples."""
    rows = declared(cat=(6, 2, 3), dog=(5, 1, 2))
    rows.loc[rows.index[rows["split"] == "test"][:2], "digest"] = rows["digest"][:2].to_numpy()
    return rows


def test_a_leak_fails_by_default_and_names_both_copies(leaking):
    with pytest.raises(UserError) as error:
        examine(leaking)
    lines = str(error.value).splitlines()
    assert lines[0] == "photos: 2 examples stand in two splits:"
    assert sorted(lines[1:5]) == ["  test 8.png", "  test 9.png", "  train 0.png", "  train 1.png"]
    assert lines[5] == "  Remove one of each, or set data.on_leak: warn."


def test_a_leak_can_be_a_warning(leaking):
    findings = examine(leaking, on_leak="warn")
    assert sorted(findings["leaks"]) == ["0.png", "1.png", "8.png", "9.png"]
    assert findings["duplicates"] == 2
    assert "2 examples stand in two splits" in findings["warnings"][0]


def test_a_long_list_of_leaks_fits_a_screen():
    rows = declared(cat=(50, 1, 49), dog=(50, 1, 49))
    rows.loc[rows["split"] == "test", "digest"] = rows.loc[rows["split"] == "train", "digest"][:98].to_numpy()
    with pytest.raises(UserError) as error:
        examine(rows)
    assert len(str(error.value).splitlines()) < 25
    assert "  … and 176 more" in str(error.value)


def test_the_same_example_with_two_labels_is_a_contradiction():
    rows = declared(cat=(6, 2, 3), dog=(5, 1, 2))
    cat, dog = rows.index[rows["label"] == "cat"][0], rows.index[rows["label"] == "dog"][0]
    rows.loc[dog, "digest"] = rows["digest"][cat]
    findings = examine(rows)
    assert (findings["contradictions"], findings["duplicates"], findings["leaks"]) == (1, 1, [])
    assert findings["warnings"] == ["1 examples stand there twice with different labels"]


WRONG = {
    "one class": (
        declared(cat=(6, 2, 3)),
        "photos: found one class, 'cat'; expected at least two",
    ),
    "a class of one": (
        declared(cat=(6, 2, 3), dog=(1, 0, 0)),
        "photos: class 'dog' has one example; expected at least two",
    ),
    "never trained": (
        declared(cat=(6, 2, 3), dog=(0, 1, 2)),
        "photos: class 'dog' has 1 validation and 2 test examples and none to train on; expected",
    ),
    "no test": (declared(cat=(6, 2, 0), dog=(5, 1, 0)), "photos: the test split has no example; expected at"),
}


@pytest.mark.parametrize(("rows", "sentence"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_learned_is_one_sentence(rows, sentence):
    with pytest.raises(UserError) as error:
        examine(rows)
    assert str(error.value).startswith(sentence)
    assert "\n" not in str(error.value)


def test_a_class_that_is_never_tested_is_a_warning():
    findings = examine(declared(cat=(6, 2, 3), dog=(5, 0, 0)))
    assert findings["warnings"] == [
        "class 'dog' has no validation example",
        "class 'dog' has no test example",
    ]


def test_heavy_imbalance_is_a_warning():
    assert examine(declared(cat=(50, 1, 1), dog=(5, 1, 1)))["warnings"] == []
    assert examine(declared(cat=(51, 1, 1), dog=(5, 1, 1)))["warnings"] == [
        "classes are heavily imbalanced: 51 training examples of 'cat', 5 of 'dog'"
    ]

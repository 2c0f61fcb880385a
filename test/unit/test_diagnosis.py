"""The doctor's rules, on histories written by hand: each verdict, and trainings that just miss it."""

from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_iris

from src.pictures import draw_layers, encode_png
from src.training.diagnosis import diagnose, kernel_ridge

FACTS: dict[str, Any] = {
    "prior": 2.0,
    "simple": 1.0,
    "informative": True,
    "constant": False,
    "finite": True,
    "sampled": 1000,
    "examples": 5000,
    "epochs": 10,
    "steps": 50,
    "kinds": {"conv": "Conv2D", "relu": "ReLU", "middle": "Dense", "last": "Dense"},
}


def epochs(losses: list[float], validation: list[float] | None = None) -> list[dict[str, Any]]:
    pairs = zip(losses, validation or losses, strict=True)
    return [{"epoch": epoch, "loss": a, "val_loss": b} for epoch, (a, b) in enumerate(pairs, 1)]


def record(epoch: int, loss: float | None = 2.0, **changes: Any) -> dict[str, Any]:
    """What is seen in a healthy network; `conv={"gradient": 9}` changes a number."""
    layers: dict[str, dict[str, Any]] = {
        name: {"gradient": 0.1, "weights": 5.0, "moved": 0.3 * min(epoch, 1), "mean": 0.0, "deviation": 1.0}
        for name in ("conv", "middle", "last")
    }
    layers["relu"] = {"mean": 0.5, "deviation": 0.5, "dead": 0.05}
    for name in changes.keys() & layers.keys():
        layers[name] |= changes.pop(name)
    return {"epoch": epoch, "loss": loss, "layers": layers, **changes}


def everywhere(**numbers: float) -> dict[str, Any]:
    return dict.fromkeys(("conv", "middle", "last"), numbers)


RECORDS = [record(0, 2.2), record(1), record(2)]
LAST = RECORDS[0]["layers"]["last"]
HEALTHY = epochs([1.5, 1.0, 0.8, 0.7, 0.6], [1.4, 1.1, 1.0, 0.95, 1.0])
HIGH = epochs([2.0, 1.99, 2.0, 1.98])
MEMORISED = epochs([1.5, 1.0, 0.5, 0.3], [1.6, 1.5, 2.0, 2.2])

# What is found: history, records, facts.
FOUND: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]] = {
    "constant_inputs": (HIGH, RECORDS, {"constant": True}),
    "broken_inputs": (HIGH, RECORDS, {"finite": False}),
    "shuffled_labels": (
        epochs([1.9, 1.5, 1.0], [2.0, 2.5, 2.9]),
        RECORDS,
        {"informative": False, "simple": 2.0},
    ),
    "nan": (
        epochs([1.5]),
        [*RECORDS[:2], record(2, None, broken={"layer": "conv", "what": "weights", "steps": [11, 20]})],
        {},
    ),
    "exploding_gradient": (HIGH, [record(0, 1e6, conv={"gradient": 1e5}), record(1)], {}),
    "learning_rate_too_high": (epochs([9.0, 40.0]), RECORDS, {}),
    "dead_units": (HIGH, [record(0), *(record(n, relu={"dead": 0.9}) for n in (1, 2))], {}),
    "vanishing_gradient": (HIGH, [record(n, conv={"gradient": 1e-6}) for n in (0, 1, 2)], {}),
    "learning_rate_too_low": (
        epochs([2.2, 2.19, 2.18, 2.17]),
        [record(0, 2.2), record(2, **everywhere(moved=0.004))],
        {},
    ),
    "overfitting": (MEMORISED, RECORDS, {}),
    "underfitting": (epochs([1.7, 1.6, 1.6]), RECORDS, {}),
}


@pytest.mark.parametrize("name", FOUND)
def test_each_pathology_is_named_with_numbers_and_a_key_of_params_yaml(name):
    history, records, facts = FOUND[name]
    [verdict] = diagnose(history, records, FACTS | facts)
    assert verdict["name"] == name
    assert any(letter.isdigit() for letter in verdict["evidence"]) or name == "broken_inputs"
    keys = ("fit.", "model", "data.", "encode")
    assert any(key in verdict["advice"] for key in keys)


# Trainings that come near a verdict and do not deserve it.
MISSED: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]] = {
    "healthy": (HEALTHY, RECORDS, {}),
    "validation loss rises, and training loss too": (
        epochs([1.0, 0.9, 1.1], [1.0, 0.9, 1.6]),
        RECORDS,
        {},
    ),
    "validation loss rises for a single epoch": (
        epochs([1.0, 0.6, 0.3], [1.0, 0.8, 1.5]),
        RECORDS,
        {},
    ),
    "training falls far below validation loss, which stays": (
        epochs([1.0, 0.5, 0.1, 0.01], [1.0, 0.8, 0.85, 0.9]),
        RECORDS,
        {},
    ),
    "as high as kernel ridge regression: the data gives no more": (
        epochs([1.9, 1.85, 1.8]),
        RECORDS,
        {"simple": 1.75},
    ),
    "labels like shuffled ones, but validation loss falls": (HEALTHY, RECORDS, {"informative": False}),
    "a high loss before the first step, soon gone": (
        epochs([4.0, 1.2, 1.0]),
        [record(0, 30.0), record(1)],
        {},
    ),
    "a small gradient in the first layers of a network that learns": (
        HEALTHY,
        [record(n, conv={"gradient": 1e-6}) for n in (0, 1, 2)],
        {},
    ),
    "a loss that rises high and recovers": (epochs([3.5, 8.0, 1.9, 1.2, 0.8]), RECORDS, {}),
    "units that were dead once": (HEALTHY, [record(0), record(1, relu={"dead": 0.9}), record(2)], {}),
    "dead units in layers that are frozen": (
        HEALTHY,
        [{"epoch": n, "loss": 2.0, "layers": {"relu": {"dead": 0.9}, "last": LAST}} for n in (0, 1, 2)],
        {},
    ),
    "a few dead units": (HEALTHY, [record(n, relu={"dead": 0.3}) for n in (0, 1, 2)], {}),
    "weights that move far in a network that learns": (
        HEALTHY,
        [record(0), record(1, last={"moved": 80.0})],
        {},
    ),
    "weights that hardly move in a network that learns": (
        HEALTHY,
        [record(0), record(2, **everywhere(moved=0.01))],
        {},
    ),
}


@pytest.mark.parametrize("case", MISSED)
def test_what_only_comes_near_a_pathology_is_healthy(case):
    history, records, facts = MISSED[case]
    assert diagnose(history, records, FACTS | facts) == []


@pytest.mark.parametrize("unit", [1e-3, 1e4])
def test_the_unit_of_the_loss_does_not_matter(unit):
    for name, (history, records, facts) in FOUND.items():
        scaled = [
            {**each, "loss": unit * each["loss"], "val_loss": unit * each["val_loss"]} for each in history
        ]
        seen = [
            {
                **each,
                "loss": each["loss"] and unit * each["loss"],
                "layers": {
                    layer: {
                        what: unit * value if what == "gradient" else value for what, value in numbers.items()
                    }
                    for layer, numbers in each["layers"].items()
                },
            }
            for each in records
        ]
        known = FACTS | facts
        known |= {"prior": unit * known["prior"], "simple": unit * known["simple"]}
        assert [verdict["name"] for verdict in diagnose(scaled, seen, known)] == [name]


@pytest.mark.parametrize("name", ["underfitting", "learning_rate_too_low", "shuffled_labels"])
def test_what_time_may_mend_is_left_open_for_half_of_the_epochs(name):
    history, records, facts = FOUND[name]
    history = [*history, *history[-1:] * 6]
    seen = [diagnose(history[:end], records, FACTS | facts, over=False) for end in range(1, 8)]
    assert not any(seen[:4])
    assert all(verdicts[0]["name"] == name for verdicts in seen[4:])


def test_a_number_that_is_none_is_said_with_layer_step_and_epoch():
    history, records, _ = FOUND["nan"]
    [verdict] = diagnose(history, records, FACTS)
    assert verdict["epoch"] == 2
    assert "steps 11 to 20 of epoch 2, first in the weights of layer conv" in verdict["evidence"]


def test_ten_examples_are_too_few_to_call_their_labels_shuffled():
    history, records, facts = FOUND["shuffled_labels"]
    few = FACTS | facts | {"sampled": 10}
    assert [verdict["name"] for verdict in diagnose(history, records, few)] == ["overfitting"]


def test_overfitting_began_at_the_best_epoch_and_dead_units_when_they_died():
    assert diagnose(MEMORISED, RECORDS, FACTS)[0]["epoch"] == 2
    history, records, _ = FOUND["dead_units"]
    assert diagnose(history, records, FACTS)[0]["epoch"] == 1


def test_nothing_is_said_before_anything_is_known():
    assert diagnose([], RECORDS[:1], FACTS, over=False) == []


# ── Kernel ridge regression ────────────────────────────────────────────────────────────────────────────


def test_a_prediction_leaves_its_own_label_out():
    inputs, labels = load_diabetes(return_X_y=True)
    inputs, labels = inputs[:60].astype(np.float32), labels[:60, None]
    changed = labels.copy()
    changed[7] += 1
    moved = kernel_ridge(inputs, changed)[0] - kernel_ridge(inputs, labels)[0]
    assert abs(moved[7, 0]) < 2 / len(labels)  # through the mean alone
    assert np.abs(moved).max() > 2 / len(labels)


def test_labels_that_follow_from_inputs_are_told_from_shuffled_ones():
    inputs, labels = load_iris(return_X_y=True)
    targets = np.eye(3)[labels]
    predictions, informative = kernel_ridge(inputs.astype(np.float32), targets)
    assert informative
    assert (predictions.argmax(axis=1) == labels).mean() > 0.9
    for seed in range(5):
        shuffled = np.random.default_rng(seed + 1).permutation(targets)
        assert not kernel_ridge(inputs.astype(np.float32), shuffled)[1]


# ── The picture in the report ──────────────────────────────────────────────────────────────────────────


def test_each_layer_has_a_line_which_is_broken_where_a_number_is_none():
    figure = draw_layers([*RECORDS, record(3, last={"gradient": None})])
    gradients, dead = figure.axes
    lines = {str(line.get_label()): line.get_ydata() for line in gradients.lines}
    assert set(lines) == {"conv", "middle", "last"}
    assert list(map(bool, np.isnan(np.asarray(lines["last"], float)))) == [False, False, False, True]
    assert [str(line.get_label()) for line in dead.lines] == ["relu"]
    assert encode_png(figure).startswith(b"\x89PNG")


def test_a_network_without_relu_has_a_picture_of_gradients_alone():
    assert len(draw_layers([{"epoch": n, "loss": 2.0, "layers": {"last": LAST}} for n in (0, 1)]).axes) == 1

"""`fit:` in params.yaml becomes a Keras optimizer, its schedule, and a training that ends well."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.utils.class_weight import compute_class_weight

from src import engine, params, prepared
from src.errors import UserError
from src.objectives import classification, multilabel, regression
from src.train import compiling, fit
from src.training import checkpoint


@pytest.fixture(scope="module", autouse=True)
def started():
    """Keras, started once."""
    engine.start()


def optimizer(steps: int = 1000, **chosen):
    return compiling.make_optimizer(params.Optimizer(**chosen), steps)


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", "Adam"), ("SGD", "SGD"), ("adamw", "AdamW"), ("RMSprop", "RMSprop")]
)
def test_a_keras_optimizer_is_found_by_its_name_in_any_case(name, kind):
    made = optimizer(name=name, learning_rate=0.5)
    assert type(made).__name__ == kind
    assert float(made.learning_rate) == 0.5


def test_every_further_key_is_an_argument():
    made = optimizer(name="sgd", momentum=0.9, nesterov=True, clipnorm=1.0)
    assert (made.momentum, made.nesterov, made.clipnorm) == (0.9, True, 1.0)


def test_fractions_of_steps_are_shares_of_the_training():
    rate = {"name": "CosineDecay", "initial_learning_rate": 0.0, "warmup_target": 0.1}
    made = optimizer(1000, learning_rate={**rate, "warmup_steps": 0.3, "decay_steps": 0.7})
    schedule = made._learning_rate
    assert float(schedule(0)) == pytest.approx(0, abs=1e-6)
    assert float(schedule(150)) == pytest.approx(0.05, abs=1e-6)
    assert float(schedule(300)) == pytest.approx(0.1, abs=1e-6)
    assert float(schedule(1000)) == pytest.approx(0, abs=1e-6)


def test_whole_numbers_of_steps_are_steps():
    rate = {"name": "ExponentialDecay", "initial_learning_rate": 0.1, "decay_rate": 0.5, "decay_steps": 10}
    assert float(optimizer(1000, learning_rate=rate)._learning_rate(10)) == pytest.approx(0.05)


REFUSED = {
    "unknown optimizer": (
        {"name": "adamm"},
        "params.yaml: fit.optimizer: Keras has no 'adamm', expected one of Adadelta, Adafactor",
        "did you mean 'adam'?",
    ),
    "unknown schedule": (
        {"learning_rate": {"name": "CosinDecay"}},
        "params.yaml: fit.optimizer.learning_rate: Keras has no 'CosinDecay', expected one of CosineDecay",
        "did you mean 'cosinedecay'?",
    ),
    "unknown argument": (
        {"momentun": 0.9},
        "params.yaml: fit.optimizer: Adam refuses its arguments: ",
        "momentun",
    ),
    "wrong value": (
        {"name": "sgd", "momentum": 2.0},
        "params.yaml: fit.optimizer: SGD refuses its arguments: ",
        "between [0, 1]",
    ),
    "missing argument": (
        {"learning_rate": {"name": "CosineDecay"}},
        "params.yaml: fit.optimizer.learning_rate: CosineDecay refuses its arguments: ",
        "initial_learning_rate",
    ),
    "no optimizer": ({"name": "optimizer"}, "params.yaml: fit.optimizer: Keras has no 'optimizer'", ""),
}


@pytest.mark.parametrize(("chosen", "start", "within"), REFUSED.values(), ids=REFUSED)
def test_what_keras_refuses_is_one_sentence_with_the_key(chosen, start, within):
    with pytest.raises(UserError) as error:
        optimizer(**chosen)
    assert str(error.value).startswith(start)
    assert within in str(error.value)
    assert "\n" not in str(error.value)


# ── Losses, metrics, weights ───────────────────────────────────────────────────────────────────────────


def compiled(objective: Any = classification, mixes: bool = False, **chosen: Any) -> Any:
    """A network of three classes, compiled as `fit:` says."""
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, activation="softmax")])
    compiling.compile_model(model, objective, params.Fit.model_validate(chosen), 10, mixes)
    return model


PROBABILITIES = {
    "smoothed labels": ({"loss": {"name": "CategoricalCrossentropy", "label_smoothing": 0.1}}, True),
    "a loss by its name alone": ({"loss": "categorical_focal_crossentropy"}, True),
    "a metric of probabilities": ({"metrics": ["AUC", {"name": "F1Score", "average": "macro"}]}, True),
    "positions": ({"metrics": [{"name": "SparseTopKCategoricalAccuracy", "k": 2}]}, False),
    "nothing": ({}, False),
}


@pytest.mark.parametrize(("chosen", "probabilities"), PROBABILITIES.values(), ids=PROBABILITIES)
def test_labels_are_given_as_the_loss_and_the_metrics_take_them(chosen, probabilities):
    fit_section = params.Fit.model_validate(chosen)
    assert compiling.one_hot(classification, fit_section) is probabilities
    labels = np.array([0, 2, 1, 2])
    model = compiled(**chosen)
    given = np.eye(3, dtype=np.float32)[labels] if probabilities else labels
    logs = model.test_on_batch(np.ones((4, 3), np.float32), given, return_dict=True)
    assert {"loss", "accuracy"} <= set(logs)
    assert len(logs) == 2 + len(chosen.get("metrics", []))


def test_a_smoothed_loss_is_that_of_smoothed_labels():
    model = compiled(loss={"name": "CategoricalCrossentropy", "label_smoothing": 0.3})
    inputs, labels = np.random.default_rng(0).normal(size=(6, 3)), np.eye(3)[[0, 1, 2, 0, 1, 2]]
    outputs = np.asarray(model(inputs))
    expected = -((0.7 * labels + 0.1) * np.log(outputs)).sum(axis=1).mean()
    assert model.test_on_batch(inputs, labels)[0] == pytest.approx(expected, rel=1e-5)


def test_numbers_and_several_labels_are_given_as_they_are():
    for objective in (regression, multilabel):
        assert not compiling.one_hot(objective, params.Fit.model_validate({"metrics": ["AUC"]}))


@pytest.mark.parametrize(
    ("chosen", "mixes", "message"),
    [
        ({"loss": "crossentropie"}, False, "fit.loss: Keras has no 'crossentropie'"),
        ({"loss": {"name": "Huber", "delt": 1}}, False, "fit.loss: Huber refuses its arguments"),
        ({"metrics": ["F1Scor"]}, False, "fit.metrics: Keras has no 'F1Scor'.*'f1score'"),
        ({"loss": "SparseCategoricalCrossentropy"}, True, "fit: SparseCategoricalCrossentropy takes the pos"),
        (
            {"loss": "CategoricalCrossentropy", "metrics": ["SparseCategoricalAccuracy"]},
            False,
            "fit: SparseCategoricalAccuracy takes .*CategoricalCrossentropy takes a probability",
        ),
    ],
)
def test_a_loss_that_does_not_fit_is_one_sentence(chosen, mixes, message):
    with pytest.raises(UserError, match=rf"^params\.yaml: {message}"):
        compiled(mixes=mixes, **chosen)


def test_balanced_weights_are_those_of_scikit_learn():
    labels = np.random.default_rng(0).choice(3, 60, p=[0.7, 0.2, 0.1])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    found = compiling.class_weights("balanced", labels, ["a", "b", "c"], classification)
    assert found is not None
    assert [found[position] for position in range(3)] == pytest.approx(expected.tolist())


def test_weights_by_name_are_1_where_none_is_given():
    labels = np.array([0, 1, 2])
    assert compiling.class_weights({"b": 4.0}, labels, ["a", "b", "c"], classification) == {0: 1, 1: 4, 2: 1}
    with pytest.raises(UserError, match=r"^params\.yaml: fit\.class_weight: there is no class 'dogs'.*'dog'"):
        compiling.class_weights({"dogs": 4.0}, labels, ["cat", "dog", "cow"], classification)
    for objective, names in ((regression, None), (multilabel, ["a", "b"])):
        with pytest.raises(
            UserError, match=r"fit\.class_weight: found objective .*, expected classification"
        ):
            compiling.class_weights("balanced", np.zeros((3, 2)), names, objective)


def test_there_is_no_gpu_where_there_is_none():
    import tensorflow as tf

    assert not tf.config.list_physical_devices("GPU"), "this test is for a machine without"
    for device in ("gpu", "gpus", "gpu:1"):
        with pytest.raises(UserError, match=rf"^params\.yaml: fit\.device: found '{device}', but .* no GPU"):
            engine.place(device)
    for device in ("auto", "cpu"):
        with engine.place(device).scope():
            assert compiled() is not None


# ── Training ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def split() -> prepared.Split:
    """Forty examples of three numbers, of two classes that overlap a little."""
    labels = np.arange(40, dtype=np.int32) % 2
    inputs = np.random.default_rng(0).normal(size=(40, 3)) + labels[:, None]
    return prepared.Split(inputs.astype(np.float32), labels, pd.DataFrame({"id": labels.astype(str)}))


@pytest.fixture
def train(split, workspace):
    """Trains a tiny network by the settings of `fit:`."""
    import keras

    def run(**settings):
        engine.start(0)
        chosen = params.Fit.model_validate(settings)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, activation="softmax")])
        batches = prepared.Batches(split, 32, chosen.seed)
        compiling.compile_model(model, classification, chosen, len(batches))
        keeper = checkpoint.Keeper(model, chosen, {})
        return fit.train_model(model, batches, prepared.Batches(split, 32), chosen, keeper), model

    return run


def test_a_record_of_each_epoch_has_losses_metrics_and_the_rate(train):
    history, _ = train(epochs=3, optimizer={"learning_rate": 0.01})
    assert [record["epoch"] for record in history] == [1, 2, 3]
    assert set(history[0]) == {"epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}
    assert history[0]["learning_rate"] == pytest.approx(0.01)
    assert history[2]["loss"] < history[0]["loss"]


def test_the_weights_of_the_best_epoch_are_kept(train, split):
    # A rate this high overshoots: the best epoch is not the last.
    history, model = train(epochs=12, optimizer={"name": "sgd", "learning_rate": 8.0}, early_stopping=None)
    losses = [record["val_loss"] for record in history]
    assert losses[-1] > min(losses)
    loss, _ = model.evaluate(split.inputs, split.labels, verbose=0)
    assert loss == pytest.approx(min(losses), rel=1e-4)


def test_training_ends_early_when_validation_loss_no_longer_improves(train):
    history, _ = train(
        epochs=50, optimizer={"name": "sgd", "learning_rate": 8.0}, early_stopping={"patience": 2}
    )
    losses = [record["val_loss"] for record in history]
    assert len(losses) < 50
    assert losses.index(min(losses)) == len(losses) - 3


def test_a_loss_that_is_never_a_number_names_the_learning_rate(train):
    with pytest.raises(
        UserError, match=r"params\.yaml: fit\.optimizer\.learning_rate: the loss became infinite"
    ):
        train(epochs=3, optimizer={"name": "sgd", "learning_rate": 3e38})


def test_a_loss_that_stops_being_a_number_leaves_the_best_epoch_and_a_history_of_numbers(train, split):
    rate = {"name": "PiecewiseConstantDecay", "boundaries": [3], "values": [0.1, 3e38]}
    history, model = train(epochs=6, optimizer={"name": "sgd", "learning_rate": rate})
    assert 1 <= len(history) < 6
    assert all(np.isfinite(list(record.values())).all() for record in history)
    loss, _ = model.evaluate(split.inputs, split.labels, verbose=0)
    assert loss == pytest.approx(min(record["val_loss"] for record in history), rel=1e-4)


def test_every_epoch_sees_every_example_once_in_an_order_of_its_own(split):
    batches = prepared.Batches(split, 16, seed=3)
    orders = []
    for batches.epoch in (0, 1, 0):
        assert [len(labels) for _, labels in batches] == [16, 16, 8]
        orders.append(batches.order().tolist())
    assert sorted(orders[0]) == list(range(40))
    assert orders[0] == orders[2] != orders[1]

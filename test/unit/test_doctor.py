"""The doctor looks into real networks, and changes nothing about them."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_diabetes, load_digits

from src import engine, params, prepared
from src.architectures import cnn, mlp, rnn
from src.errors import UserError
from src.network import Frame, Input, Output
from src.objectives import classification, regression
from src.prepared import Batches
from src.train import compiling, doctor, fit
from src.training import checkpoint

CLASSES = Output(10, "softmax")
PIXELS = Input((8, 8, 1), "uint8", [{"Rescaling": {"scale": 1 / 16}}])
NUMBERS = Input((64,), "float32", [{"Rescaling": {"scale": 1 / 16}}])


@pytest.fixture(scope="module", autouse=True)
def started():
    """Keras, started once."""
    engine.start()


@pytest.fixture(scope="module")
def digits() -> prepared.Split:
    """Three hundred handwritten digits of 8 × 8 pixels."""
    images, labels = load_digits(return_X_y=True)
    return split(images[:300].reshape(-1, 8, 8, 1).astype(np.uint8), labels[:300].astype(np.int32))


def split(inputs: np.ndarray, labels: np.ndarray) -> prepared.Split:
    return prepared.Split(inputs, labels, pd.DataFrame({"id": np.arange(len(labels)).astype(str)}))


def numbers(digits: prepared.Split) -> prepared.Split:
    return split(digits.inputs.reshape(-1, 64).astype(np.float32), digits.labels)


def perceptron(objective: Any = classification, **options: Any) -> Any:
    model = mlp.build(Frame(NUMBERS, CLASSES), mlp.Options.model_validate(options))
    return compiled(model, objective)


def compiled(model: Any, objective: Any = classification) -> Any:
    compiling.compile_model(model, objective, params.Fit(), 10)
    return model


def dense(model: Any) -> list[Any]:
    return [layer for layer in model.layers if type(layer).__name__ == "Dense"]


def probe(model: Any, data: prepared.Split) -> doctor.Probe:
    return doctor.Probe(model, data.inputs[:64], data.labels[:64])


# ── What is seen ───────────────────────────────────────────────────────────────────────────────────────


def test_units_that_are_zero_for_every_example_are_counted(digits):
    model = perceptron(hidden=[20, 10])
    first = dense(model)[0]
    kernel, bias = first.get_weights()
    bias[:15] = -1e6
    first.set_weights([kernel, bias])
    layers = probe(model, numbers(digits)).examine()["layers"]
    shares = [layer["dead"] for layer in layers.values() if "dead" in layer]
    assert shares[0] >= 0.75 > shares[1]


def test_a_deep_stack_of_sigmoids_has_next_to_no_gradient_in_its_first_layer(digits):
    seen = probe(perceptron(hidden=[16] * 8, activation="sigmoid"), numbers(digits)).examine()["layers"]
    gradients = [layer["gradient"] for layer in seen.values() if "gradient" in layer]
    assert gradients[0] < 1e-4 * gradients[-1]


def test_gradients_are_those_of_keras_relative_to_the_weights(digits):
    import tensorflow as tf

    data = numbers(digits)
    model = perceptron(hidden=[])
    with tf.GradientTape() as tape:
        probabilities = model(data.inputs[:64])
        picked = tf.gather(probabilities, data.labels[:64], batch_dims=1)
        loss = -tf.reduce_mean(tf.math.log(picked))
    kernel, bias = tape.gradient(loss, [weight.value for weight in model.trainable_variables])
    expected = np.sqrt(np.sum(kernel**2) + np.sum(bias**2)) / np.linalg.norm(dense(model)[0].kernel)
    found = probe(model, data).examine()
    assert found["loss"] == pytest.approx(float(loss), rel=1e-3)
    assert found["layers"][dense(model)[0].name]["gradient"] == pytest.approx(expected, rel=1e-3)


def test_how_far_weights_moved_is_relative_to_where_they_began(digits):
    model = perceptron(hidden=[8])
    looking = probe(model, numbers(digits))
    first = dense(model)[0]
    first.kernel.assign(3 * first.kernel)
    layers = looking.examine()["layers"]
    assert layers[first.name]["moved"] == pytest.approx(2, rel=1e-3)
    assert layers[dense(model)[1].name]["moved"] == 0


def test_layers_that_learn_only_later_are_seen_from_then_on(digits):
    model = perceptron(hidden=[8])
    first, last = dense(model)
    first.trainable = False
    looking = probe(model, numbers(digits))
    assert "gradient" not in looking.examine()["layers"][first.name]
    first.trainable = True
    layers = looking.examine()["layers"]
    assert layers[first.name]["gradient"] > 0
    assert layers[first.name]["moved"] == layers[last.name]["moved"] == 0


def test_saturated_outputs_are_counted(digits):
    model = perceptron(hidden=[8], activation="tanh")
    dense(model)[0].kernel.assign(1000 * dense(model)[0].kernel)
    layers = probe(model, numbers(digits)).examine()["layers"]
    assert max(layer.get("saturated", 0) for layer in layers.values()) > 0.9


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_first_layer_with_a_weight_that_is_no_number_is_named(digits, number):
    model = perceptron(hidden=[8, 8])
    looking = probe(model, numbers(digits))
    for layer in dense(model)[number:]:
        layer.bias.assign(np.nan * layer.bias)
    record = looking.examine()
    assert record["loss"] is None
    json.dumps(record, allow_nan=False)
    assert looking.broken() == (dense(model)[number].name, "weights")


def test_outputs_that_overflow_are_told_from_weights(digits):
    model = perceptron(hidden=[8, 8])
    looking = probe(model, numbers(digits))
    for layer in dense(model)[:2]:
        layer.kernel.assign(1e30 * np.abs(layer.kernel))
    assert looking.examine()["loss"] is None
    assert looking.broken() == (dense(model)[1].name, "outputs")


def frozen(frame: Frame) -> Any:
    model = cnn.build(frame, cnn.Options(filters=[4, 4]))
    for layer in model.layers[:6]:
        layer.trainable = False
    return model


SERIES = Input((12, 3), "float32", [{"Masking": {"mask_value": -1.0}}])
SOUND = Input(
    (2048,), "float32", [{"MelSpectrogram": {"fft_length": 256, "sequence_stride": 128, "num_mel_bins": 16}}]
)
CHANNEL = {"Reshape": {"target_shape": [16, -1, 1]}}
NETWORKS = {
    "images": (PIXELS, lambda frame: cnn.build(frame, cnn.Options(filters=[4, 4]))),
    "images, frozen": (PIXELS, frozen),
    "volumes": (Input((8, 8, 8, 1), "float32"), lambda frame: cnn.build(frame, cnn.Options(filters=[4]))),
    "padded series": (SERIES, lambda frame: cnn.build(frame, cnn.Options(filters=[4]))),
    "recurrent": (SERIES, lambda frame: rnn.build(frame, rnn.Options(units=4, layers=2))),
    "sentences": (
        Input((9,), "int32", [], ["", *(f"word{number}" for number in range(49))]),
        lambda frame: rnn.build(frame, rnn.Options(units=4, embedding=rnn.Embedding(dimension=8))),
    ),
    "sound": (
        Input(SOUND.shape, SOUND.dtype, [*SOUND.layers, CHANNEL]),
        lambda frame: cnn.build(frame, cnn.Options(filters=[4])),
    ),
}


def content(model: Any) -> list[bytes]:
    """Returns the bytes of each weight, statistic, random state and variable of the optimizer."""
    return [np.asarray(variable).tobytes() for variable in (*model.variables, *model.optimizer.variables)]


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_kind_of_network_is_looked_into_and_left_as_it_was(kind):
    given, build = NETWORKS[kind]
    draw = np.random.default_rng(0)
    labels = np.arange(80, dtype=np.int32) % 10
    inputs = draw.integers(0, 50, (80, *given.shape)).astype(given.dtype)
    model = compiled(build(Frame(given, CLASSES)))
    model.optimizer.build(model.trainable_variables)
    before = content(model)
    watching = doctor.Doctor(model, Batches(split(inputs, labels), 32), params.Fit())
    watching.watch(checkpoint.Progress(epoch=1, history=[{"epoch": 1, "loss": 2.0, "val_loss": 2.0}]))
    assert content(model) == before

    layers = watching.first["layers"]
    learning = {layer.name for layer in model.layers if layer.trainable_variables}
    assert learning == {name for name, numbers in layers.items() if "gradient" in numbers}
    assert all(layers[name]["gradient"] > 0 for name in learning)
    json.dumps(watching.first, allow_nan=False)


# ── What the data lets one expect ──────────────────────────────────────────────────────────────────────


def test_the_prior_is_the_loss_of_a_constant_guess(digits):
    facts = doctor.Doctor(perceptron(hidden=[]), Batches(numbers(digits), 32), params.Fit()).facts
    shares = np.bincount(digits.labels) / len(digits)
    assert facts["prior"] == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-3)
    assert facts["simple"] < 0.5 * facts["prior"]
    assert (facts["informative"], facts["constant"], facts["finite"]) == (True, False, True)


def test_the_prior_of_numbers_is_their_variance():
    inputs, labels = load_diabetes(return_X_y=True)
    frame = Frame(Input((10,), "float32"), Output(1, "linear"))
    model = compiled(mlp.build(frame, mlp.Options()), regression)
    facts = doctor.Doctor(
        model, Batches(split(inputs.astype(np.float32), labels.astype(np.float32)), 32), params.Fit()
    ).facts
    assert facts["prior"] == pytest.approx(labels.var(), rel=1e-3)
    assert 0.4 < facts["simple"] / facts["prior"] < 0.7


@pytest.mark.parametrize(
    ("change", "said"), [(np.zeros_like, {"constant": True}), (lambda array: array / 0, {"finite": False})]
)
def test_inputs_that_are_constant_or_no_numbers_are_said(digits, capsys, change, said):
    data = numbers(digits)
    with np.errstate(all="ignore"):
        data = split(change(data.inputs), data.labels)
    facts = doctor.Doctor(perceptron(hidden=[4]), Batches(data, 32), params.Fit()).facts
    assert said.items() <= facts.items()
    assert "warning: " in capsys.readouterr().out  # before the first step


# ── Within a training ──────────────────────────────────────────────────────────────────────────────────


class KilledError(Exception):
    """Ends a training as a signal would."""


@pytest.fixture
def train(workspace, digits):
    """Trains a network with dropout and normalisation, with a doctor or without."""

    def run(watched: bool = True, kill_after: int | None = None, **settings: Any) -> tuple[Any, Any, bytes]:
        engine.start(0)
        chosen = params.Fit.model_validate({"epochs": 4, "batch_size": 32, **settings})
        options = mlp.Options(hidden=[16], batch_normalization=True, dropout=0.3)
        model = mlp.build(Frame(NUMBERS, CLASSES), options)
        data = numbers(digits)
        batches = Batches(data, 32, 0)
        compiling.compile_model(model, classification, chosen, len(batches))
        watching = doctor.Doctor(model, batches, chosen) if watched else None
        keeper = checkpoint.Keeper(model, chosen, {})

        def watch(progress: checkpoint.Progress) -> None:
            if watching:
                watching.watch(progress)
            if progress.epoch - 1 == kill_after:
                raise KilledError

        history = fit.train_model(model, batches, Batches(data, 32), chosen, keeper, watch)
        if watching:
            watching.write(keeper.progress)
        written = doctor.PATH.read_bytes() if watching else b""
        return history, [np.asarray(variable).tobytes() for variable in model.variables], written

    return run


@pytest.mark.slow
def test_a_training_is_the_same_to_the_byte_with_and_without_a_doctor(train):
    with_doctor = train()
    checkpoint.PATH.unlink()
    without = train(watched=False)
    assert with_doctor[:2] == without[:2]


@pytest.mark.slow
def test_a_training_that_was_killed_leaves_the_same_diagnosis(train):
    whole = train()
    checkpoint.PATH.unlink()
    with pytest.raises(KilledError):
        train(kill_after=2)
    assert train() == whole
    assert train() == whole  # where nothing is left to train
    assert [record["epoch"] for record in json.loads(whole[2])["records"]] == [0, 1, 2]


@pytest.mark.slow
def test_a_warning_is_said_once_when_it_is_first_reached_even_if_the_training_is_killed(train, capsys):
    high = {"optimizer": {"name": "adam", "learning_rate": 1000.0}}
    with pytest.raises(KilledError):
        train(**high, kill_after=2)
    train(**high)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning:")]
    assert len(said) == 1
    assert said[0].startswith("warning: learning rate too high: ")
    assert "fit.optimizer.learning_rate" in said[0]


def test_a_loss_that_is_never_a_number_is_an_error_that_says_where_it_began(train):
    with pytest.raises(UserError) as error:
        train(optimizer={"name": "sgd", "learning_rate": 3e38}, steps_per_execution=4)
    assert "infinite or no number in steps 1 to 4 of epoch 1, first in the weights of layer dense" in str(
        error.value
    )
    written = json.loads(doctor.PATH.read_text())
    assert [verdict["name"] for verdict in written["verdicts"]] == ["nan"]


def test_a_loss_that_stops_being_a_number_is_a_verdict_beside_the_best_epoch(train):
    rate = {"name": "PiecewiseConstantDecay", "boundaries": [15], "values": [0.1, 3e38]}
    history, _, written = train(optimizer={"name": "sgd", "learning_rate": rate}, steps_per_execution=1)
    assert len(history) == 1
    [verdict] = json.loads(written)["verdicts"]
    assert (verdict["name"], verdict["epoch"]) == ("nan", 2)

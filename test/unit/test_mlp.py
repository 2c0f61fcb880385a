"""The multilayer perceptron: it compiles, has the right shapes, learns, and is saved and exported whole."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes

from src import conversion, engine
from src.architectures import mlp
from src.architectures.mlp import Options
from src.errors import UserError
from src.evaluate import export
from src.network import Frame, Input, Output
from src.tasks import tabular

engine_started = pytest.fixture(scope="module", autouse=True)(lambda: engine.start())


@pytest.fixture(scope="module")
def cancer() -> tuple[Input, np.ndarray, np.ndarray]:
    """Both ends of real rows: what the network takes, 569 encoded rows, and their classes."""
    data = load_breast_cancer(as_frame=True)
    raws = data.data.assign(kind=["a", "b", None] * 189 + ["a", "b"], same=1).to_dict("records")
    encoder = tabular.Encoder.learn(raws, tabular.Options())
    inputs = np.stack([encoder.encode(raw) for raw in raws])
    return Input(encoder.shape, encoder.dtype, encoder.layers), inputs, data.target.to_numpy()


def build(shape: tuple[int, ...], units: int = 2, layers: Any = (), **options: Any) -> Any:
    """A network from numbers to a probability for each class."""
    return mlp.build(
        Frame(Input(shape, "float32", list(layers)), Output(units, "softmax")), Options(**options)
    )


def layers(model: Any) -> list[str]:
    return [f"{type(layer).__name__} {layer.count_params()}" for layer in model.layers]


@pytest.mark.parametrize("hidden", [[], [5], [64, 32, 16, 8]])
@pytest.mark.parametrize("shape", [(1,), (30,), (7, 3), (8, 8, 3), (2, 3, 4, 5)])
def test_inputs_of_any_rank_are_taken_as_one_vector(shape, hidden):
    model = build(shape, units=4, hidden=hidden)
    assert model.input_shape == (None, *shape)
    outputs = np.asarray(model(np.random.default_rng(0).normal(size=(3, *shape)).astype(np.float32)))
    assert (outputs.shape, outputs.dtype) == ((3, 4), np.float32)
    assert outputs.sum(axis=1) == pytest.approx(1, abs=1e-5)
    sizes = [int(np.prod(shape)), *hidden, 4]
    assert model.count_params() == sum((a + 1) * b for a, b in pairwise(sizes))


def test_every_option_changes_the_network():
    usual = layers(build((6,)))
    changes: list[dict[str, Any]] = [{"hidden": []}, {"hidden": [64]}, {"batch_normalization": True}]
    assert len({tuple(layers(build((6,), **change))) for change in [{}, *changes]}) == 4
    assert "Dropout 0" not in usual
    dropouts = [each for each in build((6,), dropout=0.4).layers if type(each).__name__ == "Dropout"]
    assert [each.rate for each in dropouts] == [0.4, 0.4]
    names = [each.activation.__name__ for each in build((6,), activation="tanh").layers if "act" in each.name]
    assert names == ["tanh", "tanh"]


def test_without_hidden_layers_it_is_linear():
    model = mlp.build(Frame(Input((3,), "float32"), Output(1, "linear")), Options(hidden=[]))
    one, two = np.eye(3, dtype=np.float32)[:1], np.eye(3, dtype=np.float32)[1:2]
    zero = np.asarray(model(0 * one))
    assert np.asarray(model(one + two)) == pytest.approx(
        np.asarray(model(one)) + np.asarray(model(two)) - zero
    )


def test_an_unknown_activation_and_tokens_name_the_key():
    with pytest.raises(UserError, match=r"model\.activation: Activation refuses its arguments: .*reluu"):
        build((6,), activation="reluu")
    tokens = Input((6,), "int32", vocabulary=["", "good", "bad"])
    with pytest.raises(UserError, match="architecture: mlp takes numbers, found tokens; expected rnn or cnn"):
        mlp.build(Frame(tokens, Output(2, "softmax")), Options())


def test_padding_that_is_masked_is_zero_whatever_it_was():
    masked = build((5, 2), layers=[{"Masking": {"mask_value": -1.0}}], hidden=[])
    inputs = np.random.default_rng(1).normal(size=(2, 5, 2)).astype(np.float32)
    inputs[:, 3:] = -1
    plain = build((5, 2), hidden=[])
    plain.set_weights(masked.get_weights())
    zeros = np.where(inputs == -1, 0, inputs)
    assert np.asarray(masked(inputs)) == pytest.approx(np.asarray(plain(zeros)))


def test_real_training_beats_the_larger_class_by_far(cancer):
    ends, inputs, labels = cancer
    engine.start(seed=0)
    model = mlp.build(Frame(ends, Output(2, "softmax")), Options(hidden=[16], dropout=0.1))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.learning_rate = 0.01
    for _ in range(5):
        for start in range(0, 400, 40):
            model.train_on_batch(inputs[start : start + 40], labels[start : start + 40])
    assert model.evaluate(inputs[400:], labels[400:], verbose=0)[1] > 0.93  # the larger class is 0.76 there


def test_a_linear_model_of_numbers_finds_least_squares():
    data = load_diabetes()
    inputs, labels = (data.data / data.data.std(axis=0)).astype(np.float32), data.target.astype(np.float32)
    rescaling: Any = [{"Rescaling": {"scale": float(labels.std()), "offset": float(labels.mean())}}]
    engine.start(seed=0)
    frame = Frame(Input((10,), "float32"), Output(1, "linear", rescaling))
    model = mlp.build(frame, Options(hidden=[]))
    model.compile("adam", "mean_squared_error")
    model.optimizer.learning_rate = 0.05
    for _ in range(150):
        model.train_on_batch(inputs, labels)
    design = np.c_[inputs, np.ones(len(inputs))]
    best = labels - design @ np.linalg.lstsq(design, labels, rcond=None)[0]
    assert model.evaluate(inputs, labels, verbose=0) == pytest.approx(np.mean(best**2), rel=0.02)


@pytest.mark.parametrize("normalised", [False, True], ids=["plain", "batch normalisation"])
def test_saved_loaded_and_exported_it_predicts_the_same(cancer, workspace, normalised):
    ends, inputs, _ = cancer
    model = mlp.build(Frame(ends, Output(2, "softmax")), Options(batch_normalization=normalised))
    assert ends.shape == (35,)  # names, others, missing and a column that is the same beside the thirty
    engine.save(model, Path("model.keras"))
    loaded = engine.load(Path("model.keras"))
    expected = model.predict(inputs, verbose=0)
    assert np.array_equal(expected, loaded.predict(inputs, verbose=0))
    conversion.convert(loaded, Path("model.onnx"))
    assert export.run(Path("model.onnx"), inputs) == pytest.approx(expected, abs=1e-5)


def test_what_training_never_saw_change_changes_nothing(cancer):
    ends, inputs, _ = cancer
    model = mlp.build(Frame(ends, Output(2, "softmax")), Options())
    odd = inputs[:5].copy()
    odd[:, -1] = 1e6  # `same`
    assert np.array_equal(np.asarray(model(odd)), np.asarray(model(inputs[:5])))


def test_the_same_seed_gives_the_same_weights():
    def weights(seed: int) -> np.ndarray:
        engine.start(seed)
        return np.concatenate([weight.ravel() for weight in build((6,)).get_weights()])

    assert np.array_equal(weights(3), weights(3))
    assert not np.array_equal(weights(3), weights(4))

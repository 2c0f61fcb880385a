"""The convolutional network over spectrograms and volumes: shapes, training, and export to ONNX."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src import engine
from src.architectures import cnn
from src.conversion import convert
from src.evaluate.export import run
from src.files import sha256
from src.network import Frame, Input, Output
from src.tasks import audio, volume

engine_started = pytest.fixture(scope="module", autouse=True)(lambda: engine.start())

SMALL = cnn.Options(filters=[4, 8], dropout=0.0)


def build(encoder: Any, units: int = 3, options: cnn.Options = SMALL) -> Any:
    """A network from what an encoder makes to a probability for each of so many classes."""
    ends = Frame(Input(encoder.shape, encoder.dtype, encoder.layers), Output(units, "softmax"))
    return cnn.build(ends, options)


def clips(count: int = 6) -> tuple[audio.Encoder, np.ndarray]:
    """An encoder of half seconds, and noises that grow louder, (count, 4000) int16; the first is silence."""
    encoder = audio.Encoder(audio.Options(rate=8000, seconds=0.5, mel_bins=20))
    noise = np.random.default_rng(0).normal(size=(count, 4000)) * np.linspace(0, 8000, count)[:, None]
    return encoder, noise.astype(np.int16)


def blocks(count: int = 6) -> tuple[volume.Encoder, np.ndarray]:
    """An encoder of volumes, and noises that grow brighter, (count, 8, 12, 16, 1) uint8."""
    encoder = volume.Encoder(volume.Options(size=[8, 12, 16]), (0, 1))
    noise = (
        np.random.default_rng(0).random((count, 8, 12, 16, 1))
        * np.linspace(0, 255, count)[:, None, None, None, None]
    )
    return encoder, noise.astype(np.uint8)


KINDS: dict[str, Callable[[], tuple[Any, np.ndarray]]] = {"clips": clips, "volumes": blocks}
each_kind = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


@each_kind
@pytest.mark.parametrize("classes", [2, 5])
def test_outputs_are_one_probability_for_each_class(make, classes):
    encoder, inputs = make()
    model = build(encoder, classes)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    assert model.input_shape == (None, *encoder.shape)
    assert model.inputs[0].dtype == encoder.dtype
    outputs = np.asarray(model(inputs))
    assert (outputs.shape, outputs.dtype) == ((6, classes), np.float32)
    assert outputs.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_a_spectrogram_has_two_dimensions_and_a_volume_three():
    def kinds(encoder: Any) -> list[str]:
        return [type(layer).__name__ for layer in build(encoder).layers]

    assert {"MelSpectrogram", "Conv2D", "MaxPooling2D", "GlobalAveragePooling2D"} <= set(kinds(clips()[0]))
    assert {"Conv3D", "MaxPooling3D", "GlobalAveragePooling3D"} <= set(kinds(blocks()[0]))


@each_kind
def test_the_same_seed_trains_the_same_weights_and_lowers_the_loss(make):
    encoder, inputs = make()
    labels = np.array([0, 0, 1, 1, 2, 2])

    def train() -> tuple[list[float], np.ndarray]:
        engine.start(seed=3)
        model = build(encoder)
        # Step by step: the operations are the same as in a graph, which takes seconds to make.
        model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
        model.optimizer.learning_rate = 0.01
        losses = [float(model.train_on_batch(inputs, labels)) for _ in range(10)]
        return losses, np.concatenate([weights.ravel() for weights in model.get_weights()])

    (losses, weights), (_, again) = train(), train()
    assert np.array_equal(weights, again)
    assert losses[-1] < losses[0]


@each_kind
def test_it_is_loaded_in_safe_mode_and_exported_as_the_same_function(make, workspace):
    encoder, inputs = make()
    model = build(encoder)
    engine.save(model, Path("model.keras"))
    loaded = engine.load(Path("model.keras"))
    expected = np.asarray(model(inputs))
    assert np.array_equal(loaded([inputs]), expected)

    convert(loaded, Path("model.onnx"))
    assert run(Path("model.onnx"), inputs) == pytest.approx(expected, abs=1e-5)
    assert run(Path("model.onnx"), inputs[:1]) == pytest.approx(expected[:1], abs=1e-5)
    convert(loaded, Path("again.onnx"))
    assert sha256("again.onnx") == sha256("model.onnx")


def test_a_spectrogram_itself_is_the_same_without_keras(workspace):
    import keras

    encoder = audio.Encoder(audio.Options(rate=8000, seconds=0.5, mel_bins=20, window_ms=20))
    _, inputs = clips()
    model = keras.Model(*Frame(Input(encoder.shape, "int16", encoder.layers), Output(1, "linear")).begin())
    convert(model, Path("spectrogram.onnx"))
    found = run(Path("spectrogram.onnx"), inputs)
    assert found.std() > 0.5
    assert found == pytest.approx(np.asarray(model(inputs)), abs=1e-4)

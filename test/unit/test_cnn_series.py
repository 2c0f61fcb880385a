"""The convolutional network on series: what they are padded with, and how far, is nothing to it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from src import conversion, engine
from src.architectures import cnn, rnn
from src.errors import UserError
from src.evaluate import export
from src.network import Frame, Input, Output
from src.tasks.time_series import PADDING, Encoder
from src.tasks.time_series import Options as Encode

engine_started = pytest.fixture(scope="module", autouse=True)(lambda: engine.start())

SMALL = {"filters": [8, 16], "dropout": 0.0}
NETWORKS = [
    (cnn, SMALL),
    (cnn, {**SMALL, "convolutions": 2, "kernel": 5}),
    (cnn, {**SMALL, "batch_normalization": False, "dense": [8]}),
    (rnn, {"units": 8}),
    (rnn, {"units": 8, "cell": "lstm", "layers": 2, "pooling": "mean"}),
]


@pytest.fixture(scope="module")
def vowels(root) -> tuple[Callable[[int], np.ndarray], Encoder, np.ndarray]:
    """Utterances of 8 to 26 steps: encoded to any length, their encoder, and their speakers as numbers."""
    rows = pd.read_parquet(root / "datasets/vowels/train.parquet")
    rows = rows[rows["series"] % 15 == 0]
    raws = [part.filter(like="cepstrum").to_csv(index=False).encode() for _, part in rows.groupby("series")]
    encoder = Encoder.learn(raws, Encode())

    def pad(length: int) -> np.ndarray:
        longer = Encoder(Encode(length=length), encoder.channels, encoder.mean, encoder.deviation)
        return np.stack([longer.encode(raw) for raw in raws])

    return pad, encoder, rows.groupby("series")["label"].first().factorize()[0]


def build(encoder: Encoder, length: int, module: Any, options: dict[str, Any]) -> Any:
    series = Input((length, len(encoder.mean)), "float32", encoder.layers)
    return module.build(Frame(series, Output(9, "softmax")), module.Options(**options))


@pytest.mark.parametrize(("module", "options"), NETWORKS)
def test_how_far_a_series_is_padded_changes_no_output(vowels, module, options):
    pad, encoder, _ = vowels
    short, long = (build(encoder, length, module, options) for length in (32, 45))
    long.set_weights(short.get_weights())
    expected = np.asarray(short(pad(32)))
    assert expected.std(axis=0).max() > 1e-2  # it tells the series apart
    assert np.asarray(long(pad(45))) == pytest.approx(expected, abs=1e-6)


def test_how_far_a_series_is_padded_changes_nothing_that_is_learned(vowels):
    pad, encoder, labels = vowels

    def learned(length: int) -> list[np.ndarray]:
        engine.start(seed=0)
        model = build(encoder, length, cnn, SMALL)
        model.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
        model.train_on_batch(pad(length), labels)
        return model.get_weights()

    for found, expected in zip(learned(75), learned(32), strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


def test_a_padded_series_gives_what_it_gives_alone(vowels):
    pad, encoder, _ = vowels
    inputs = pad(32)
    lengths = (inputs != PADDING).any(axis=2).sum(axis=1)
    row = int(np.flatnonzero(lengths % 4 == 0)[0])  # no step is left over where the two blocks halve it
    padded, alone = (build(encoder, int(length), cnn, SMALL) for length in (32, lengths[row]))
    alone.set_weights(padded.get_weights())
    expected = np.asarray(alone(inputs[[row], : lengths[row]]))
    assert np.asarray(padded(inputs[[row]])) == pytest.approx(expected, abs=1e-6)


def test_flattened_padding_is_zero_whatever_stands_there(vowels):
    import keras

    pad, encoder, _ = vowels
    model = build(encoder, 32, cnn, {**SMALL, "flatten": True})
    flat = next(layer for layer in model.layers if isinstance(layer, keras.layers.Flatten))
    outputs = np.asarray(keras.Model(model.input, flat.output)(pad(32))).reshape(-1, 8, 16)
    positions = -(-(pad(32) != PADDING).any(axis=2).sum(axis=1) // 4)
    for steps, real in zip(outputs, positions, strict=True):
        assert steps[:real].any(axis=1).all()
        assert not steps[real:].any()


def test_the_network_standardises_raw_values_itself(vowels):
    import keras

    pad, encoder, _ = vowels
    model = build(encoder, 32, cnn, SMALL)
    rescaling = next(layer for layer in model.layers if isinstance(layer, keras.layers.Rescaling))
    inputs = pad(32)
    steps = np.asarray(keras.Model(model.input, rescaling.output)(inputs))[(inputs != PADDING).any(axis=2)]
    assert steps.mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert steps.std(axis=0) == pytest.approx(1, abs=1e-5)


def test_padded_series_are_exported_to_onnx(vowels, workspace):
    pad, encoder, _ = vowels
    engine.save(build(encoder, 26, cnn, {**SMALL, "convolutions": 2}), Path("model.keras"))
    model = engine.load(Path("model.keras"))
    conversion.convert(model, Path("model.onnx"))
    expected = model.predict(pad(26), verbose=0)
    assert export.run(Path("model.onnx"), pad(26)) == pytest.approx(expected, abs=1e-5)


def test_too_short_series_name_the_key_and_the_length(vowels):
    _, encoder, _ = vowels
    with pytest.raises(UserError, match=r"model\.filters: found 3 blocks.*fewer for inputs of 7 × 12$"):
        build(encoder, 7, cnn, {"filters": [4, 4, 4]})

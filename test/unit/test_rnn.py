"""The recurrent network: it compiles, has the right shapes, masks padding, and takes vectors from a file."""

import gzip
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from src import conversion, engine
from src.architectures import rnn
from src.architectures.rnn import Embedding, Options, read_vectors
from src.errors import UserError
from src.evaluate import export
from src.network import Frame, Input, Layers, Output
from src.tasks import text

engine_started = pytest.fixture(scope="module", autouse=True)(lambda: engine.start())

WORDS = ["[PAD]", "[UNK]", "film", "good", "bad", "dull"]
MASKED: Layers = [{"Masking": {"mask_value": 0.0}}]


def sentences(length: int = 12, vocabulary: list[str] = WORDS, units: int = 3) -> Frame:
    """Token numbers to a probability for each of so many classes."""
    return Frame(Input((length,), "int32", [], vocabulary), Output(units, "softmax"))


def series(steps: int = 12, channels: int = 4, layers: Layers = MASKED) -> Frame:
    """Measurements of several channels to a probability for each of three classes."""
    return Frame(Input((steps, channels), "float32", layers), Output(3, "softmax"))


def examples(frame: Frame, count: int = 8) -> np.ndarray:
    """Examples of 1 to 10 steps, and padding behind them."""
    draw = np.random.default_rng(0)
    batch = np.zeros((count, *frame.input.shape), frame.input.dtype)
    for example in batch:
        steps = draw.integers(1, 11)
        if frame.input.vocabulary:
            example[:steps] = draw.integers(1, len(frame.input.vocabulary), steps)
        else:
            example[:steps] = draw.normal(size=(steps, example.shape[1]))
    return batch


def small(**options: Any) -> Options:
    return Options(units=5, embedding=Embedding(dimension=4), **options)


VARIANTS = [
    small(),
    small(cell="lstm"),
    small(bidirectional=False),
    small(layers=2),
    small(pooling="mean"),
]
NAMES = ["gru", "lstm", "one direction", "two layers", "mean"]
variants = pytest.mark.parametrize("options", VARIANTS, ids=NAMES)
# Of tokens and of series: each cell, one and two directions, one and two layers, last states and their mean.
MIXED: dict[str, tuple[Callable[..., Frame], Options]] = {
    "tokens": (sentences, small()),
    "tokens, deep": (sentences, small(cell="lstm", bidirectional=False, layers=2)),
    "series": (series, small(pooling="mean")),
}
mixed = pytest.mark.parametrize(("make", "options"), MIXED.values(), ids=MIXED)


def draw_weights(model: Any) -> None:
    """Gives a network weights that are large enough for its outputs to differ."""
    draw = np.random.default_rng(1)
    model.set_weights([draw.normal(0, 1, weight.shape) for weight in model.get_weights()])


# ── The network ────────────────────────────────────────────────────────────────────────────────────────


@variants
def test_outputs_are_one_probability_for_each_class_and_depend_on_the_words_and_their_order(options):
    model = rnn.build(sentences(), options)
    draw_weights(model)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    assert model.input_shape == (None, 12)
    assert model.inputs[0].dtype == "int32"
    inputs = np.zeros((3, 12), np.int32)
    inputs[:, :3] = [[2, 3, 4], [4, 3, 2], [2, 3, 5]]
    outputs = np.asarray(model(inputs))
    assert (outputs.shape, outputs.dtype) == ((3, 3), np.float32)
    assert outputs.sum(axis=1) == pytest.approx(1, abs=1e-5)
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(outputs[first] - outputs[second]).max() > 1e-3


@mixed
def test_more_padding_changes_no_output(make, options):
    inputs = examples(make())
    model, longer = rnn.build(make(), options), rnn.build(make(20), options)
    draw_weights(model)
    longer.set_weights(model.get_weights())
    padded = np.zeros((8, 20, *inputs.shape[2:]), inputs.dtype)
    padded[:, :12] = inputs
    expected = np.asarray(model(inputs))
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(np.asarray(longer(padded)), expected, atol=1e-6)


def test_every_option_changes_the_network():
    def layers(options: Options) -> tuple[str, ...]:
        model = rnn.build(sentences(), options)
        return tuple(f"{type(layer).__name__} {layer.count_params()}" for layer in model.layers)

    wider = Options(units=6, embedding=Embedding(dimension=4))
    deeper = Options(units=5, embedding=Embedding(dimension=7))
    assert len({layers(options) for options in [*VARIANTS, wider, deeper]}) == len(VARIANTS) + 2
    dropped = rnn.build(sentences(), small(dropout=0.4))
    assert [layer.rate for layer in dropped.layers if type(layer).__name__ == "Dropout"] == [0.4]
    embedding = Embedding(dimension=4, dropout=0.6, trainable=False)
    frozen = rnn.build(sentences(), Options(units=5, embedding=embedding))
    assert [layer.rate for layer in frozen.layers if type(layer).__name__ == "SpatialDropout1D"] == [0.6]
    assert frozen.layers[1].trainable_weights == []
    assert len(rnn.build(sentences(), small()).layers[1].trainable_weights) == 1


def test_series_are_taken_without_an_embedding_and_without_a_mask_if_there_is_none():
    for layers in (MASKED, []):
        model = rnn.build(series(layers=layers), small())
        assert "Embedding" not in [type(layer).__name__ for layer in model.layers]
    assert np.ptp(np.asarray(model(examples(series()))), axis=0).min() > 1e-3


@pytest.mark.parametrize("shape", [(7,), (28, 28, 1), (8, 8, 8, 1)])
def test_inputs_that_are_no_sequence_are_one_sentence(shape):
    found = " × ".join(map(str, shape))
    message = f"^architecture: rnn takes sentences and series, found inputs of {found}$"
    with pytest.raises(UserError, match=message):
        rnn.build(Frame(Input(shape, "float32"), Output(2, "softmax")), Options())


def test_real_training_steps_tell_good_reviews_from_bad_ones(root):
    engine.start(seed=0)
    table = pd.read_parquet(root / "datasets/reviews/snippets.parquet")
    table = table.loc[table["score"].abs().sort_values(ascending=False).index[:120]]  # the clearest ones
    encoder = text.Encoder.learn(table["text"], text.Options(length=12))
    inputs = np.stack([encoder.encode(sentence) for sentence in table["text"]])
    labels = (table["score"] > 0).to_numpy().astype(int)
    embedding = Embedding(dimension=16)
    options = Options(units=8, bidirectional=False, dropout=0.0, embedding=embedding)
    model = rnn.build(sentences(inputs.shape[1], encoder.vocabulary, 2), options)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.optimizer.learning_rate = 0.02
    model.fit(inputs, labels, batch_size=30, epochs=8, verbose=0)
    assert model.evaluate(inputs, labels, verbose=0)[1] > 0.85


@pytest.mark.parametrize("name", ["tokens, deep", "series"])
def test_the_onnx_file_predicts_as_keras_does_on_sequences_of_any_length(name, workspace):
    make, options = MIXED[name]
    model = rnn.build(make(), options)
    draw_weights(model)
    engine.save(model, Path("model.keras"))
    conversion.convert(engine.load(Path("model.keras")), Path("model.onnx"))
    inputs = examples(make(), 40)
    expected = np.asarray(model(inputs))
    assert np.ptp(expected, axis=0).max() > 0.1
    np.testing.assert_allclose(export.run(Path("model.onnx"), inputs), expected, atol=1e-5)


def test_applications_are_told_the_sizes_by_the_names_they_know():
    options = small(cell="lstm", layers=2, dropout=0.25)
    assert rnn.describe(sentences(), options) == {
        "model_name": "rnn",
        "recurrent_layer": "LSTM",
        "input_dim": 6,
        "embedding_dim": 4,
        "hidden_dim": 5,
        "output_dim": 3,
        "number_of_layers": 2,
        "bidirectional": True,
        "dropout": 0.25,
        "pad_index": 0,
    }
    described = rnn.describe(series(), options)
    assert [described[key] for key in ("input_dim", "embedding_dim", "pad_index")] == [4, None, None]


# ── Pretrained vectors ─────────────────────────────────────────────────────────────────────────────────

LINES: dict[str, list[float]] = {
    "film": [1, 2, 3],
    "good": [0.5, -1, 2],
    "bad": [-0.5, 1e-3, -2],
    ". . .": [9, 9, 9],
}


def lines(header: str = "") -> str:
    return header + "".join(f"{word} {' '.join(map(str, row))}\n" for word, row in LINES.items())


def write_array(stem: str, words: list[str], rows: list[list[float]]) -> None:
    np.save(f"{stem}.npy", np.array(rows, np.float16))
    Path(f"{stem}.txt").write_text("".join(f"{word}\n" for word in words))


@pytest.mark.parametrize("name", ["glove.txt", "word2vec.txt", "glove.txt.gz", "array.npy"])
def test_vectors_are_read_from_every_kind_of_file(workspace, name, capsys):
    content = lines("4 3\n" if name == "word2vec.txt" else "")
    if name.endswith(".npy"):
        write_array("array", list(LINES), list(LINES.values()))
    else:
        Path(name).write_bytes(gzip.compress(content.encode()) if name.endswith(".gz") else content.encode())
    matrix = read_vectors(Path(name), [*WORDS, ". . ."], 3)
    assert (matrix.shape, matrix.dtype) == ((7, 3), np.float32)
    for token, row in LINES.items():
        assert matrix[[*WORDS, ". . ."].index(token)] == pytest.approx(row, rel=1e-3)
    assert matrix[0].tolist() == [0, 0, 0]
    assert capsys.readouterr().out == f"{name}: 57.1% of 7 tokens have a vector\n"


def test_words_without_a_vector_get_small_random_ones_that_are_always_the_same(workspace):
    Path("v.txt").write_text(lines())
    first, second = read_vectors(Path("v.txt"), WORDS, 3), read_vectors(Path("v.txt"), WORDS, 3)
    assert np.array_equal(first, second)
    unknown, dull = first[1], first[5]
    assert not np.array_equal(unknown, dull)
    assert 0 < np.abs([unknown, dull]).max() < 5


@pytest.mark.parametrize("trainable", [True, False])
def test_the_network_begins_with_the_vectors_of_the_file(workspace, trainable):
    Path("v.txt").write_text(lines())
    embedding = Embedding(dimension=3, vectors="v.txt", trainable=trainable)
    model = rnn.build(sentences(), Options(units=5, bidirectional=False, embedding=embedding))
    model.compile("adam", "sparse_categorical_crossentropy")
    before = model.layers[1].get_weights()[0]
    assert np.array_equal(before, read_vectors(Path("v.txt"), WORDS, 3))
    model.train_on_batch(examples(sentences()), np.arange(8) % 3)
    assert np.array_equal(model.layers[1].get_weights()[0], before) != trainable


def test_memory_holds_the_vocabulary_not_the_file(workspace):
    row = " 0.125" * 50
    with open("large.txt", "w") as file:
        file.writelines(f"word{number}{row}\n" for number in range(20_000))
    assert Path("large.txt").stat().st_size > 6e6
    tracemalloc.start()
    read_vectors(Path("large.txt"), ["[PAD]", "[UNK]", "word17", "word19999"], 50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


BAD = {
    "another dimension": ("v.txt", lines(), 4, "vectors of 3 numbers, but model.embedding.dimension is 4"),
    "another in the header": ("v.txt", lines("4 3\n"), 2, "vectors of 3 numbers, but model.embedding.dim"),
    "a short line": ("v.txt", lines() + "dull 1 2\n", 3, "line 5 has 2 numbers, expected 3"),
    "a word for a number": ("v.txt", lines() + "dull 1 x 2\n", 3, "line 5: could not convert string to fl"),
    "not a number": ("v.txt", lines() + "dull 1 nan 2\n", 3, "line 5: a number is not finite"),
    "no zip file": ("v.txt.gz", lines(), 3, "Not a gzipped file"),
    "no array": ("v.npy", lines(), 3, "This file contains pickled (object) data"),
    "no known word": ("v.txt", "kitchen 1 2 3\n", 3, "has no vector for any of the 6 tokens; expected words"),
    "an empty file": ("v.txt", "", 3, "has no vector for any of the 6 tokens"),
}


@pytest.mark.parametrize(("name", "content", "dimension", "reason"), BAD.values(), ids=BAD)
def test_broken_vectors_are_one_sentence_that_names_the_file(workspace, name, content, dimension, reason):
    Path(name).write_text(content)
    Path("v.txt").touch()
    with pytest.raises(
        UserError, match=f"^model\\.embedding\\.vectors: {name}:? {re.escape(reason)}"
    ) as error:
        read_vectors(Path(name), WORDS, dimension)
    assert "\n" not in str(error.value)


def test_a_gzip_file_that_ends_early_is_one_sentence(workspace):
    Path("v.txt.gz").write_bytes(gzip.compress(lines().encode())[:-12])
    with pytest.raises(UserError, match=r"^model\.embedding\.vectors: v\.txt\.gz: Compressed file ended"):
        read_vectors(Path("v.txt.gz"), WORDS, 3)


def test_missing_files_are_named(workspace):
    with pytest.raises(UserError, match=r"vectors: v\.txt not found; expected word vectors$"):
        read_vectors(Path("v.txt"), WORDS, 3)
    np.save("v.npy", np.zeros((2, 3)))
    with pytest.raises(UserError, match=r"vectors: v\.txt not found; expected word vectors$"):
        read_vectors(Path("v.npy"), WORDS, 3)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([[1, 2, 3]], "1 rows, but 2 words in v.txt"),
        ([[1, 2, 3, 4]] * 2, "vectors of 4 numbers, but model.embedding.dimension is 3"),
        ([[1, 2, np.inf]] * 2, "row 0: a number is not finite"),
    ],
)
def test_an_array_that_does_not_fit_its_words_is_one_sentence(workspace, rows, reason):
    write_array("v", ["film", "good"], rows)
    with pytest.raises(UserError, match=re.escape(f"model.embedding.vectors: v.npy: {reason}")):
        read_vectors(Path("v.npy"), WORDS, 3)

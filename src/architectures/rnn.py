"""A recurrent network: LSTM or GRU layers over sentences, whose tokens are embedded, or over series.

Padding is masked: a step that is padded changes no state, and how far a sequence is padded no output.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from src.errors import UserError
from src.network import Frame
from src.params import Section

if TYPE_CHECKING:
    import keras

Row = tuple[str, str, Any]  # where it stands, a word, its numbers
PADDING = 0  # the token that sentences are padded with
Units = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class Embedding(Section):
    """`model.embedding:` how tokens become vectors; series are taken as they are."""

    dimension: Units = 100
    dropout: Rate = 0.0  # of whole dimensions of a sentence's vectors
    # Pretrained: a text file of GloVe's or word2vec's, also as .gz, or a .npy whose words stand in a .txt of
    # the same name. DVC watches this path, not the file: after a change inside it, `dvc repro --force fit`.
    vectors: str | None = None
    trainable: bool = True


class Options(Section):
    """`model:` the recurrent layers."""

    cell: Literal["gru", "lstm"] = "gru"
    units: Units = 64  # of the state, in each direction
    layers: Units = 1
    bidirectional: bool = True
    pooling: Literal["last", "mean"] = "last"  # of the last layer: its last states, or all of them
    dropout: Rate = 0.3  # of what each layer gives
    embedding: Embedding = Embedding()


def build(frame: Frame, options: Options) -> "keras.Model":
    """Builds the network.

    Args:
        frame: Tokens, (length,) whole numbers with a vocabulary; or its first layers give (steps, channels),
            masked where a `Masking` layer is among them.
        options: The `model:` section.

    Raises:
        UserError: If the inputs are neither.
    """
    from keras import layers

    inputs, x = frame.begin()
    if frame.input.vocabulary:
        x = _embed(x, frame.input.vocabulary, options.embedding)
    if len(x.shape) != 3:
        found = " × ".join(map(str, frame.input.shape))
        raise UserError(f"architecture: rnn takes sentences and series, found inputs of {found}")
    cell = {"gru": layers.GRU, "lstm": layers.LSTM}[options.cell]
    for number in range(1, options.layers + 1):
        layer = cell(options.units, return_sequences=number < options.layers or options.pooling == "mean")
        x = layers.Bidirectional(layer)(x) if options.bidirectional else layer(x)
        x = layers.Dropout(options.dropout)(x)
    if options.pooling == "mean":
        x = layers.GlobalAveragePooling1D()(x)
    return frame.end(inputs, x, "rnn")


def _embed(x: "keras.KerasTensor", tokens: list[str], options: Embedding) -> "keras.KerasTensor":
    """Returns the vectors of tokens, (length, dimension), masked where they are padding."""
    from keras import layers

    table = layers.Embedding(len(tokens), options.dimension, mask_zero=True, trainable=options.trainable)
    x = table(x)
    if options.vectors is not None:
        table.set_weights([read_vectors(Path(options.vectors), tokens, options.dimension)])
    return layers.SpatialDropout1D(options.dropout)(x)


def describe(frame: Frame, options: Options) -> dict[str, Any]:
    """Returns the network's sizes by the names that applications know, for inference.json."""
    tokens = len(frame.input.vocabulary)
    return {
        "model_name": "rnn",
        "recurrent_layer": options.cell.upper(),
        "input_dim": tokens or frame.begin()[1].shape[-1],
        "embedding_dim": options.embedding.dimension if tokens else None,
        "hidden_dim": options.units,
        "output_dim": frame.output.units,
        "number_of_layers": options.layers,
        "bidirectional": options.bidirectional,
        "dropout": options.dropout,
        "pad_index": PADDING if tokens else None,
    }


# ── Pretrained vectors ─────────────────────────────────────────────────────────────────────────────────


def read_vectors(path: Path, tokens: Sequence[str], dimension: int) -> np.ndarray:
    """Reads the vectors of some tokens, line by line, and says how many have one.

    The others get random ones of the same variance, always the same: Kim (2014), Convolutional Neural
    Networks for Sentence Classification, section 4.3. That of padding, which is masked, is zero.

    Args:
        path: The file.
        tokens: The vocabulary, padding first.
        dimension: Numbers of a vector.

    Returns:
        (tokens, dimension) float32.

    Raises:
        UserError: If the file is missing or broken, has another dimension or none of the tokens.
    """
    rows = {token: row for row, token in enumerate(tokens)}
    matrix = np.full((len(tokens), dimension), np.nan, np.float32)
    read = _read_array if path.suffix == ".npy" else _read_text
    try:
        for place, word, numbers in read(path, dimension):
            if word in rows:
                matrix[rows[word]] = _floats(numbers, place)
    except FileNotFoundError as error:
        raise UserError(
            f"model.embedding.vectors: {error.filename} not found; expected word vectors"
        ) from None
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"model.embedding.vectors: {path}: {error}") from None
    missing = np.isnan(matrix).any(axis=1)
    if missing.all():
        raise UserError(
            f"model.embedding.vectors: {path} has no vector for any of the {len(tokens):,} tokens; expected "
            "words such as `encode.tokenizer: word` makes"
        )
    print(f"{path}: {1 - missing.mean():.1%} of {len(tokens):,} tokens have a vector")
    draw = np.random.default_rng(0)
    matrix[missing] = draw.normal(0, matrix[~missing].std(), (missing.sum(), dimension))
    matrix[PADDING] = 0
    return matrix


def _read_text(path: Path, dimension: int) -> Iterator[Row]:
    """Reads lines of a word and its numbers; word2vec's begin with a line that counts both."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            # From the right: a few of GloVe's words hold spaces.
            word, *numbers = line.rstrip().rsplit(" ", dimension)
            if number == 1:
                first = line.split()
                _check(int(first[1]) if len(first) == 2 else len(first) - 1, dimension)
                if len(first) == 2:
                    continue
            if len(numbers) != dimension:
                raise ValueError(f"line {number} has {len(numbers)} numbers, expected {dimension}")
            yield f"line {number}", word, numbers


def _read_array(path: Path, dimension: int) -> Iterator[Row]:
    """Reads the rows of a NumPy array, and their words from a text file of one in each line."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    words = path.with_suffix(".txt").read_text("utf-8").splitlines()
    _check(array.shape[-1], dimension)
    if array.shape != (len(words), dimension):
        raise ValueError(f"{array.shape[0]} rows, but {len(words)} words in {path.with_suffix('.txt').name}")
    for number, (word, numbers) in enumerate(zip(words, array, strict=True)):
        yield f"row {number}", word, numbers


def _floats(numbers: Any, place: str) -> np.ndarray:
    try:
        vector = np.asarray(numbers, np.float32)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    if not np.isfinite(vector).all():
        raise ValueError(f"{place}: a number is not finite")
    return vector


def _check(found: int, dimension: int) -> None:
    if found != dimension:
        raise ValueError(f"vectors of {found} numbers, but model.embedding.dimension is {dimension}")

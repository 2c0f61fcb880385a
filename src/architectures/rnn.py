"""A recurrent network: LSTM or GRU layers over sentences, whose tokens are embedded, or over series.

Padding is masked: a step that is padded changes no state, and how far a sequence is padded no output.
"""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from src.errors import UserError
from src.network import Frame
from src.params import Section

if TYPE_CHECKING:
    import keras

PADDING = 0  # the token that sentences are padded with
Units = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]


class Embedding(Section):
    """`model.embedding:` how tokens become vectors; series are taken as they are."""

    dimension: Units = 100
    dropout: Rate = 0.0  # of whole dimensions of a sentence's vectors
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
        x = _embed(x, len(frame.input.vocabulary), options.embedding)
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


def _embed(x: "keras.KerasTensor", tokens: int, options: Embedding) -> "keras.KerasTensor":
    """Returns the vectors of tokens, (length, dimension), masked where they are padding."""
    from keras import layers

    embedding = layers.Embedding(tokens, options.dimension, mask_zero=True, trainable=options.trainable)
    return layers.SpatialDropout1D(options.dropout)(embedding(x))


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

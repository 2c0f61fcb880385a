"""A multilayer perceptron: dense layers, any number of them. With none, the network is a linear model."""

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from src.errors import UserError
from src.network import Frame, make
from src.params import Section

if TYPE_CHECKING:
    import keras


class Options(Section):
    """`model:` the hidden layers."""

    hidden: list[Annotated[int, Field(ge=1)]] = [64, 32]  # units of each; [] is a linear model
    activation: str = "relu"  # of the hidden layers, as Keras calls it
    batch_normalization: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0  # of what each hidden layer gives


def build(frame: Frame, options: Options) -> "keras.Model":
    """Builds the network. Weight decay is the optimizer's: `fit.optimizer: {name: adamw, weight_decay: …}`.

    Batch normalisation has momentum 0.9, since Keras' 0.99 needs thousands of steps to settle.

    Args:
        frame: Its first layers give numbers of any shape, which are taken as one vector.
        options: The `model:` section.

    Raises:
        UserError: If the inputs are tokens, or Keras has no such activation.
    """
    import keras
    from keras import layers

    if frame.input.vocabulary:
        raise UserError(
            "architecture: mlp takes numbers, found tokens; expected rnn or cnn, which embed them"
        )
    inputs, x = frame.begin()
    if len(x.shape) > 2:
        # Not the layer Flatten, which warns where padding is masked: that is zero already.
        x = keras.ops.reshape(x, (-1, math.prod(x.shape[1:])))
    for units in options.hidden:
        x = layers.Dense(units, use_bias=not options.batch_normalization)(x)
        if options.batch_normalization:
            x = layers.BatchNormalization(momentum=0.9)(x)
        x = make(layers, "Activation", {"activation": options.activation}, "model.activation")(x)
        if options.dropout:
            x = layers.Dropout(options.dropout)(x)
    return frame.end(inputs, x, "mlp")

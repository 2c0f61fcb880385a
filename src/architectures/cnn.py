"""A convolutional network: blocks of convolution and pooling over one, two or three dimensions.

Series and tokens have one dimension, images and spectrograms two, volumes three.
"""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from src.errors import UserError
from src.network import Frame
from src.params import Section

if TYPE_CHECKING:
    import keras

Units = Annotated[int, Field(ge=1)]


class Options(Section):
    """`model:` each block is `convolutions` layers of so many filters, halved in size by max pooling."""

    filters: Annotated[list[Units], Field(min_length=1)] = [32, 64, 128]  # one number for each block
    kernel: Units = 3
    convolutions: Units = 1  # in each block
    batch_normalization: bool = True
    dense: list[Units] = []  # units of the hidden layers behind the blocks
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    flatten: bool = False  # instead of averaging over positions


def build(frame: Frame, options: Options) -> "keras.Model":
    """Builds the network.

    Padding of series and sentences, where the first layers mask it, is zero to every convolution and left out
    of batch normalisation and of the average, so that what comes out does not follow how much of it there is.

    Pooling stands right behind the convolution: normalisation and activation then work on a quarter of
    the values, which nearly doubles the speed on a CPU; for max pooling and ReLU the order is the same.
    Batch normalisation has momentum 0.9, since Keras' 0.99 needs thousands of steps to settle.

    Args:
        frame: Its first layers give (positions…, channels): (steps, channels) for series, (height, width,
            channels) for images and spectrograms, (depth, height, width, channels) for volumes.
        options: The `model:` section.

    Raises:
        UserError: If the inputs have no positions, or are too small for so many halvings.
    """
    from keras import layers

    inputs, x = frame.begin()
    *positions, _ = x.shape[1:]
    if not 1 <= len(positions) <= 3:
        raise UserError(
            f"architecture: cnn takes series, images and volumes, found inputs of {_times(frame.input.shape)}"
        )
    if min(positions) >> len(options.filters) < 1:
        raise UserError(
            f"model.filters: found {len(options.filters)} blocks, each of which halves its input; expected "
            f"fewer for inputs of {_times(x.shape[1:])}"
        )
    mask = getattr(x, "_keras_mask", None)  # (steps,), False where a series or sentence is padded
    rank = f"{len(positions)}D"
    convolution, pooling = getattr(layers, f"Conv{rank}"), getattr(layers, f"MaxPooling{rank}")
    for filters in options.filters:
        for layer in range(options.convolutions):
            x = convolution(
                filters, options.kernel, padding="same", use_bias=not options.batch_normalization
            )(_silence(x, mask))
            if layer == options.convolutions - 1:
                x = pooling()(x)
                mask = mask if mask is None else mask[:, :-1:2]
            if options.batch_normalization:
                x = layers.BatchNormalization(momentum=0.9)(x, mask=mask)
            x = layers.ReLU()(x)
    if options.flatten:
        x = layers.Flatten()(_silence(x, mask))
    else:
        average = getattr(layers, f"GlobalAveragePooling{rank}")()
        x = average(x) if mask is None else average(x, mask=mask)
    for width in options.dense:
        x = layers.Dropout(options.dropout)(x)
        x = layers.Dense(width, activation="relu")(x)
    return frame.end(inputs, layers.Dropout(options.dropout)(x), "cnn")


def _silence(x: "keras.KerasTensor", mask: "keras.KerasTensor | None") -> "keras.KerasTensor":
    """Sets masked steps to zero; convolution and pooling do not take masks, so that of `x` ends here."""
    from keras import ops

    return x if mask is None else ops.where(mask[:, :, None], x, 0.0)


def _times(shape: tuple[int, ...] | list[int]) -> str:
    return " × ".join(map(str, shape))

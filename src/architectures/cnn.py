"""A convolutional network for images: blocks of convolution and pooling, then dense layers."""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from src.errors import UserError
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


def build(
    input_shape: tuple[int, ...], input_dtype: str, units: int, activation: str, options: Options
) -> "keras.Model":
    """Builds the network.

    Pooling stands right behind the convolution: normalisation and activation then work on a quarter of
    the values, which nearly doubles the speed on a CPU; for max pooling and ReLU the order is the same.
    Batch normalisation has momentum 0.9, since Keras' 0.99 needs thousands of steps to settle.

    Args:
        input_shape: (height, width, channels).
        input_dtype: That of the raw pixels, 0 to 255; rescaling to 0…1 is inside the model.
        units: Number of outputs.
        activation: Of the outputs.
        options: The `model:` section.

    Raises:
        UserError: If the images are too small for so many halvings.
    """
    import keras
    from keras import layers

    if len(input_shape) != 3 or min(input_shape[:2]) >> len(options.filters) < 1:
        raise UserError(
            f"model.filters: found {len(options.filters)} blocks, each of which halves its input; expected "
            f"fewer for inputs of {' × '.join(map(str, input_shape))}"
        )
    inputs = keras.Input(input_shape, dtype=input_dtype)
    x = layers.Rescaling(1 / 255)(inputs)
    for filters in options.filters:
        for layer in range(options.convolutions):
            x = layers.Conv2D(
                filters, options.kernel, padding="same", use_bias=not options.batch_normalization
            )(x)
            if layer == options.convolutions - 1:
                x = layers.MaxPooling2D()(x)
            if options.batch_normalization:
                x = layers.BatchNormalization(momentum=0.9)(x)
            x = layers.ReLU()(x)
    x = layers.Flatten()(x) if options.flatten else layers.GlobalAveragePooling2D()(x)
    for width in options.dense:
        x = layers.Dropout(options.dropout)(x)
        x = layers.Dense(width, activation="relu")(x)
    x = layers.Dropout(options.dropout)(x)
    return keras.Model(inputs, layers.Dense(units, activation=activation)(x), name="cnn")

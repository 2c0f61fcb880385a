"""Transfer learning: what one network has learned serves another, whose head alone is new.

The backbone is a network of Keras Applications or any earlier model of this repository. It stands in the new
network as one layer, a model of its own: its layers keep their names, so that any of them can be named, and
none can be the name of a layer of the head; and it is called with `training=False`, which keeps its batch
normalisation in inference mode even while it is fine-tuned, as Keras' guide says
(https://keras.io/guides/transfer_learning).
"""

import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from src import engine
from src.errors import UserError, nearest
from src.network import Frame
from src.params import Section

if TYPE_CHECKING:
    import keras

NAME = "backbone"  # of the layer that is the backbone
FIXED = "preprocessing"  # how the names of layers begin that never learn
MODEL = "model.keras"
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow makes grey of colours

Pixels = Annotated[int, Field(ge=1, le=4096)]


class Options(Section):
    """`model:` the backbone, and what stands between it and the outputs."""

    # A name in keras.applications; or a .keras file, or a folder that holds model.keras, such as a bundle.
    # DVC watches this path and that of weights, not the files: after a change in them, `dvc repro -f fit`.
    backbone: str = "EfficientNetB0"
    weights: str | None = "imagenet"  # of an application: or a local file, or null: none; a file has its own
    size: Annotated[list[Pixels], Field(min_length=2, max_length=2)] | None = None  # height, width it sees
    cut: str | None = None  # the layer whose output is taken; null: the last one before the head
    pooling: Literal["avg", "max"] = "avg"  # over positions, where the backbone leaves any
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2


def build(frame: Frame, options: Options) -> "keras.Model":
    """Builds the network, with its backbone frozen.

    The raw input goes in, without the frame's own first layers: a backbone brings its own preprocessing.
    Images are adapted to the size and the channels that it takes.

    Args:
        frame: Images as (height, width, channels) uint8 for an application; for a file such inputs as it was
            trained on.
        options: The `model:` section.

    Raises:
        UserError: If there is no such backbone, its weights cannot be had, or it does not take the inputs.
    """
    from keras import layers

    inputs, _ = frame.begin()
    if frame.input.vocabulary:
        raise UserError(
            "architecture: transfer takes no sentences, whose tokens are other numbers to a network trained "
            "elsewhere; expected other inputs, or architecture: rnn with model.embedding.vectors"
        )
    if _is_path(options.backbone):
        backbone, colours = _read(options), None
        x = _fit(inputs, backbone, options)
    else:
        backbone, colours = _download(frame, options)
        x = _resize(inputs, backbone.input_shape[1:3])
    if colours is not None or x.shape[-1] != backbone.input_shape[-1]:
        x = _recolour(x, backbone.input_shape[-1], colours)
    backbone = _without_normalization(backbone, "float32" if x is not inputs else backbone.inputs[0].dtype)
    backbone.trainable = False
    x = backbone(x, training=False)
    if len(x.shape) > 2:
        kind = {"avg": "Average", "max": "Max"}[options.pooling]
        x = getattr(layers, f"Global{kind}Pooling{len(x.shape) - 2}D")()(x)
    print(f"{options.backbone}: {backbone.count_params():,} parameters, frozen")
    return frame.end(inputs, layers.Dropout(options.dropout)(x), "transfer")


def unfreeze(model: "keras.Model", start: str | None = None) -> None:
    """Lets the backbone learn, for fine-tuning; the model must be compiled anew.

    Batch normalisation stays frozen: its statistics, updated, would undo what the backbone has learned.

    Args:
        model: What `build` made.
        start: The first layer that learns, by name; those before it stay frozen. None: all of them learn.

    Raises:
        UserError: If the backbone has no such layer.
    """
    import keras

    backbone = model.get_layer(NAME)
    layers = list(_walk(backbone))
    names = [layer.name for layer in layers]
    if start is not None and start not in names:
        raise UserError(
            f"params.yaml: fit.fine_tune.start: the backbone has no layer {start!r}, expected one of "
            f"{', '.join(names)}{nearest(start, names)}"
        )
    first = 0 if start is None else names.index(start)
    backbone.trainable = True
    for position, layer in enumerate(layers):
        if not isinstance(layer, keras.Model):
            fixed = isinstance(layer, keras.layers.BatchNormalization) or layer.name.startswith(FIXED)
            layer.trainable = position >= first and not fixed


def _walk(model: "keras.Model") -> Iterator["keras.Layer"]:
    """Yields a model's layers from the input on, each model among them before its own layers."""
    import keras

    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _walk(layer)


# ── Backbones of Keras Applications ────────────────────────────────────────────────────────────────────


def _is_path(backbone: str) -> bool:
    return "/" in backbone or backbone.endswith(".keras") or Path(backbone).exists()


def _download(frame: Frame, options: Options) -> tuple["keras.Model", Any]:
    """Returns an application without its head, and its preprocessing as `_colours` gives it."""
    import keras

    name, shape = options.backbone, frame.input.shape
    known = [each for each in dir(keras.applications) if each[0].isupper()]
    if name not in known:
        raise UserError(
            f"model.backbone: Keras Applications have no {name!r}, and it is no .keras file; expected one of "
            f"{', '.join(known)}{nearest(name, known)}"
        )
    if not _are_images(frame):
        raise UserError(f"model.backbone: {name} takes images, found inputs of {_times(shape)}")
    size = options.size or shape[:2]
    application = getattr(keras.applications, name)
    pretrained = options.weights if options.weights == "imagenet" else None
    try:
        network = application(include_top=False, weights=pretrained, input_shape=(*size, 3))
    except ValueError as error:
        raise UserError(
            f"model.size: {name} refuses images of {_times(size)} pixels ({_first_line(error)}); expected "
            "larger ones, which model.size: [height, width] makes of them"
        ) from None
    except Exception as error:  # Keras' own class, when it cannot download
        if "URL fetch failure" not in str(error):
            raise
        raise UserError(
            f"model.weights: {options.weights} of {name} cannot be downloaded ({_first_line(error)}); "
            "expected a connection to the internet, or the path of a local file of its weights"
        ) from None
    if options.weights and not pretrained:
        _load_weights(network, Path(options.weights), name)
    x = network.outputs[0] if options.cut is None else _output(network, options.cut, name)
    preprocess = sys.modules[application.__module__].preprocess_input
    return keras.Model(network.inputs[0], x, name=NAME), _colours(preprocess)


def _load_weights(network: "keras.Model", path: Path, name: str) -> None:
    if not path.is_file():
        raise UserError(f"model.weights: {path} not found; expected imagenet, null or a file of weights")
    try:
        with warnings.catch_warnings(
            action="error"
        ):  # that some layers would keep the weights they were given
            network.load_weights(path)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, UserWarning) as error:
        raise UserError(
            f"model.weights: {path}: expected weights of {name} without its head, found: {_first_line(error)}"
        ) from None


def _colours(preprocess: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Finds what a `preprocess_input` of Keras does to pixels.

    Each of them is affine in a pixel's channels: a scale, an offset, in older networks another order. Probing
    it says which, without a table of all networks.

    Returns:
        (3, 3) what each channel becomes of each, and (3,) what is added; None where pixels stay as they are.
    """
    zero, *units = preprocess(np.concatenate([np.zeros((1, 3)), 255.0 * np.eye(3)])[None, :, None])[0, :, 0]
    matrix = (np.array(units) - zero) / 255
    return None if np.array_equal(matrix, np.eye(3)) and not zero.any() else (matrix, zero)


# ── Backbones from files ───────────────────────────────────────────────────────────────────────────────


def _read(options: Options) -> "keras.Model":
    """Returns an earlier model without its head."""
    import keras

    path = Path(options.backbone)
    path = path / MODEL if path.is_dir() else path
    if path.resolve() == Path("src/models", MODEL).resolve():
        raise UserError(
            f"model.backbone: found {path}, which this training replaces; expected a copy elsewhere"
        )
    if not path.is_file():
        raise UserError(
            f"model.backbone: {path} not found; expected a .keras file or a folder that holds {MODEL}"
        )
    if options.weights not in ("imagenet", None):
        raise UserError(f"model.weights: found {options.weights!r}, expected none: {path} has its own")
    try:
        model = engine.read(path, foreign=True)
    except UserError as error:
        raise UserError(f"model.backbone: {error}") from None
    return keras.Model(model.inputs[0], _features(model, options.cut, path), name=NAME)


def _features(model: "keras.Model", cut: str | None, path: Path) -> "keras.KerasTensor":
    """Returns what the layer `cut` gives, or what a model's last dense layer takes, before dropout."""
    import keras

    if cut is not None:
        return _output(model, cut, str(path))
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    if not dense:
        last = [layer.name for layer in model.layers[-5:]]
        raise UserError(
            f"model.cut: {path} has no dense layer to replace, its last layers are {', '.join(last)}; "
            "expected the name of the layer whose output to take"
        )
    x = dense[-1].input
    while isinstance(source := x._keras_history.operation, keras.layers.Dropout):
        x = source.input
    return x


def _output(model: "keras.Model", cut: str, name: str) -> "keras.KerasTensor":
    names = [layer.name for layer in model.layers]
    if cut not in names:
        raise UserError(
            f"model.cut: {name} has no layer {cut!r}, expected one of {', '.join(names)}{nearest(cut, names)}"
        )
    return model.get_layer(cut).output


def _fit(inputs: "keras.KerasTensor", backbone: "keras.Model", options: Options) -> "keras.KerasTensor":
    """Resizes images to what a backbone takes.

    Raises:
        UserError: If it takes other inputs, or another size than was asked for.
    """
    found, takes = tuple(inputs.shape[1:]), tuple(backbone.input_shape[1:])
    dtypes = inputs.dtype, backbone.inputs[0].dtype
    if len(found) == len(takes) == 3 and dtypes[0] == "uint8" and {found[2], takes[2]} <= {1, 3}:
        size = tuple(options.size or [a or b for a, b in zip(takes, found[:2], strict=False)])
        if any(a not in (None, b) for a, b in zip(takes, size, strict=False)):
            raise UserError(
                f"model.size: found {list(size)}, but {options.backbone} takes {_times(takes[:2])} pixels; "
                "expected null, which resizes to them"
            )
        return _resize(inputs, size)
    fits = len(found) == len(takes) and all(a in (None, b) for a, b in zip(takes, found, strict=True))
    if not fits or dtypes[0] != dtypes[1]:
        raise UserError(
            f"model.backbone: {options.backbone} takes inputs of {_times(takes)} ({dtypes[1]}), found "
            f"{_times(found)} ({dtypes[0]}); expected the same, which encode: may give, or images"
        )
    return inputs


# ── Inputs ─────────────────────────────────────────────────────────────────────────────────────────────


def _are_images(frame: Frame) -> bool:
    shape = frame.input.shape
    return len(shape) == 3 and frame.input.dtype == "uint8" and shape[2] in (1, 3)


def _numbers(x: "keras.KerasTensor") -> "keras.KerasTensor":
    """Makes numbers of 32 bits: the 16 of a mixed precision are too few for pixels."""
    from keras import layers

    return x if x.dtype == "float32" else layers.Rescaling(1.0, dtype="float32", name=f"{FIXED}_numbers")(x)


def _resize(x: "keras.KerasTensor", size: tuple[int, ...]) -> "keras.KerasTensor":
    """Makes images of (height, width) pixels of others."""
    from keras import layers

    if tuple(x.shape[1:3]) == tuple(size):
        return x
    # Of whole numbers, Keras' layer makes whole numbers, but says that it does not.
    return layers.Resizing(*size, dtype="float32", name=f"{FIXED}_size")(_numbers(x))


def _recolour(x: "keras.KerasTensor", channels: int, colours: Any) -> "keras.KerasTensor":
    """Makes grey of colours or the reverse, then applies `_colours`, all as one fixed 1 × 1 convolution."""
    from keras import layers

    between = {(1, 3): np.ones((1, 3)), (3, 1): np.array(LUMA)[:, None]}
    matrix = between.get((x.shape[-1], channels), np.eye(channels))
    offset = np.zeros(channels)
    if colours is not None:
        matrix, offset = matrix @ colours[0], offset @ colours[0] + colours[1]
    convolution = layers.Conv2D(channels, 1, trainable=False, dtype="float32", name=f"{FIXED}_colours")
    x = convolution(_numbers(x))
    convolution.set_weights([matrix[None, None], offset])
    return x


def _without_normalization(model: "keras.Model", dtype: str) -> "keras.Model":
    """Gives a backbone an input of this type, and a Rescaling for each Normalization.

    Of a Normalization's statistics, ONNX makes further inputs. An input of whole numbers would cut off the
    fractions that resizing gives.
    """
    import keras

    def is_normalization(layer: "keras.Layer") -> bool:
        return isinstance(layer, keras.layers.Normalization)

    def renew(layer: "keras.Layer") -> "keras.Layer":
        if not is_normalization(layer):
            return layer.__class__.from_config(layer.get_config())
        scale = 1 / np.maximum(np.sqrt(np.ravel(layer.variance)), keras.config.epsilon())
        offset = -np.ravel(layer.mean) * scale
        return keras.layers.Rescaling(
            scale.tolist(), offset.tolist(), name=layer.name, dtype=layer.dtype_policy
        )

    if model.inputs[0].dtype == dtype and not any(map(is_normalization, model.layers)):
        return model
    taken = keras.Input(model.input_shape[1:], dtype=dtype)
    renewed = keras.models.clone_model(model, input_tensors=taken, clone_function=renew)
    for layer in model.layers:
        if not is_normalization(layer) and not isinstance(layer, keras.layers.InputLayer):
            renewed.get_layer(layer.name).set_weights(layer.get_weights())
    return renewed


def _times(shape: Any) -> str:
    return " × ".join("any" if size is None else str(size) for size in shape)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]

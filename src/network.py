"""What every network begins and ends with: said by the data, in Keras' own names, whatever stands between.

`prepare` writes it to data.json under `network`:

    input       shape, dtype, layers (the first ones, each {Name: {argument: value}}), vocabulary
    output      units, activation, layers (the last ones)

so that training needs neither the task nor the raw data, and a network takes raw inputs by itself.
"""

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from src.errors import UserError, nearest

if TYPE_CHECKING:
    import keras

Layers = list[dict[str, dict[str, Any]]]


@dataclass(frozen=True)
class Input:
    """What a network takes: one example as the task's encoder makes it.

    Args:
        shape: of one example; sequences of unequal length are padded to one.
        dtype: of its values.
        layers: the Keras layers that every network begins with, by name and arguments: rescaling of
            pixels, masking of padding, normalisation, a spectrogram.
        vocabulary: the token that each number stands for, padding first; empty where inputs are no tokens.
    """

    shape: tuple[int, ...]
    dtype: str
    layers: Layers = field(default_factory=list)
    vocabulary: list[str] = field(default_factory=list)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Input":
        """Returns what `Frame.to_json` described."""
        return cls(**{**content, "shape": tuple(content["shape"])})


@dataclass(frozen=True)
class Output:
    """What a network gives.

    Args:
        units: number of outputs.
        activation: of the last dense layer.
        layers: the Keras layers behind it: rescaling to the labels' unit.
    """

    units: int
    activation: str
    layers: Layers = field(default_factory=list)


@dataclass(frozen=True)
class Frame:
    """Both ends of a network; an architecture builds what stands between them."""

    input: Input
    output: Output

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Frame":
        """Returns what `to_json` described."""
        return cls(Input.from_json(content["input"]), Output(**content["output"]))

    def to_json(self) -> dict[str, Any]:
        """Returns both ends as JSON."""
        return asdict(self)

    def begin(self) -> tuple["keras.KerasTensor", "keras.KerasTensor"]:
        """Returns the network's input, and what its first layers make of it."""
        import keras

        inputs = keras.Input(self.input.shape, dtype=self.input.dtype)
        return inputs, _stack(inputs, self.input.layers, "encoder.layers")

    def end(self, inputs: "keras.KerasTensor", x: "keras.KerasTensor", name: str) -> "keras.Model":
        """Returns the network from `inputs` on, with its last layers behind `x`, (batch, features)."""
        import keras

        # Probabilities are computed in 32 bits, whatever `fit.precision` says.
        x = keras.layers.Dense(self.output.units, activation=self.output.activation, dtype="float32")(x)
        return keras.Model(inputs, _stack(x, self.output.layers, "objective.layers"), name=name)


def _stack(x: "keras.KerasTensor", layers: Layers, key: str) -> "keras.KerasTensor":
    """Applies layers that are given by name and arguments, one after the other."""
    import keras

    for layer in layers:
        for name, arguments in layer.items():
            x = make(keras.layers, name, arguments, key)(x)
    return x


def make(module: Any, name: str, arguments: dict[str, Any], key: str) -> Any:
    """Makes an object of a Keras module, whose classes are found whatever the case of their name.

    Args:
        module: Such as `keras.optimizers`.
        name: Of a class in it.
        arguments: That it takes.
        key: Where they come from, for an error: a key of params.yaml.

    Raises:
        UserError: If Keras has no such class, or it does not take the arguments.
    """
    bases = {"optimizer", "learningrateschedule", "layer", "loss", "metric"}
    known = {
        found.lower(): found
        for found, kind in vars(module).items()
        if isinstance(kind, type) and found.lower() not in bases
    }
    wanted = name.lower().replace("_", "")
    if wanted not in known:
        raise UserError(
            f"params.yaml: {key}: Keras has no {name!r}, expected one of "
            f"{', '.join(sorted(known.values()))}{nearest(wanted, known)}"
        )
    try:
        return getattr(module, known[wanted])(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"params.yaml: {key}: {known[wanted]} refuses its arguments: {error}") from None

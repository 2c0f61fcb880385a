"""Augmentation: what changes training examples each time the network sees them, and nothing else.

`fit.augment:` is a list of names with their arguments: the layers of Keras for images (RandomFlip, MixUp,
RandAugment, …), and these, for what Keras has none for:

    WordDropout     rate      share of a sentence's words that become [UNK]
    RandomShift     factor    a sound or a series is moved in time, by up to this share of its length
    RandomNoise     factor    Gaussian noise, in standard deviations of the example, of each channel its own

What happens to a batch is a function of seed, epoch and step alone: a training that goes on after a kill sees
the same examples as one that was never killed.
"""

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field, ValidationError

from src.errors import UserError, nearest
from src.network import Input, make
from src.params import Section

if TYPE_CHECKING:
    import keras

KEY = "fit.augment"
PADDING, UNKNOWN = 0, 1  # tokens
RESIZE = {"CenterCrop", "RandomCrop", "Resizing", "MaxNumBoundingBoxes"}  # Keras layers that change the shape
MIX = {"mixup", "cutmix"}  # that change the labels too
Share = Annotated[float, Field(gt=0, lt=1)]
Factor = Annotated[float, Field(gt=0)]


class WordDropout(Section):
    """Replaces words by the unknown one: Iyyer et al. (2015), Deep Unordered Composition, section 3.3."""

    rate: Share

    def change(self, batch: np.ndarray, given: Input, rng: np.random.Generator) -> np.ndarray:
        """Changes (examples, length) tokens."""
        dropped = (rng.random(batch.shape) < self.rate) & (batch != PADDING)
        return np.where(dropped, UNKNOWN, batch)

    def fits(self, given: Input) -> bool:
        """Whether it can change such inputs."""
        return bool(given.vocabulary)


class RandomShift(Section):
    """Moves in time; what leaves is cut off, and padding, or silence, comes in."""

    factor: Share

    def change(self, batch: np.ndarray, given: Input, rng: np.random.Generator) -> np.ndarray:
        """Changes (examples, steps) or (examples, steps, channels)."""
        steps = batch.shape[1]
        most = max(1, round(self.factor * steps))
        shifted = np.full_like(batch, _padding(given))
        for row, by in enumerate(rng.integers(-most, most, len(batch), endpoint=True)):
            begin, end = max(by, 0), steps + min(by, 0)
            shifted[row, begin:end] = batch[row, begin - by : end - by]
        return shifted

    def fits(self, given: Input) -> bool:
        """Whether it can change such inputs: a series, or a sound, whose samples are whole numbers."""
        sound = len(given.shape) == 1 and np.issubdtype(given.dtype, np.integer)
        return not given.vocabulary and (len(given.shape) == 2 or sound)


class RandomNoise(Section):
    """Adds noise; padding stays what it is."""

    factor: Factor

    def change(self, batch: np.ndarray, given: Input, rng: np.random.Generator) -> np.ndarray:
        """Changes (examples, …) numbers."""
        known = batch != _padding(given) if _is_padded(given) else np.ones(batch.shape, bool)
        values = np.ma.masked_array(batch.astype(np.float64), ~known)
        # Of each channel, which is the last axis where there are several.
        axes = tuple(range(1, batch.ndim - (batch.ndim > 2)))
        deviation = np.ma.filled(values.std(axis=axes, keepdims=True), 0.0)
        noise = rng.normal(size=batch.shape) * self.factor * deviation
        return np.where(known, batch + noise, batch)

    def fits(self, given: Input) -> bool:
        """Whether it can change such inputs."""
        return not given.vocabulary


OWN: dict[str, type[Any]] = {kind.__name__: kind for kind in (WordDropout, RandomShift, RandomNoise)}


class Augmenter:
    """Changes batches.

    Args:
        chosen: The `fit.augment:` list.
        given: What the network takes.
        seed: `fit.seed`.

    Raises:
        UserError: If there is no such layer, it does not take the arguments, or such inputs.
    """

    def __init__(self, chosen: Sequence[dict[str, Any]], given: Input, seed: int) -> None:
        self.given = given
        self.seed = seed
        self.steps = [_make(name, arguments, given) for each in chosen for name, arguments in each.items()]
        self.mixes = any(type(step).__name__.lower() in MIX for step in self.steps)

    def __call__(
        self, inputs: np.ndarray, labels: np.ndarray, epoch: int, step: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Changes the inputs of a batch, and its labels where examples are mixed.

        Args:
            inputs: (examples, …) as the encoder makes them.
            labels: (examples, …); (examples, classes) probabilities where examples are mixed.
            epoch: From 0 on.
            step: Of this epoch, from 0 on.

        Returns:
            Both, of the same shapes and dtypes.

        Raises:
            UserError: If a layer changes the shape of the inputs.
        """
        shape, dtype = inputs.shape, inputs.dtype
        for number, each in enumerate(self.steps):
            # The key keeps these numbers apart from those that shuffle the examples.
            seed = np.random.SeedSequence([self.seed, epoch, step, number], spawn_key=(1,))
            if isinstance(each, Section):
                inputs = each.change(inputs, self.given, np.random.default_rng(seed))  # type: ignore[attr-defined]
            else:
                inputs, labels = _call(each, inputs, labels, seed, mixes=self.mixes)
            inputs = _cast(inputs, dtype)
            if inputs.shape != shape:
                raise UserError(
                    f"params.yaml: {KEY}: {type(each).__name__} makes {inputs.shape[1:]} of inputs of "
                    f"{shape[1:]}; expected layers that keep their shape"
                )
        return inputs, labels


def _make(name: str, arguments: dict[str, Any], given: Input) -> Any:
    """Returns the augmentation of a name."""
    import keras

    base = keras.layers.RandomFlip.__mro__[1:]
    base = next(kind for kind in base if kind.__name__ == "BaseImagePreprocessingLayer")
    images = {
        found: kind
        for found, kind in vars(keras.layers).items()
        if isinstance(kind, type) and issubclass(kind, base) and found not in RESIZE
    }
    known = {found.lower(): found for found in (*images, *OWN)}
    chosen = known.get(name.lower())
    if chosen is None:
        expected = ", ".join(sorted(known.values()))
        raise UserError(
            f"params.yaml: {KEY}: there is no {name!r}, expected one of "
            f"{expected}{nearest(name.lower(), known)}"
        )
    found = f"found inputs of {' × '.join(map(str, given.shape))}"
    if chosen in OWN:
        try:
            made = OWN[chosen].model_validate(arguments)
        except ValidationError as error:
            problem = error.errors()[0]
            raise UserError(
                f"params.yaml: {KEY}: {chosen}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}"
            ) from None
        if not made.fits(given):
            takes = {"WordDropout": "sentences", "RandomShift": "sounds and series"}.get(chosen, "numbers")
            raise UserError(f"params.yaml: {KEY}: {chosen} changes {takes}, {found}")
        return made
    if len(given.shape) != 3 or given.vocabulary:
        raise UserError(f"params.yaml: {KEY}: {chosen} changes images (height × width × channels), {found}")
    return make(keras.layers, chosen, arguments, KEY)


def _call(
    layer: "keras.Layer", inputs: np.ndarray, labels: np.ndarray, seed: np.random.SeedSequence, mixes: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Calls a Keras layer whose random state comes from `seed`."""
    layer.build((None, *inputs.shape[1:])) if not layer.built else None
    random.seed(int(seed.generate_state(1)[0]))  # AugMix draws from Python's too
    for state, drawn in zip(layer.variables, seed.spawn(len(layer.variables)), strict=True):
        state.assign(drawn.generate_state(2))
    if not mixes or type(layer).__name__.lower() not in MIX:
        return np.asarray(layer(inputs, training=True)), labels
    mixed = layer({"images": inputs.astype(np.float32), "labels": labels}, training=True)
    return np.asarray(mixed["images"]), np.asarray(mixed["labels"], labels.dtype)


def _cast(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Returns values as the encoder has them: whole numbers are rounded and kept in range."""
    if np.issubdtype(dtype, np.integer) and not np.issubdtype(values.dtype, np.integer):
        limits = np.iinfo(dtype)
        values = np.clip(np.rint(values), limits.min, limits.max)
    return values.astype(dtype, copy=False)


def _is_padded(given: Input) -> bool:
    return any("Masking" in layer for layer in given.layers)


def _padding(given: Input) -> float:
    """Returns the value that stands for no measurement; 0, silence, where there is none."""
    return next((layer["Masking"]["mask_value"] for layer in given.layers if "Masking" in layer), 0.0)

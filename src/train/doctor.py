"""The training doctor: looks into the network while it is trained, and says what is wrong and what to do.

A few fixed training examples, the probe, go through the network and back before the first step and at the end
of epochs, so seldom that they are a small part of all examples that do. Nothing is changed by it: not a
weight, not a statistic, not a random number. The rules are in src/training/diagnosis.py.

out:  src/models/diagnosis.json: `verdicts`, `facts` and `records`
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src import engine
from src.files import write_json
from src.params import Fit
from src.prepared import Batches
from src.training.checkpoint import Progress
from src.training.diagnosis import Verdict, broken_sentence, diagnose, kernel_ridge

if TYPE_CHECKING:
    import keras

PATH = Path("src/models/diagnosis.json")
PROBE = 64  # examples
SHARE = 0.03  # of the examples that an epoch goes through: the most that may be the probe's
SAMPLE = 600  # examples that kernel ridge regression learns from
FEATURES = 16384  # the most of them: more tokens share one, more numbers are thinned
KEPT = 4096  # numbers of each weight that are remembered to see how far it moves
ENDS = {"sigmoid": (0.01, 0.99), "tanh": (-0.99, 0.99)}  # beyond them it is saturated


class Doctor:
    """Watches one training.

    Args:
        model: The compiled network, its weights as they are before the first step.
        batches: Of the training split.
        fit: The `fit:` section.
    """

    def __init__(self, model: "keras.Model", batches: Batches, fit: Fit) -> None:
        train, steps = batches.split, len(batches)
        rows = _spaced(len(train), PROBE)
        self.probe = Probe(model, train.inputs[rows], batches.encode(train.labels[rows]))
        self.together = min(fit.steps_per_execution, steps)
        self.every = max(1, math.ceil(len(rows) / (SHARE * len(train))))
        self.facts = {
            **learn_facts(model, self.probe, batches),
            "examples": len(train),
            "epochs": fit.epochs,
            "steps": steps,
            "kinds": {layer.name: type(layer).__name__ for layer in self.probe.layers},
        }
        self.first = {"epoch": 0, **self.probe.examine()}
        self.said: set[str] = set()
        self.started = False
        self._say(self.diagnose([], [], over=False))

    def watch(self, progress: Progress) -> None:
        """Examines the network at the end of an epoch, and says each verdict when it is first reached.

        Args:
            progress: Of the training; `step` is how far the epoch came. The record goes to `examined`.
        """
        stopped = len(progress.history) < progress.epoch  # the last epoch gave no numbers
        if not self.started:  # what was said before the training was killed
            before = progress.history[: progress.epoch - 1]
            self.said |= {found["name"] for found in self.diagnose(before, progress.examined, over=False)}
            self.started = True
        if progress.epoch in (1, 2) or progress.epoch % self.every == 0 or stopped:
            record = {"epoch": progress.epoch, **self.probe.examine()}
            if stopped:
                layer, what = self.probe.broken()
                first = max(1, progress.step - self.together + 1)
                record["broken"] = {"layer": layer, "what": what, "steps": [first, progress.step]}
            progress.examined.append(record)
        if self._say(self.diagnose(progress.history, progress.examined, over=False)):
            self.write(progress, over=False)

    def _say(self, verdicts: list[Verdict]) -> bool:
        """Prints the verdicts that have not been said yet, and returns whether there are any."""
        new = [verdict for verdict in verdicts if verdict["name"] not in self.said]
        for verdict in new:
            print(f"warning: {sentence(verdict)}", flush=True)
        self.said |= {verdict["name"] for verdict in new}
        return bool(new)

    def diagnose(
        self, history: list[dict[str, Any]], examined: list[dict[str, Any]], over: bool
    ) -> list[Verdict]:
        """Returns the verdicts on a training as far as it has come."""
        return diagnose(history, [self.first, *examined], self.facts, over)

    def write(self, progress: Progress, over: bool = True) -> list[Verdict]:
        """Writes diagnosis.json and returns its verdicts."""
        verdicts = self.diagnose(progress.history, progress.examined, over)
        records = [self.first, *progress.examined]
        write_json(PATH, {"verdicts": verdicts, "facts": self.facts, "records": records})
        return verdicts


def sentence(verdict: Verdict) -> str:
    """Returns a verdict as what people read."""
    return f"{verdict['name'].replace('_', ' ')}: {verdict['evidence']}; {verdict['advice']}"


def finding(progress: Progress) -> str:
    """Says where a number was first none, as the end of a sentence; empty where that was not seen."""
    return next(("; " + broken_sentence(record) for record in progress.examined if "broken" in record), "")


def learn_facts(model: "keras.Model", probe: "Probe", batches: Batches) -> dict[str, Any]:
    """Returns what the training data lets one expect, as src/training/diagnosis.py has it.

    Args:
        model: The compiled network.
        probe: Of it.
        batches: Of the training split, of which a sample is taken.
    """
    train = batches.split
    rows = _spaced(len(train), SAMPLE)
    raw, labels = np.asarray(train.inputs[rows]), np.asarray(train.labels[rows])
    features = probe.features(raw)
    known = np.isfinite(features).all()
    targets = labels.reshape(len(labels), -1).astype(np.float64)
    one_of_many = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    if one_of_many:
        targets = np.eye(model.output_shape[-1])[labels]

    def loss(predictions: np.ndarray) -> float:
        if np.issubdtype(labels.dtype, np.integer):  # shares, of which none is certain
            predictions = predictions.clip(0.01, 0.99)
        if one_of_many:
            predictions = predictions / predictions.sum(axis=1, keepdims=True)
        given = batches.encode(labels)
        return float(model.compute_loss(y=given, y_pred=predictions.astype(np.float32), training=False))

    prior = loss(np.broadcast_to(targets.mean(axis=0), targets.shape))
    varied = bool(known and (features != features[:1]).any())
    predictions, informative = kernel_ridge(features, targets) if varied else (targets, False)
    return {
        "prior": _number(prior),
        "simple": _number(min(prior, loss(predictions)) if varied else prior),
        "informative": informative,
        "constant": bool(known and not varied),
        "finite": bool(known),
        "sampled": len(rows),
    }


class Probe:
    """A few examples, and a network through which they are looked at.

    Args:
        model: The compiled network.
        inputs: (examples, …) of the probe.
        labels: (examples, …) of the probe.
    """

    def __init__(self, model: "keras.Model", inputs: np.ndarray, labels: np.ndarray) -> None:
        import keras

        self.model, self.inputs, self.labels = model, inputs, labels
        self.layers = [layer for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
        self.seen = {layer.name: output for layer in self.layers if (output := _output(layer)) is not None}
        self.network = keras.Model(model.inputs[0], [*self.seen.values(), *model.outputs], name=model.name)
        self.begin = {weight.path: _thin(weight) for weight in _floating(model.weights)}
        self.trained: list[str] = []  # the variables for which `look` was made
        self.look: Any = None
        self.overflown: set[str] = set()  # the layers whose outputs were infinite or no number

    def examine(self) -> dict[str, Any]:
        """Returns `loss` and `layers` of a record, as src/training/diagnosis.py has them."""
        import tensorflow as tf

        trained = [variable.path for variable in self.model.trainable_variables]
        if self.look is None or trained != self.trained:
            self.trained, self.look = trained, tf.function(self._look, autograph=False)
        with engine.unchanged(self.model):
            loss, seen, sizes = self.look(tf.constant(self.inputs), tf.constant(self.labels))
        layers: dict[str, dict[str, Any]] = {layer.name: {} for layer in self.layers}
        self.overflown = {name for name, numbers in seen.items() if not numbers.pop("finite")}
        for name, numbers in seen.items():
            layers[name] |= {what: _number(float(number)) for what, number in numbers.items()}
        for layer in self.layers:
            if layer.name in sizes:
                gradient, weights = (float(size) for size in sizes[layer.name])
                begin = [self.begin[weight.path] for weight in layer.trainable_variables]
                moved = [_thin(weight) for weight in layer.trainable_variables]
                norm = np.linalg.norm(np.concatenate(begin))
                distance = np.linalg.norm(np.concatenate(moved) - np.concatenate(begin))
                layers[layer.name] |= {
                    "gradient": _number(gradient / weights if weights > 0 else math.nan),
                    "weights": _number(weights),
                    "moved": _number(float(distance / norm) if norm > 0 else math.nan),
                }
        known = {name: found for name, found in layers.items() if found}
        return {"loss": _number(float(loss)), "layers": known}

    def _look(self, inputs: Any, labels: Any) -> tuple[Any, dict[str, dict[str, Any]], dict[str, Any]]:
        """Returns the loss, numbers on each layer's outputs, and norms of its gradient and weights."""
        import tensorflow as tf

        variables = [variable.value for variable in self.model.trainable_variables]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            *outputs, last = self.network(inputs, training=False)
            loss = self.model.compute_loss(y=labels, y_pred=last, training=False)
        gradients = dict(zip(self.trained, tape.gradient(loss, variables), strict=True))
        sizes = {}
        for layer in self.layers:
            own = [(gradients[weight.path], weight.value) for weight in layer.trainable_variables]
            known = [(tf.convert_to_tensor(one), weight) for one, weight in own if one is not None]
            if known:
                sizes[layer.name] = (
                    tf.linalg.global_norm([one for one, _ in known]),
                    tf.linalg.global_norm([weight for _, weight in known]),
                )
        seen = {
            name: _describe(self.model.get_layer(name), output)
            for name, output in zip(self.seen, outputs, strict=True)
        }
        return loss, seen, sizes

    def broken(self) -> tuple[str, str]:
        """Returns the first layer with a number that is none, and whether it is among weights or outputs.

        The outputs are those of the last examination.
        """
        for layer in self.layers:
            if not all(np.isfinite(np.asarray(weight)).all() for weight in _floating(layer.weights)):
                return layer.name, "weights"
            if layer.name in self.overflown:
                return layer.name, "outputs"
        return "", "loss"

    def features(self, inputs: np.ndarray) -> np.ndarray:
        """Returns what the first layer that learns takes, (examples, features) float32.

        Of tokens, it is which of them occur; rare ones count more, by the logarithm of one over their share.
        """
        import keras

        embedding = keras.layers.Embedding
        first = next(each for each in self.layers if isinstance(each, embedding) or each.trainable_variables)
        if isinstance(first, embedding):
            present = np.zeros((len(inputs), min(FEATURES, first.input_dim)), np.float32)
            present[np.arange(len(inputs))[:, None], inputs % present.shape[1]] = 1
            rarity = -np.log(np.maximum(present.mean(axis=0), 1 / len(inputs)))
            return present * rarity
        taken = first.input if isinstance(first.input, keras.KerasTensor) else self.model.inputs[0]
        front = keras.Model(self.model.inputs[0], taken, name=self.model.name)
        parts = np.array_split(inputs, math.ceil(len(inputs) / PROBE))
        flat = (
            np.concatenate([np.asarray(front(part, training=False)) for part in parts])
            .reshape(len(inputs), -1)
            .astype(np.float32)
        )
        return flat[:, :: max(1, flat.shape[1] // FEATURES)]


def _describe(layer: "keras.Layer", output: Any) -> dict[str, Any]:
    """Returns numbers on a layer's outputs, (examples, …, units)."""
    import tensorflow as tf

    activation = getattr(getattr(layer, "activation", None), "__name__", type(layer).__name__.lower())
    numbers = {
        "mean": tf.reduce_mean(output),
        "deviation": tf.math.reduce_std(output),
        "finite": tf.reduce_all(tf.math.is_finite(output)),
    }
    if activation.startswith("relu"):
        largest = tf.reduce_max(tf.abs(output), axis=list(range(len(output.shape) - 1)))
        numbers["dead"] = tf.reduce_mean(tf.cast(largest == 0, tf.float32))
    if activation in ENDS:
        low, high = ENDS[activation]
        numbers["saturated"] = tf.reduce_mean(tf.cast((output < low) | (output > high), tf.float32))
    return numbers


def _output(layer: "keras.Layer") -> Any:
    """Returns a layer's symbolic output if there is one alone, of floating numbers; else None."""
    import keras

    try:
        output = layer.output
    except (AttributeError, ValueError):
        return None
    alone = isinstance(output, keras.KerasTensor) and not isinstance(layer, keras.Model)
    return output if alone and keras.backend.is_float_dtype(output.dtype) else None


def _floating(weights: Any) -> Iterator[Any]:
    return (weight for weight in weights if "float" in str(weight.dtype))


def _thin(weight: Any) -> np.ndarray:
    """Returns a copy of up to about `KEPT` numbers of a weight, evenly spaced."""
    numbers = np.asarray(weight).reshape(-1)
    return numbers[:: max(1, len(numbers) // KEPT)].astype(np.float64)


def _spaced(count: int, most: int) -> np.ndarray:
    """Returns the positions of up to `most` of `count` examples, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int))


def _number(value: float) -> float | None:
    """Returns four digits of a number; None where it is none."""
    return float(f"{value:.4g}") if math.isfinite(value) else None

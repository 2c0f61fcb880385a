"""Predicts from raw inputs: the task's own encoder, then ONNX Runtime, or Keras where that is wanted."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from src.errors import BadExampleError, UserError
from src.plugin import pick
from src.predict.inputs import Item
from src.predict.source import Held, Source

FORMAT = 1  # the newest inference.json that is understood
OWN = Path("src/models")  # where the stages of the repository write; any other model is foreign
THRESHOLD = 0.5  # above which one of several classes is predicted


class Predictor:
    """A model that is ready to predict.

    Args:
        source: Where it lies.
        threads: That may compute at once; 0: as many as there are cores.
        keras: Whether Keras computes instead of ONNX Runtime.
        spin: Whether threads stay awake between batches: faster for one after another, a waste otherwise.

    Raises:
        UserError: If the model is not whole, or newer than this code.
    """

    def __init__(self, source: Source, threads: int = 0, keras: bool = False, spin: bool = True) -> None:
        self.source = source
        self.threads = threads
        self.inference = describe(source)
        self.classes: list[str] | None = self.inference["classes"]
        self.activation: str = self.inference["output"]["activation"]
        self.task = pick("tasks", self.inference["task_type"])
        folder: Any = Held(source, {"encoder.json": json.dumps(self.inference["encoder"])})
        try:
            self.encoder = self.task.Encoder.load(folder)
            fits = list(self.encoder.shape) == self.inference["input"]["shape"]
        except (AttributeError, KeyError, TypeError, ValueError):  # what wrong values lead to
            fits = False
        if not fits:
            raise UserError(
                f"{source.path}: inference.json: encoder: expected one of the task "
                f"{self.inference['task_type']} for inputs of {self.inference['input']['shape']}, found "
                f"{self.inference['encoder']}"
            )
        self.run: Callable[[np.ndarray], np.ndarray] = (
            _keras(source, threads) if keras else _onnx(source, threads, spin)
        )

    def encode(self, raw: Any) -> np.ndarray:
        """Returns one raw input as the network takes it.

        Raises:
            BadExampleError: If it cannot be read.
        """
        return np.ascontiguousarray(self.encoder.encode(raw), self.encoder.dtype)

    def attempt(self, item: Item) -> np.ndarray | str:
        """Reads and encodes an input; returns the reason if it cannot be."""
        try:
            return self.encode(item.read())
        except BadExampleError as error:
            return str(error)
        except MemoryError:
            return "does not fit into memory"
        except Exception as error:  # of a decoder: one damaged input must not end the others
            return f"damaged: {' '.join(str(error).split()) or type(error).__name__}"

    def predict(self, raws: Iterable[Any]) -> np.ndarray:
        """Returns the outputs for raw inputs, (examples, units) float32.

        Raises:
            BadExampleError: If one cannot be read.
        """
        return self.run(np.stack([self.encode(raw) for raw in raws]))

    def stream(
        self, items: Iterable[Item], batch_size: int = 64
    ) -> Iterator[list[tuple[Item, np.ndarray | str]]]:
        """Yields batches of inputs in their order, each with its output, (units,), or why it has none."""
        remaining = iter(items)
        while batch := list(islice(remaining, batch_size)):
            encoded = self._encode_all(batch)
            good = [array for array in encoded if not isinstance(array, str)]
            outputs = iter(map(finite, self.run(np.stack(good)) if good else []))
            answers = [array if isinstance(array, str) else next(outputs) for array in encoded]
            yield list(zip(batch, answers, strict=True))

    def _encode_all(self, batch: list[Item]) -> list[np.ndarray | str]:
        if len(batch) < 4 or self.threads == 1:
            return [self.attempt(item) for item in batch]
        from concurrent.futures import ThreadPoolExecutor

        if not hasattr(self, "_pool"):
            self._pool = ThreadPoolExecutor(self.threads or os.cpu_count())
        return list(self._pool.map(self.attempt, batch))

    def answer(self, output: np.ndarray, top: int | None = None) -> dict[str, Any]:
        """Returns what one output means, as JSON.

        Args:
            output: (units,) of one example.
            top: How many of the most probable classes to name; None: all.

        Returns:
            `prediction`: a class, a list of those above one half, or a number in the labels' unit; with
            classes also `probabilities`, the most probable first, and where one is predicted its
            `probability`.
        """
        values = [float(str(value)) for value in output]  # 0.1 of float32 is 0.1, not 0.10000000149
        if self.classes is None:
            return {"prediction": values[0] if len(values) == 1 else values}
        order = np.argsort(-output, kind="stable")
        ranked = {self.classes[place]: values[place] for place in order[:top]}
        if self.activation == "sigmoid":
            found = [name for name, value in zip(self.classes, output, strict=True) if value > THRESHOLD]
            return {"prediction": found, "probabilities": ranked}
        best = int(output.argmax())
        return {
            "prediction": self.classes[best],
            "probability": values[best],
            "probabilities": ranked,
        }


def finite(output: np.ndarray) -> np.ndarray | str:
    """Returns an output, or the reason if it is of no use."""
    return output if np.isfinite(output).all() else "the model's output is not a finite number"


def describe(source: Source) -> dict[str, Any]:
    """Reads inference.json.

    Raises:
        UserError: If it is not there, newer than this code, or not complete.
    """
    inference = source.json("inference.json")
    found = inference.get("format") if isinstance(inference, dict) else None
    if not isinstance(found, int) or found < 1:
        raise UserError(f"{source.path}: inference.json: format: found {found!r}, expected a number")
    if found > FORMAT:
        raise UserError(
            f"{source.path}: inference.json has format {found}, newer than {FORMAT}, the newest that this "
            "version reads; use a newer version"
        )
    for key in ("task_type", "classes", "encoder", "input", "output", "data", "architecture", "parameters"):
        if key not in inference:
            raise UserError(f"{source.path}: inference.json: {key} is missing; `dvc repro` writes it anew")
    return inference


def _onnx(source: Source, threads: int, spin: bool) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime

    content = source.read("model.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no other common one
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{source.path}: model.onnx: expected what ONNX Runtime loads, found: {reason}"
        ) from None
    name = session.get_inputs()[0].name
    return lambda batch: session.run(None, {name: batch})[0]


def _keras(source: Source, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    import tempfile

    from src import engine

    content = source.read("model.keras")
    with tempfile.TemporaryDirectory() as scratch:  # Keras loads from a path alone
        path = Path(scratch) / "model.keras"
        path.write_bytes(content)
        try:
            if source.path.resolve() != OWN.resolve():
                engine.vet(path)
            engine.start()
            if threads:
                import tensorflow as tf

                tf.config.threading.set_intra_op_parallelism_threads(threads)
            model = engine.read(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), f"{source.path}: model.keras")) from None
    return lambda batch: np.asarray(model.predict_on_batch(batch))

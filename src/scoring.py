"""Runs a loaded model: its outputs for a split, and how long one example takes."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src.errors import UserError
from src.prepared import Split

if TYPE_CHECKING:
    import keras

BATCH = 512
ROUNDS = 200  # of a comparison of latencies


def predict(model: "keras.Model", split: Split, path: Path) -> np.ndarray:
    """Returns the model's outputs for every example of a split, (examples, units) float32.

    Args:
        model: The model.
        split: Its examples.
        path: Where the model came from, for an error.

    Raises:
        UserError: If the model does not take such inputs, or an output is not a finite number.
    """
    if model.input_shape[1:] != split.inputs.shape[1:]:
        raise UserError(
            f"{path}: takes inputs of {model.input_shape[1:]}, but build/prepared holds "
            f"{split.inputs.shape[1:]}; run `dvc repro`"
        )
    outputs = model.predict(split.batches(BATCH), verbose=1 if sys.stdout.isatty() else 0)
    if not np.isfinite(outputs).all():
        rows = np.flatnonzero(~np.isfinite(outputs).all(axis=1))
        name = split.table["id"].iloc[rows[0]]
        raise UserError(f"{path}: the output for {name} is not a finite number")
    return outputs


def latencies(*runs: Callable[[], Any], rounds: int = ROUNDS) -> np.ndarray:
    """Times calls in turn, so that whatever else the machine does slows all of them alike.

    Args:
        *runs: What to call.
        rounds: How often each is timed, after a few calls that are not.

    Returns:
        (rounds, runs) seconds.
    """
    for _ in range(5):
        for run in runs:
            run()
    seconds = np.empty((rounds, len(runs)))
    for row in range(rounds):
        # Each is first as often as it is last: the one before it leaves its data in the caches.
        for column in np.roll(np.arange(len(runs)), row):
            started = time.perf_counter()
            runs[column]()
            seconds[row, column] = time.perf_counter() - started
    return seconds


def one_example(model: "keras.Model", inputs: np.ndarray) -> Callable[[], Any]:
    """Returns a call of a Keras model with one example."""
    one = np.ascontiguousarray(inputs[:1])
    return lambda: model.predict_on_batch(one)


def one_example_onnx(path: Path, inputs: np.ndarray) -> Callable[[], Any]:
    """Returns a call of an ONNX model with one example.

    Raises:
        UserError: If it is none.
    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes have no other common one
        reason = str(error).splitlines()[0]
        raise UserError(f"{path}: expected what ONNX Runtime loads, found: {reason}") from None
    feed = {session.get_inputs()[0].name: np.ascontiguousarray(inputs[:1])}
    return lambda: session.run(None, feed)

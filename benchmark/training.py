"""Training throughput of Sluice beside a tutorial's `model.fit(x, y)`.

Three ways to train the network of params.yaml on the prepared data, by turns, each in a process of its own:

- textbook: the same layers in the order of the textbooks, normalisation and activation before pooling;
  the images as float32 in memory, every setting left to Keras
- graph: as above, in the order of src/architectures/cnn.py
- sluice: as `python -m src.train.fit` does it: raw uint8 from the memory map, its own batches,
  deterministic operations

What counts are epochs without their validation; the first epoch of each process, which compiles, does not.

    python -m benchmark.training
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from src import engine, params, prepared
from src.files import read_json
from src.network import Frame
from src.plugin import pick
from src.train import compiling

if TYPE_CHECKING:
    import keras

EPOCHS = 6
WAYS = ("textbook", "graph", "sluice")


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="processes of each way (default: 3)")
    parser.add_argument("--way", choices=WAYS, help="measure one way in this process")
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way)))
        return
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(arguments.rounds):
        for way in WAYS:
            command = [sys.executable, "-m", "benchmark.training", "--way", way]
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            rates[way] += json.loads(output.splitlines()[-1])
    medians = {way: statistics.median(rates[way]) for way in WAYS}
    print("| training, examples/s | median | slowest | fastest | Sluice is |\n|---|---|---|---|---|")
    for way, figures in rates.items():
        columns = (f"{figure:,.0f}" for figure in (medians[way], min(figures), max(figures)))
        print(f"| {way} | {' | '.join(columns)} | {medians['sluice'] / medians[way]:.2f} times as fast |")


def measure(way: str) -> list[float]:
    """Returns the examples per second of each epoch but the first."""
    import keras

    settings = params.load()
    train, validation = prepared.Split.open("train"), prepared.Split.open("validation")
    data = read_json(prepared.FOLDER / "data.json")
    objective = pick("objectives", data["objective"])
    architecture = pick("architectures", settings.architecture)
    frame = Frame.from_json(data["network"])
    size = settings.fit.batch_size
    assert isinstance(size, int), "a batch size to compare with"
    rates: list[float] = []

    class Clock(keras.callbacks.Callback):
        """Notes how long the steps of an epoch took."""

        started = 0.0

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.started = time.perf_counter()

        def on_test_begin(self, logs: Any = None) -> None:
            rates.append(len(train) / (time.perf_counter() - self.started))

    given: dict[str, Any] = {"epochs": EPOCHS, "callbacks": [Clock()], "verbose": 0}
    if way == "sluice":
        engine.start(settings.fit.seed, settings.fit.deterministic)
        model = architecture.build(frame, settings.model)
        batches = prepared.Batches(train, size, settings.fit.seed)
        compiling.compile_model(model, objective, settings.fit, len(batches))
        model.fit(batches.stream(), validation_data=validation.batches(size), shuffle=False, **given)
        return rates[1:]
    engine.start(deterministic=False)
    if way == "textbook":
        model = textbook(frame, settings.model)
    else:
        model = architecture.build(
            replace(frame, input=replace(frame.input, dtype="float32")), settings.model
        )
    model.compile("adam", objective.LOSS, metrics=objective.METRICS)
    arrays = [
        (np.asarray(split.inputs, np.float32), np.asarray(split.labels)) for split in (train, validation)
    ]
    model.fit(*arrays[0], validation_data=arrays[1], batch_size=size, **given)
    return rates[1:]


def textbook(frame: Frame, options: Any) -> "keras.Model":
    """Returns the layers of src/architectures/cnn.py in the usual order: pooling last in each block."""
    import keras
    from keras import layers

    network = keras.Sequential([keras.Input(frame.input.shape), layers.Rescaling(1 / 255)])
    for filters in options.filters:
        network.add(layers.Conv2D(filters, options.kernel, padding="same", use_bias=False))
        network.add(layers.BatchNormalization())
        network.add(layers.ReLU())
        network.add(layers.MaxPooling2D())
    network.add(layers.GlobalAveragePooling2D())
    network.add(layers.Dropout(options.dropout))
    network.add(layers.Dense(frame.output.units, activation=frame.output.activation))
    return network


if __name__ == "__main__":
    main()

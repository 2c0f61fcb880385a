"""Training throughput of Sluice beside a tutorial's `model.fit(x, y)` of the same network.

Both train the network of params.yaml on the prepared data, by turns, each time in a process of its own. The
tutorial holds the images as float32 in memory and leaves every setting to Keras; Sluice takes its own
settings (raw uint8 from the memory map, its batches, deterministic operations). The first epoch of each
process, which compiles, does not count.

    python -m benchmark.training
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

from src import engine, params, prepared
from src.files import read_json
from src.plugin import pick
from src.train import fit as stage

EPOCHS = 5
WAYS = ("tutorial", "sluice")


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
    tutorial, sluice = (statistics.median(rates[way]) for way in WAYS)
    print("| training, images/s | median | slowest | fastest |\n|---|---|---|---|")
    for way in WAYS:
        figures = (statistics.median(rates[way]), min(rates[way]), max(rates[way]))
        print(f"| {way} | " + " | ".join(f"{figure:,.0f}" for figure in figures) + " |")
    print(f"\nSluice is {sluice / tutorial:.2f} times as fast in the median epoch.")


def measure(way: str) -> list[float]:
    """Returns the images per second of each epoch but the first."""
    settings = params.load()
    train = prepared.Split.open("train")
    data = read_json(prepared.FOLDER / "data.json")
    objective = pick("objectives", data["objective"])
    architecture = pick("architectures", settings.architecture)
    output = objective.output(data["names"])
    arguments: dict[str, Any]
    if way == "tutorial":
        engine.start(deterministic=False)
        inputs = np.asarray(train.inputs, np.float32)
        model = architecture.build(inputs.shape[1:], "float32", *output, settings.model)
        model.compile("adam", objective.LOSS, metrics=objective.METRICS)
        arguments = {"x": inputs, "y": np.asarray(train.labels), "batch_size": settings.fit.batch_size}
    else:
        engine.start(settings.fit.seed, settings.fit.deterministic)
        model = architecture.build(train.inputs.shape[1:], str(train.inputs.dtype), *output, settings.model)
        batches = prepared.Batches(train, settings.fit.batch_size, settings.fit.seed)
        stage.compile_model(model, objective, settings.fit, len(batches))
        arguments = {"x": batches.stream(), "shuffle": False}
    rates = []
    for _ in range(EPOCHS):
        started = time.perf_counter()
        model.fit(**arguments, verbose=0)
        rates.append(len(train) / (time.perf_counter() - started))
    return rates[1:]


if __name__ == "__main__":
    main()

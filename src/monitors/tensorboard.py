"""TensorBoard: curves, histograms of weights and gradients, the graph, sample predictions, hyperparameters.

Event files in build/monitors/tensorboard/<when the training began>/, `train` and `validation`, written as
each epoch ends: `tensorboard --logdir build/monitors/tensorboard`.
"""

import json
from typing import Any

import numpy as np

from src.params import Section
from src.training.watching import FOLDER, Run, Snapshot

ROWS = 16  # of sample predictions


class Options(Section):
    """`monitors: [{tensorboard: {…}}]`: what is written beside the curves."""

    histograms: bool = True  # of weights and gradients; the graph
    predictions: bool = True  # of the first validation examples


def looks(options: Options) -> bool:
    """Whether anything but curves is wanted."""
    return options.histograms or options.predictions


def start(options: Options, run: Run) -> "TensorBoard":
    """Opens the event files, and writes what holds for the whole training."""
    return TensorBoard(options, run)


class TensorBoard:
    """The event files of one training; one that goes on adds files to the same folder."""

    def __init__(self, options: Options, run: Run) -> None:
        import tensorflow as tf

        self.tf, self.options = tf, options
        self.id = run.previous or run.name
        folder = FOLDER / "tensorboard" / self.id
        self.writers = {
            name: tf.summary.create_file_writer(str(folder / name)) for name in ("train", "validation")
        }
        self.fresh = run.previous is None
        if self.fresh:
            with self._writing("train", 0):
                rows = [f"| {key} | {json.dumps(value)} |" for key, value in run.parameters.items()]
                tf.summary.text("parameters", "\n".join(["| key | value |", "|---|---|", *rows]))
                tf.summary.text("network", "\n".join(f"    {line}" for line in run.network.splitlines()))
                tf.summary.text("commit", run.commit or "none")
                tf.summary.text("classes", ", ".join(run.classes or ["none: labels are numbers"]))
        self._flush()

    def _writing(self, name: str, epoch: int) -> Any:
        return self.writers[name].as_default(step=epoch)

    def _flush(self) -> None:
        for writer in self.writers.values():
            writer.flush()

    def log(self, record: dict[str, Any]) -> None:
        """Adds a point to each curve; those of training and validation share a chart."""
        for key, value in record.items():
            name = "validation" if key.startswith("val_") else "train"
            if key != "epoch":
                with self._writing(name, record["epoch"]):
                    self.tf.summary.scalar(key.removeprefix("val_"), value)
        self._flush()

    def look(self, epoch: int, snapshot: Snapshot) -> None:
        """Adds histograms and predictions; the first time the graph and the pictures, too."""
        # On the CPU: it draws, which must not compete with the training for an accelerator.
        with self.tf.device("CPU:0"), self._writing("train", epoch):
            if self.options.histograms:
                for kind, arrays in (("weights", snapshot.weights), ("gradients", snapshot.gradients)):
                    for name, values in arrays.items():
                        self.tf.summary.histogram(f"{kind}/{name}", values[np.isfinite(values)])
                if self.fresh:
                    self.tf.summary.graph(snapshot.graph)
        with self.tf.device("CPU:0"), self._writing("validation", epoch):
            if self.options.predictions:
                self.tf.summary.text("predictions", table(snapshot))
                if self.fresh and snapshot.pictures is not None:
                    self.tf.summary.image("examples", snapshot.pictures[:ROWS], max_outputs=ROWS)
        self.fresh = False
        self._flush()

    def end(self, status: str) -> None:
        """Closes the files."""
        for writer in self.writers.values():
            writer.close()


def table(snapshot: Snapshot) -> str:
    """Returns the first predictions as a table in Markdown."""
    frame = snapshot.predictions.head(ROWS)
    rows = [[str(cell).replace("|", "\\|") for cell in row] for row in frame.itertuples(index=False)]
    lines = [list(map(str, frame.columns)), ["---"] * frame.shape[1], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

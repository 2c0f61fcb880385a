"""The prepared data: memory-mapped arrays in build/prepared, written by `prepare`, read by every later stage.

build/prepared/<split>/inputs.npy     encoded inputs, (examples, …), the encoder's dtype
build/prepared/<split>/labels.npy     encoded labels, (examples,) or (examples, outputs)
build/prepared/<split>/table.parquet  id, label and every other column of the examples, in the same order
build/prepared/encoder.json           the task's encoder; with a tokenizer.json where inputs are sentences
build/prepared/golden.json            a few raw examples of the test split (src/golden.py)
build/prepared/data.json              counts, classes, hash, both ends of the network (src/network.py), and
                                      what is odd about the data
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from src.errors import UserError

if TYPE_CHECKING:
    import tensorflow as tf

FOLDER = Path("build/prepared")
TOKENIZER = "tokenizer.json"


@dataclass
class Split:
    """The encoded examples of one split, on disk until they are sliced."""

    inputs: np.ndarray
    labels: np.ndarray
    table: pd.DataFrame

    @classmethod
    def open(cls, name: str) -> "Split":
        """Opens `train`, `validation` or `test`.

        Raises:
            UserError: If `prepare` has not run.
        """
        folder = FOLDER / name
        try:
            inputs = np.load(folder / "inputs.npy", mmap_mode="r", allow_pickle=False)
            labels = np.load(folder / "labels.npy", mmap_mode="r", allow_pickle=False)
            return cls(inputs, labels, pd.read_parquet(folder / "table.parquet"))
        except FileNotFoundError as error:
            raise UserError(f"{error.filename}: not found; run `python -m src.train.prepare`") from None

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.labels)

    def batches(self, size: int) -> "tf.data.Dataset":
        """Returns (inputs, labels) in batches, in the order of the table."""
        return Batches(self, size).stream()


@dataclass
class Batches:
    """Batches of a split for Keras, shuffled if a seed is given.

    The order is a function of seed and epoch alone, so an epoch can be repeated exactly, or gone on with
    from its batch `first` on. Only one thread gathers rows, ahead of the training, and tf.data's autotuner
    is off: on small batches it stalls.

    Args:
        split: Whose examples.
        size: Examples of a batch.
        seed: Of the order.
        epoch: From 0 on.
        first: The batch to begin with.
        classes: How many there are, where labels are wanted as probabilities of each.
        change: (inputs, labels, epoch, batch) → both, changed: augmentation.
    """

    split: Split
    size: int
    seed: int | None = None
    epoch: int = 0
    first: int = 0
    classes: int | None = None
    change: Callable[[np.ndarray, np.ndarray, int, int], tuple[np.ndarray, np.ndarray]] | None = None

    def order(self) -> np.ndarray:
        """Returns the order of the examples in this epoch, (examples,) int64."""
        if self.seed is None:
            return np.arange(len(self.split))
        return np.random.default_rng([self.seed, self.epoch]).permutation(len(self.split))

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """Yields (inputs, labels) batches of one epoch; the last one may be smaller."""
        order = self.order()
        for number in range(self.first, len(self)):
            rows = order[number * self.size : (number + 1) * self.size]
            inputs, labels = self.split.inputs[rows], self.encode(self.split.labels[rows])
            yield (inputs, labels) if self.change is None else self.change(inputs, labels, self.epoch, number)

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """Returns labels as the loss takes them: (examples, classes) float32 where `classes` is given."""
        return labels if self.classes is None else np.eye(self.classes, dtype=np.float32)[labels]

    def __len__(self) -> int:
        """Returns the number of batches of an epoch."""
        return -(-len(self.split) // self.size)

    def stream(self) -> "tf.data.Dataset":
        """Returns the batches as a `tf.data.Dataset`; each pass over it reads `epoch` anew."""
        import tensorflow as tf

        def spec(array: np.ndarray) -> tf.TensorSpec:
            return tf.TensorSpec((None, *array.shape[1:]), array.dtype)

        signature = (spec(self.split.inputs), spec(self.encode(self.split.labels[:1])))
        dataset = tf.data.Dataset.from_generator(lambda: iter(self), output_signature=signature)
        options = tf.data.Options()
        options.autotune.enabled = False
        options.deterministic = True
        cardinality = tf.data.experimental.assert_cardinality(len(self) - self.first)
        return dataset.apply(cardinality).prefetch(2).with_options(options)

"""Transfer learning beside training from scratch, on two classes with 20 images each.

datasets/backbones/fashion-8.keras has seen eight of the ten classes of Fashion-MNIST, but no coat and no
shirt. From each of ten draws of 20 coats and 20 shirts, three networks learn to tell them apart, for a number
of epochs fixed beforehand: the network of recipes/fashion.yaml from scratch, a new head on the frozen
backbone, and the same fine-tuned. All 2,000 coats and shirts of the test set judge them.

    python -m benchmark.transfer
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from scipy.stats import ttest_1samp
from sklearn.linear_model import LogisticRegression
from tqdm import trange

from datasets.make_coats_and_shirts import CLASSES
from src import engine, params
from src.architectures import cnn, transfer
from src.network import Frame, Input, Output
from src.tasks import image

ROOT = Path(__file__).parents[1]
EACH = 20  # images of a class to learn from
BATCH = 10
SCRATCH, HEAD, TUNE = 100, 30, 6  # epochs
RATES = {"scratch": 0.001, "head": 0.01, "tune": 0.0001}
NAMES = ("logistic regression on pixels", "from scratch", "new head, backbone frozen", "fine-tuned")


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=10, help="how often 20 images of each class are drawn")
    draws = parser.parse_args().draws
    train, test = read("train"), read("test")
    found = np.array([compare(train, test, draw) for draw in trange(draws, unit="draw")])
    print(f"Accuracy on {len(test[1]):,} test images, mean of {draws} draws (95 % intervals)\n")
    print("| | epochs | accuracy | against from scratch |\n|---|---|---|---|")
    epochs = ("", f"{SCRATCH}", f"{HEAD}", f"{HEAD} + {TUNE}")
    for name, count, values in zip(NAMES, epochs, found.T, strict=True):
        against = interval(values - found[:, 1]) if name != "from scratch" else ""
        print(f"| {name} | {count} | {interval(values)} | {against} |")


def interval(values: np.ndarray) -> str:
    """Returns a mean with its 95 % interval by Student's t, in percentage points."""
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    return f"{100 * values.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})"


def read(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the coats and shirts of a split, (examples, 28, 28, 1) uint8, and which of both each is."""
    table = pq.read_table(ROOT / f"datasets/fashion/{split}.parquet").to_pandas()
    table = table[table["label"].isin(CLASSES)]
    encoder = image.Encoder(image.Options(size=[28, 28], channels=1))
    inputs = np.stack([encoder.encode(cell["bytes"]) for cell in table["image"]])
    return inputs, table["label"].map(CLASSES.index).to_numpy()


def compare(train: Any, test: Any, draw: int) -> list[float]:
    """Returns the accuracy of each of `NAMES` after one draw of examples."""
    labels = pd.Series(train[1])
    rows = labels.groupby(labels).sample(EACH, random_state=draw).index.to_numpy()
    inputs, answers = train[0][rows], train[1][rows]
    linear = LogisticRegression(max_iter=1000).fit(inputs.reshape(len(inputs), -1) / 255, answers)
    accuracies = [linear.score(test[0].reshape(len(test[0]), -1) / 255, test[1])]

    layers = [{"Rescaling": {"scale": 1 / 255}}]
    frame = Frame(Input(inputs.shape[1:], "uint8", layers), Output(len(CLASSES), "softmax"))

    def learn(model: Any, epochs: int, rate: float) -> float:
        import keras

        optimizer = keras.optimizers.Adam(rate)
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(inputs, answers, batch_size=BATCH, epochs=epochs, verbose=0)
        return model.evaluate(*test, batch_size=500, verbose=0)[1]

    engine.start(draw)
    model = cnn.build(frame, params.load(ROOT / "recipes/fashion.yaml").model)
    accuracies.append(learn(model, SCRATCH, RATES["scratch"]))
    engine.start(draw)
    options = transfer.Options(backbone=str(ROOT / "datasets/backbones/fashion-8.keras"))
    model = transfer.build(frame, options)
    accuracies.append(learn(model, HEAD, RATES["head"]))
    transfer.unfreeze(model)
    accuracies.append(learn(model, TUNE, RATES["tune"]))
    return accuracies


if __name__ == "__main__":
    main()

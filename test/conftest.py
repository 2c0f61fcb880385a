"""Small real data, a folder to work in, and how a command fails.

The photographs are crops of the three that scikit-learn and Matplotlib carry: a temple, a flower, a portrait.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image
from ruamel.yaml import YAML
from sklearn.datasets import load_sample_images

from src import command

os.environ["DVC_NO_ANALYTICS"] = "true"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

KINDS = ("flower", "portrait", "temple")
# Half of a few dozen examples: each split then has some of every class, whatever the hashes of their pixels.
BASE = {
    "task": "image",
    "architecture": "cnn",
    "data": {"path": "photos", "validation": 0.25, "test": 0.25},
    "encode": {"size": [16, 16]},
    "model": {"filters": [8, 16], "dropout": 0.0},
    "fit": {"epochs": 2, "batch_size": 8, "optimizer": {"learning_rate": 0.01}},
}


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).parents[1]


@pytest.fixture(scope="session")
def photograph() -> Callable[[str, int], Image.Image]:
    """Crops photographs: the same kind and number give the same RGB picture, 24 to 64 pixels a side."""
    temple, flower = (Image.fromarray(array) for array in load_sample_images().images)
    portrait = Image.open(str(get_sample_data("grace_hopper.jpg", asfileobj=False))).convert("RGB")
    whole = {"flower": flower, "portrait": portrait, "temple": temple}

    def crop(kind: str, number: int) -> Image.Image:
        draw = np.random.default_rng([KINDS.index(kind), number])
        width, height = (int(side) for side in draw.integers(24, 65, 2))
        left = int(draw.integers(whole[kind].width - width))
        top = int(draw.integers(whole[kind].height - height))
        return whole[kind].crop((left, top, left + width, top + height))

    return crop


@pytest.fixture(scope="session")
def write_photos(photograph) -> Callable[..., Path]:
    """Writes class folders of photographs in several formats."""

    def write(
        folder: Path, count: int = 12, kinds=KINDS, suffixes=("png", "jpg", "webp", "bmp"), first=0
    ) -> Path:
        for kind in kinds:
            (folder / kind).mkdir(parents=True, exist_ok=True)
            for number in range(first, first + count):
                name = f"{number:03}.{suffixes[number % len(suffixes)]}"
                photograph(kind, number).save(folder / kind / name)
        return folder

    return write


@pytest.fixture(scope="session")
def fashion(root) -> list[dict[str, Any]]:
    """The first 60 test images of datasets/fashion: PNG bytes and class names."""
    with pq.ParquetFile(root / "datasets/fashion/test.parquet") as file:
        return next(file.iter_batches(60)).to_pylist()


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    """An empty folder, and the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def write_params() -> Callable[..., None]:
    """Writes params.yaml here: `write_params(fit={"epochs": 3})` replaces keys of a section."""

    def write(**changes: Any) -> None:
        content: dict[str, Any] = dict(BASE)
        for key, value in changes.items():
            both = isinstance(value, dict) and isinstance(content.get(key), dict)
            content[key] = {**content[key], **value} if both else value
        YAML(typ="safe").dump(content, Path("params.yaml"))

    return write


@pytest.fixture(scope="session")
def fails() -> Callable[[Callable[[], None]], tuple[int, str]]:
    """Runs a command as `python -m` would, and returns its exit code and what it says at the end."""

    def run(main: Callable[[], None]) -> tuple[int, str]:
        with pytest.raises(SystemExit) as exit:
            command.run(main)
        code = exit.value.code
        return (1, code) if isinstance(code, str) else (int(code or 0), "")

    return run

"""A new kind of data is one new file: a task that a test writes trains and is judged with no other edit."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

TASK = '''"""Points in the plane, as text: `3.5 -1.25`."""

import hashlib

import numpy as np

from src import dataset
from src.errors import BadExampleError
from src.files import read_json, write_json
from src.params import Section

CELL = (1.2, 1.2)


class Options(Section):
    """`encode:` how far points may be away."""

    radius: float = 10.0


def read(data, spool):
    """Reads a table with a column `point`."""
    return dataset.read(data, spool, (".point",), ("point",), paths=False)


def digest(raw):
    """Returns a hash of both numbers."""
    return hashlib.blake2b(repr(_parse(raw)).encode(), digest_size=16).hexdigest()


class Encoder:
    """Encodes a point as two numbers."""

    dtype = "float32"
    shape = (2,)
    layers = [{"Rescaling": {"scale": 0.1}}]
    vocabulary = []

    def __init__(self, options):
        self.options = options

    @classmethod
    def learn(cls, raws, options):
        return cls(options)

    @classmethod
    def load(cls, folder):
        return cls(Options.model_validate(read_json(folder / "encoder.json")))

    def save(self, folder):
        write_json(folder / "encoder.json", self.options.model_dump())

    def encode(self, raw):
        return np.array(_parse(raw), np.float32)

    def draw(self, axes, array):
        axes.plot(*array, marker="o")

    def describe(self, array):
        return {"point": " ".join(map(str, array))}


def _parse(raw):
    try:
        x, y = map(float, raw.split())
    except (AttributeError, ValueError):
        raise BadExampleError("expected two numbers") from None
    return x, y
'''
ARCHITECTURE = '''"""One hidden layer."""

from src.params import Section


class Options(Section):
    """`model:` how wide it is."""

    units: int = 16


def build(frame, options):
    """Builds the network."""
    from keras import layers

    inputs, x = frame.begin()
    return frame.end(inputs, layers.Dense(options.units, activation="relu")(x), "tiny")
'''
SETTINGS = """
task: points
architecture: tiny
objective: classification
data: {path: datasets/points.csv}
encode: {radius: 5.0}
model: {units: 8}
fit: {epochs: 20, batch_size: 16, optimizer: {learning_rate: 0.05}}
report: {title: Points}
gates: {minimum: {metric: accuracy, limit: 0.6}}
"""


@pytest.fixture
def repository(root, tmp_path) -> Path:
    """A copy of the code with two new files, a dataset, and a params.yaml that names them."""
    shutil.copytree(root / "src", tmp_path / "src", ignore=shutil.ignore_patterns("models", "__pycache__"))
    shutil.copyfile(root / "dvc.yaml", tmp_path / "dvc.yaml")
    (tmp_path / "src/models").mkdir()
    (tmp_path / "src/tasks/points.py").write_text(TASK)
    (tmp_path / "src/architectures/tiny.py").write_text(ARCHITECTURE)
    (tmp_path / "params.yaml").write_text(SETTINGS)
    (tmp_path / "datasets").mkdir()
    random = np.random.default_rng(0)
    labels = np.array(["left", "right"])[random.integers(2, size=400)]
    x = np.where(labels == "left", -2.0, 2.0) + random.normal(size=400)
    points = [f"{a:.3f} {b:.3f}" for a, b in zip(x, random.normal(size=400), strict=True)]
    pd.DataFrame({"point": points, "label": labels}).to_csv(tmp_path / "datasets/points.csv", index=False)
    return tmp_path


def run(folder: Path, *command: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_a_new_task_and_a_new_architecture_need_no_other_edit(repository):
    for command in (["init", "--no-scm", "--quiet"], ["repro"]):
        run(repository, "dvc", *command)
    inference = json.loads((repository / "src/models/inference.json").read_text())
    assert inference["task_type"] == "points"
    assert inference["accuracy"] > 0.9
    page = (repository / "src/models/report/index.html").read_text()
    assert "<th>point</th>" in page
    run(repository, "src.evaluate.gate")


def test_no_stage_asks_which_task_it_works_for(root):
    stages = [
        *root.glob("src/*.py"),
        *(root / "src/train").glob("*.py"),
        *(root / "src/evaluate").glob("*.py"),
    ]
    for file in stages:
        text = file.read_text()
        assert "task ==" not in text, file
        assert "objective ==" not in text, file
        assert "architecture ==" not in text, file

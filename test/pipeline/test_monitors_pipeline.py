"""A training with every monitor: what they write is read back, and the model is the one without them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.files import read_json
from src.train import fit, prepare

MONITORS = ["tensorboard", "wandb", "dvclive"]
METRICS = {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"}


@pytest.fixture(scope="module")
def project(tmp_path_factory, write_photos, write_params) -> Iterator[Path]:
    """Prepared photographs, trained without monitors (model.keras and history.json are kept), then with."""
    before = Path.cwd()
    folder = tmp_path_factory.mktemp("project")
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_CONFIG_DIR", str(folder / "config"))
        patch.setenv("WANDB_CACHE_DIR", str(folder / "cache"))
        write_photos(folder / "photos", 16)
        write_params(fit={"epochs": 3})
        prepare.main()
        fit.main()
        shutil.copytree("src/models", "alone")
        write_params(fit={"epochs": 3, "monitors": MONITORS})
        fit.main()
        yield folder
    os.chdir(before)


def events(folder: Path, name: str) -> Any:
    """Reads the event files of the one training there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = (folder / "build/monitors/tensorboard").iterdir()
    accumulator = EventAccumulator(str(run / name), size_guidance={"tensors": 0})
    return accumulator.Reload()


def test_monitors_change_no_byte_of_model_and_history(project):
    for name in ("model.keras", "history.json"):
        assert (project / "src/models" / name).read_bytes() == (project / "alone" / name).read_bytes(), name


def test_nothing_is_left_that_a_later_training_would_go_on_with(project):
    assert not list((project / "build/monitors").glob("*.json"))


def test_tensorboard_has_the_curves_of_both_splits(project):
    history = read_json(project / "src/models/history.json")
    for split, prefix in (("train", ""), ("validation", "val_")):
        found = events(project, split)
        for metric in ("loss", "accuracy"):
            points = [(point.step, found_value(point)) for point in found.Tensors(metric)]
            assert points == [(record["epoch"], pytest.approx(record[prefix + metric])) for record in history]


def found_value(point: Any) -> float:
    from tensorboard.util import tensor_util

    return float(tensor_util.make_ndarray(point.tensor_proto))


def test_tensorboard_has_histograms_of_weights_and_gradients_of_every_layer_in_every_epoch(project):
    import keras
    from tensorboard.util import tensor_util

    found = events(project, "train")
    model = keras.saving.load_model(project / "src/models/model.keras")
    for variable in model.trainable_variables:
        for kind in ("weights", "gradients"):
            points = found.Tensors(f"{kind}/{variable.path}")
            assert [point.step for point in points] == [1, 2, 3]
            counts = tensor_util.make_ndarray(points[0].tensor_proto)[:, 2]
            assert counts.sum() == np.prod(variable.shape)


def test_tensorboard_has_the_graph_the_parameters_and_the_first_predictions(project):
    from tensorboard.util import tensor_util

    train, validation = events(project, "train"), events(project, "validation")
    assert any("Conv2D" in node.op for node in train.Graph().node)
    (text,) = tensor_util.make_ndarray(train.Tensors("parameters")[0].tensor_proto).ravel()[:1]
    assert "| fit.optimizer.learning_rate | 0.01 |" in text.decode()
    tables = validation.Tensors("predictions")
    assert [table.step for table in tables] == [1, 2, 3]
    (text,) = tensor_util.make_ndarray(tables[-1].tensor_proto).ravel()[:1]
    assert text.decode().startswith("| id | label | prediction | confidence |")
    pictures = tensor_util.make_ndarray(validation.Tensors("examples")[0].tensor_proto)
    assert pictures[2].startswith(b"\x89PNG")

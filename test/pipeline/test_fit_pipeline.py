"""What people ask of a training, through the stages: augmentation, weights, precision, devices, phases."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from src import engine, prepared
from src.evaluate import export, report, score
from src.files import read_json, sha256
from src.train import batch_size, fit, prepare

MODELS = Path("src/models")
FLIP = {"RandomFlip": {"mode": "horizontal"}}


@pytest.fixture
def fashion(root, workspace) -> Callable[..., None]:
    """Prepares some of the pictures and writes params.yaml with changes of `fit:`."""
    Path("few").mkdir()
    for split, count in (("train", 44), ("test", 20)):  # of each class
        images = pd.read_parquet(root / f"datasets/fashion/{split}.parquet")
        images.groupby("label").head(count).to_parquet(f"few/{split}.parquet")

    def write(**changes: Any) -> None:
        settings = YAML(typ="safe").load(root / "recipes/fashion.yaml")
        settings["data"]["path"] = "few"
        settings["fit"] |= {"epochs": 2, "batch_size": 64, **changes}
        YAML(typ="safe").dump(settings, Path("params.yaml"))
        if not prepared.FOLDER.exists():
            prepare.main()

    return write


@pytest.mark.slow
def test_everything_at_once_is_trained_scored_exported_and_shown(fashion):
    fashion(
        loss={"name": "CategoricalCrossentropy", "label_smoothing": 0.1},
        metrics=["AUC"],
        class_weight={"Shirt": 2.0},
        precision="mixed_bfloat16",
        augment=[FLIP, {"MixUp": {"alpha": 0.2}}],
        optimizer={"name": "adamw", "learning_rate": 0.003, "weight_decay": 0.01, "global_clipnorm": 1.0},
    )
    for stage in (fit, score, export, report):
        stage.main()
    assert {"auc", "val_auc"} <= set(read_json(MODELS / "history.json")[0])
    model = engine.load(MODELS / "model.keras")
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}
    assert not any("Random" in type(layer).__name__ for layer in model.layers)
    page = (MODELS / "report/index.html").read_text()
    assert "What the network saw" in page
    with np.load("build/augmented.npz") as arrays:
        inputs = arrays["inputs"]
    assert inputs.shape == (fit.SHOWN, 1 + fit.VERSIONS, 28, 28, 1)
    assert np.array_equal(inputs[:, 0], prepared.Split.open("train").inputs[: fit.SHOWN])
    assert not np.array_equal(inputs[:, 0], inputs[:, 1])


@pytest.mark.slow
def test_without_augmentation_the_page_shows_none(fashion):
    fashion()
    for stage in (fit, score, report):
        stage.main()
    assert "What the network saw" not in (MODELS / "report/index.html").read_text()


@pytest.mark.slow
def test_the_largest_batch_is_measured_and_kept_by_a_training_that_goes_on(fashion, capsys, monkeypatch):
    fashion(batch_size="auto", epochs=3)
    fit.main()
    said = capsys.readouterr().out
    assert "batch size: 32, the most that fits" in said  # 64 would leave fewer than ten steps of 400 examples
    expected = sha256(MODELS / "model.keras")
    # A checkpoint keeps the size, even if there is less memory when the training goes on.
    write, calls = fit.checkpoint.Keeper.write, []

    def ended(keeper: Any, progress: Any) -> None:
        write(keeper, progress)
        calls.append(progress.epoch)
        raise KeyboardInterrupt

    monkeypatch.setattr(fit.checkpoint.Keeper, "write", ended)
    with pytest.raises(KeyboardInterrupt):
        fit.main()
    monkeypatch.setattr(fit.checkpoint.Keeper, "write", write)
    monkeypatch.setattr(batch_size, "free_memory", lambda: 0.0)
    capsys.readouterr()
    fit.main()
    assert "batch size" not in capsys.readouterr().out
    assert calls == [1]
    assert sha256(MODELS / "model.keras") == expected


@pytest.mark.slow
def test_a_step_that_no_memory_holds_is_one_sentence(fashion, fails, monkeypatch):
    fashion(batch_size="auto", precision="mixed_float16", device="gpu")
    code, said = fails(fit.main)
    assert code == 1
    assert "fit.batch_size: auto: no step could be measured" in said
    assert "finds no GPU here" in said


@pytest.mark.slow
def test_several_devices_share_each_batch(fashion, root):
    fashion(device="cpu:0,1")
    program = """
import tensorflow as tf
from src.train import fit
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
fit.main()
print(tf.distribute.get_strategy().num_replicas_in_sync)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    losses = [epoch["loss"] for epoch in json.loads((MODELS / "history.json").read_text())]
    assert losses[1] < losses[0] < 3


@pytest.mark.slow
def test_fine_tuning_begins_when_it_should_trains_the_backbone_and_goes_on_after_a_kill(
    root, workspace, monkeypatch
):
    Path("datasets").symlink_to(root / "datasets")
    settings = YAML(typ="safe").load(root / "recipes/transfer.yaml")
    settings["data"]["test"] = 0.8
    tune = {"after": 2, "learning_rate": 0.0001}
    settings["fit"] |= {"epochs": 4, "early_stopping": None, "fine_tune": tune}
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    prepare.main()
    frozen: list[bool] = []
    epoch_ends = fit.checkpoint.Keeper.write

    def look(keeper: Any, progress: Any) -> None:
        epoch_ends(keeper, progress)
        frozen.append(not keeper.model.get_layer("backbone").trainable_variables)

    monkeypatch.setattr(fit.checkpoint.Keeper, "write", look)
    fit.main()
    assert frozen == [True, True, False, False]
    rates = [epoch["learning_rate"] for epoch in read_json(MODELS / "history.json")]
    assert rates == pytest.approx([0.01, 0.01, 0.0001, 0.0001])
    expected = [sha256(MODELS / name) for name in ("model.keras", "history.json", "diagnosis.json")]

    def ended(keeper: Any, progress: Any) -> None:
        epoch_ends(keeper, progress)
        if progress.epoch in stops:
            stops.remove(progress.epoch)
            raise KeyboardInterrupt

    for stop in (2, 3):
        stops = [stop]
        monkeypatch.setattr(fit.checkpoint.Keeper, "write", ended)
        with pytest.raises(KeyboardInterrupt):
            fit.main()
        fit.main()
        found = [sha256(MODELS / name) for name in ("model.keras", "history.json", "diagnosis.json")]
        assert found == expected


@pytest.mark.slow
def test_what_has_nothing_frozen_cannot_be_fine_tuned(fashion, fails):
    fashion(fine_tune={"after": 1})
    code, said = fails(fit.main)
    assert code == 1
    assert said.startswith("error: params.yaml: fit.fine_tune: architecture cnn has nothing frozen to train")

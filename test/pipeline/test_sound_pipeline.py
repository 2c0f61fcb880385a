"""Recordings and volumes through every stage, and the bad ones that users have."""

import json
import zipfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest
import soundfile
from ruamel.yaml import YAML

from src import prepared
from src.evaluate import export, report, score
from src.evaluate.export import run
from src.files import sha256
from src.prepared import Split
from src.train import fit, prepare

MODELS = Path("src/models")
DRAWN = {"validation": 0.25, "test": 0.25}  # of two dozen examples: each split then has some of every class


def write_recipe(root: Path, name: str, **changes: dict[str, Any]) -> None:
    """Writes params.yaml: a recipe, of which these keys of sections are others."""
    content = YAML(typ="safe").load(root / f"recipes/{name}.yaml")
    content["data"]["path"] = str(root / content["data"]["path"])
    for section, keys in changes.items():
        content[section] |= keys
    YAML(typ="safe").dump(content, Path("params.yaml"))


def summary() -> dict[str, Any]:
    return json.loads((prepared.FOLDER / "data.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "shape", "dtype"), [("speech", [9600], "int16"), ("volumes", [16, 16, 16, 1], "uint8")]
)
def test_a_recipe_goes_from_data_to_report_and_trains_the_same_twice(workspace, root, recipe, shape, dtype):
    write_recipe(root, recipe, data={"sample": 60}, fit={"epochs": 3})
    for stage in (prepare, fit, score, export, report):
        stage.main()
    inference = json.loads((MODELS / "inference.json").read_text())
    assert inference["input"] == {"shape": shape, "dtype": dtype}
    test = Split.open("test")
    predictions = pd.read_parquet(MODELS / "predictions.parquet")
    assert predictions["id"].equals(test.table["id"])
    without_keras = run(MODELS / "model.onnx", test.inputs).argmax(axis=1)
    assert predictions["prediction"].tolist() == [inference["classes"][best] for best in without_keras]
    assert (MODELS / "report/index.html").read_text().count("data:image/png;base64,") >= 5

    history = sha256(MODELS / "history.json")
    fit.main()
    assert sha256(MODELS / "history.json") == history  # every loss to the last bit


# ── Recordings ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def sounds(workspace, root) -> Path:
    """Class folders of 24 tones and noises at 8 kHz, and a params.yaml that says so."""
    draw = np.random.default_rng(0)
    for number in range(12):
        tone = 0.3 * np.sin(np.arange(4000) * draw.uniform(0.1, 2))
        for kind, samples in (("noise", draw.normal(0, 0.1, 4000)), ("tone", tone)):
            path = Path(f"sounds/{kind}/{number:02}.{('wav', 'flac', 'ogg')[number % 3]}")
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples, 8000)
    write_recipe(root, "speech", data={**DRAWN, "path": "sounds"})
    return Path("sounds")


def test_recordings_of_every_kind_become_one_shape(sounds, root):
    stereo = np.stack([np.sin(np.arange(96_000) * 0.05)] * 2, axis=1)
    soundfile.write(sounds / "tone/stereo.wav", stereo, 96_000, subtype="PCM_24")
    soundfile.write(sounds / "tone/short.wav", stereo[:20, 0], 8000)
    soundfile.write(sounds / "noise/silence.flac", np.zeros(8000), 8000)
    (sounds / "noise/notes.txt").write_text("not a recording")
    prepare.main()
    found = summary()
    assert sum(found["examples"].values()) == 27
    assert found["ignored"] == ["noise/notes.txt"]
    assert found["network"]["input"]["shape"] == [9600]
    assert list(found["network"]["input"]["layers"][1]) == ["MelSpectrogram"]
    with zipfile.ZipFile("sounds.zip", "w") as archive:
        for path in sounds.glob("*/*"):
            archive.write(path)
    write_recipe(root, "speech", data={**DRAWN, "path": "sounds.zip"})
    prepare.main()
    assert summary()["examples"] == found["examples"]
    assert summary()["test_hash"] == found["test_hash"]


def test_every_bad_recording_is_listed_with_its_reason(sounds, fails):
    whole = (sounds / "noise/00.wav").read_bytes()
    (sounds / "noise/cut.wav").write_bytes(whole[: len(whole) // 2])
    (sounds / "noise/header.wav").write_bytes(whole[:44])
    (sounds / "noise/page.wav").write_text("<!DOCTYPE html><title>404</title>")
    soundfile.write(sounds / "noise/nan.wav", np.array([0.1, np.nan]), 8000, subtype="FLOAT")
    code, message = fails(prepare.main)
    assert code == 1
    assert message.splitlines() == [
        "error: sounds: 4 of 28 examples cannot be read:",
        "  noise/cut.wav: cut short after 0.249 s",
        "  noise/header.wav: a header without samples",
        "  noise/nan.wav: samples that are no numbers (NaN) or infinite",
        "  noise/page.wav: not audio in a known format",
        "  Mend or remove them, or set data.on_bad: skip.",
    ]
    assert not Path("build/prepared").exists()


# ── Volumes ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def scans(workspace, root) -> Path:
    """Class folders of 24 volumes of unequal size, and a params.yaml that says so."""
    draw = np.random.default_rng(0)
    for number in range(12):
        for kind, level in (("dark", 0), ("light", 100)):
            voxels = draw.normal(level, 50, tuple(draw.integers(6, 20, 3))).astype(np.float32)
            folder = Path("scans") / kind
            folder.mkdir(parents=True, exist_ok=True)
            if number % 3 == 0:
                np.save(folder / f"{number:02}.npy", voxels)
            elif number % 3 == 1:
                np.savez_compressed(folder / f"{number:02}.npz", voxels)
            else:
                nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / f"{number:02}.nii.gz")
    write_recipe(root, "volumes", data={**DRAWN, "path": "scans"})
    return Path("scans")


def test_volumes_of_every_format_and_size_become_one_shape(scans):
    prepare.main()
    for name in ("train", "validation", "test"):
        split = Split.open(name)
        assert split.inputs.shape == (len(split), 16, 16, 16, 1)
    assert sum(summary()["examples"].values()) == 24
    low, high = json.loads((prepared.FOLDER / "encoder.json").read_text())["window"]
    assert -150 < low < 0 < 150 < high < 250


def test_every_bad_volume_is_listed_with_its_reason(scans, fails):
    packed = (scans / "dark/02.nii.gz").read_bytes()
    (scans / "dark/cut.nii.gz").write_bytes(packed[: len(packed) // 2])
    np.save(scans / "dark/flat.npy", np.zeros((4, 4, 4)))
    np.save(scans / "dark/pickled.npy", np.full((4, 4, 4), None))
    np.save(scans / "dark/picture.npy", np.zeros((4, 4)))
    np.savez(scans / "dark/two.npz", scan=np.eye(3), mask=np.eye(3))
    code, message = fails(prepare.main)
    assert code == 1
    assert message.splitlines() == [
        "error: scans: 5 of 29 examples cannot be read:",
        "  dark/cut.nii.gz: damaged volume: Compressed file ended before the end-of-stream marker was "
        "reached",
        "  dark/flat.npy: every voxel is 0",
        "  dark/pickled.npy: a pickled .npy file; save an array of numbers",
        "  dark/picture.npy: 4 × 4 voxels, expected depth × height × width (× channels)",
        "  dark/two.npz: 2 arrays (scan.npy, mask.npy), expected one",
        "  Mend or remove them, or set data.on_bad: skip.",
    ]


def test_other_channels_than_the_options_say_are_one_sentence(scans, fails):
    np.save(scans / "light/colour.npy", np.random.default_rng(0).random((4, 4, 4, 3)))
    code, message = fails(prepare.main)
    assert code == 1
    assert message.startswith("error: scans: 1 of 25 examples cannot be read:")
    assert "light/colour.npy: 4 × 4 × 4 × 3 voxels, expected 1 channels (encode.channels)" in message
    assert not list(Path("build").iterdir())

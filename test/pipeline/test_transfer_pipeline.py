"""Transfer learning through every stage, and networks of Keras Applications as ONNX."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from src import engine, prepared
from src.architectures import transfer
from src.conversion import convert
from src.evaluate import export, report, score
from src.evaluate.export import run
from src.files import read_json, sha256
from src.network import Frame, Input, Output
from src.train import fit, prepare

MODELS = Path("src/models")
BACKBONE = Path(__file__).parents[2] / "datasets/backbones/fashion-8.keras"


def write_recipe(root: Path, **changes: dict[str, Any]) -> None:
    """Writes params.yaml: the recipe for three epochs, of which these keys of sections are others."""
    content = YAML(typ="safe").load(root / "recipes/transfer.yaml")
    content["data"]["path"] = str(root / content["data"]["path"])
    content["model"]["backbone"] = str(BACKBONE)
    content["fit"] |= {"epochs": 3}
    for section, keys in changes.items():
        content[section] |= keys
    YAML(typ="safe").dump(content, Path("params.yaml"))


@pytest.mark.slow
def test_photographs_in_colour_go_through_every_stage_on_a_backbone_of_grey_ones(
    workspace, root, write_photos
):
    photos = write_photos(Path("photos"), 12)
    write_recipe(
        root,
        data={"path": str(photos), "validation": 0.25, "test": 0.25},
        encode={"size": [40, 40], "channels": 3},
    )
    for stage in (prepare, fit, score, export, report):
        stage.main()
    first = sha256(MODELS / "model.keras")
    inference = read_json(MODELS / "inference.json")
    assert inference["input"] == {"shape": [40, 40, 3], "dtype": "uint8"}
    (backbone,) = [layer for layer in inference["layers"] if layer["name"] == "backbone"]
    assert backbone["inputs"] == ["preprocessing_colours"]
    assert backbone["trainable_parameters"] == 0
    page = (MODELS / "report/index.html").read_text()
    assert "those with dashed lines are frozen" in page
    for layer in [*inference["layers"], *backbone["layers"]]:
        assert f"<td>{layer['name']}</td>" in page
    assert (
        len(re.findall('class="connection"', page)) == len(inference["layers"]) + len(backbone["layers"]) - 3
    )

    fit.main()
    assert sha256(MODELS / "model.keras") == first


@pytest.mark.slow
def test_the_recipe_tells_coats_from_shirts_by_twenty_of_each(workspace, root):
    content = YAML(typ="safe").load(root / "recipes/transfer.yaml")
    write_recipe(root, fit=content["fit"])
    for stage in (prepare, fit, score):
        stage.main()
    examples = json.loads((prepared.FOLDER / "data.json").read_text())["examples"]
    assert examples["train"] + examples["validation"] == 40
    assert read_json(MODELS / "metrics.json")["accuracy"] > content["gates"]["minimum"]["limit"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetB0", "ResNet50"])
def test_a_network_of_keras_applications_agrees_with_its_onnx_file(workspace, fashion, name, capfd):
    engine.start(3)
    frame = Frame(Input((28, 28, 1), "uint8", [{"Rescaling": {"scale": 1 / 255}}]), Output(2, "linear"))
    model = transfer.build(frame, transfer.Options(backbone=name, weights=None, size=[64, 64]))
    engine.save(model, Path("model.keras"))
    loaded = engine.load(Path("model.keras"))
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1), np.uint8)
    # Without weights the signal nearly dies on its way; the head makes it as large as it would be.
    kernel, bias = loaded.layers[-1].get_weights()
    spread = loaded.predict(images, verbose=0).std(axis=0)
    assert (spread > 0).all()
    loaded.layers[-1].set_weights([kernel / spread, bias])
    expected = loaded.predict(images, verbose=0)
    convert(loaded, Path("model.onnx"))
    found = run(Path("model.onnx"), images)
    np.testing.assert_allclose(found - found.mean(axis=0), expected - expected.mean(axis=0), atol=1e-4)
    assert "Traceback" not in capfd.readouterr().err

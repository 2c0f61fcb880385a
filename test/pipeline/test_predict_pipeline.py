"""Raw inputs through sluice.pyz predict what Keras predicted in the pipeline, for every kind of data."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from starlette.testclient import TestClient

from src import golden, params
from src.dataset import content
from src.evaluate import export, score
from src.files import read_json
from src.plugin import pick
from src.predict.predictor import Predictor
from src.predict.source import Source
from src.predict.web.app import App
from src.predict.web.reading import Limits
from src.publish import bundle, pyz
from src.train import fit, prepare

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
MODELS = Path("src/models")
NAMES = ("model.keras", "model.onnx", "inference.json", "golden.json", "metrics.json", "tokenizer.json")
# Reads packed inputs, a line each; writes all outputs. Only the archive's own code is on the path.
PROGRAM = """
import json, sys
sys.path[0] = "build/bundle/sluice.pyz"
from src import golden, options
options.trust()
import numpy as np
from pathlib import Path
from src.predict.inputs import Item
from src.predict.predictor import Predictor
from src.predict.source import Source
predictor = Predictor(Source(Path(sys.path[0])), keras=len(sys.argv) > 1)
items = (Item("", lambda line=line: golden.unpack(json.loads(line))) for line in open("raws.jsonl"))
outputs = [output for batch in predictor.stream(items) for _, output in batch]
np.save("outputs.npy", np.stack(outputs))
answers = [predictor.answer(output)["prediction"] for output in outputs]
Path("answers.json").write_text(json.dumps(answers))
assert all(str(module.__file__).startswith(sys.path[0]) for name, module in sys.modules.items()
           if name.startswith("src.") and getattr(module, "__file__", None)), "code of the repository"
print("found", *({"tensorflow", "keras", "pandas", "pydantic", "pyarrow", "dvc"} & set(sys.modules)))
"""


def bundle_up() -> Path:
    """Makes build/bundle and sluice.pyz of src/models, as publishing does for what the gate let through."""
    folder = Path("build/bundle")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in NAMES:
        if (MODELS / name).exists():
            shutil.copyfile(MODELS / name, folder / name)
    bundle.write_sums(folder)
    pyz.main()
    return folder / "sluice.pyz"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def outputs_in_pipeline(test: pd.DataFrame, names: list[str] | None) -> np.ndarray:
    """Returns what Keras computed when the model was scored, (examples, units)."""
    columns = [f"probability of {name}" for name in names] if names else ["prediction"]
    return test[columns].to_numpy(np.float32)


def outputs_of_server(source: Source, names: list[str] | None) -> tuple[np.ndarray, list[str]]:
    """Returns what the server answers to the packed inputs: outputs, (examples, units), and predictions."""
    packed = [json.loads(line) for line in Path("raws.jsonl").read_text().splitlines()]
    raws = [value for one in packed for value in one.values()]
    app = App(Predictor(source), Limits(size=1_000_000_000, seconds=300.0))
    rows: list[dict[str, Any]] = []
    with TestClient(app.build()) as client:
        for start in range(0, len(raws), 500):
            response = client.post("/predict", json={"inputs": raws[start : start + 500]})
            assert response.status_code == 200, response.text
            rows += response.json()["predictions"]
    if not names:
        return np.array([[row["prediction"]] for row in rows], np.float32), []
    stated = [row["prediction"] for row in rows]
    outputs = [[row["probabilities"][name] for name in names] for row in rows]
    return np.array(outputs, np.float32), [
        "|".join(each) if isinstance(each, list) else each for each in stated
    ]


@pytest.fixture
def recipe(request, root, workspace, monkeypatch) -> Path:
    """A recipe whose model has been trained for an epoch on a sample, scored and exported."""
    settings = YAML(typ="safe").load(request.param)
    Path("datasets").symlink_to(root / "datasets")
    settings["data"] |= {"sample": 120}
    settings["fit"] |= {"epochs": 1}
    YAML(typ="safe").dump(settings, Path("params.yaml"))
    monkeypatch.setattr("sys.argv", ["stage"])
    for stage in (prepare, fit, score, export):
        stage.main()
    return workspace


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, indirect=True, ids=[path.stem for path in RECIPES])
def test_raw_inputs_predict_in_the_archive_what_keras_predicted_in_the_pipeline(recipe):
    settings = params.load()
    predictions = pd.read_parquet(MODELS / "predictions.parquet")
    names = read_json(MODELS / "inference.json")["classes"]
    expected = outputs_in_pipeline(predictions, names)

    Path("spool").mkdir()
    table = pick("tasks", settings.task).read(settings.data, Path("spool")).set_index("id")
    with open("raws.jsonl", "w") as file:
        for name in predictions["id"]:
            file.write(json.dumps(golden.pack(content(table.loc[name, "input"]))) + "\n")
    archive = bundle_up()

    for engine, light in (([], True), (["keras"], False)):
        result = run("-c", PROGRAM, *engine)
        assert result.returncode == 0, result.stderr
        assert (result.stdout.splitlines()[-1] == "found") == light, result.stdout
        found = np.load("outputs.npy")
        unit = 1.0 if names else float(expected.std())
        assert golden.difference(expected, found, unit).max() < 1e-4
        answers = json.loads(Path("answers.json").read_text())
        if names:
            stated = ["|".join(answer) if isinstance(answer, list) else answer for answer in answers]
            assert stated == predictions["prediction"].tolist()
        else:
            assert answers == pytest.approx(expected[:, 0].tolist(), rel=1e-4, abs=1e-4 * unit)

    served, answers = outputs_of_server(Source(archive), names)
    assert golden.difference(expected, served, unit).max() < 1e-4
    if names:
        assert answers == predictions["prediction"].tolist()

    result = run(str(archive), "verify")
    assert result.returncode == 0, result.stderr
    examples = read_json(MODELS / "golden.json")["examples"]
    assert f"{len(examples)} golden examples predict the same" in result.stdout
    assert 1 <= len(examples) <= golden.EXAMPLES

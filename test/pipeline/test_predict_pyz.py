"""sluice.pyz: one file that is a program, a bundle and a zip archive; and what becomes of damaged ones."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx2
import pytest
from PIL import Image
from test_serve_process import serving  # type: ignore[import-not-found]

from src import stores
from src.files import sha256
from src.publish import pyz


@pytest.fixture(scope="session")
def network(tmp_path_factory) -> bytes:
    """An ONNX file: the means of two halves of an image of 8 × 8, and softmax."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weights = np.repeat(np.eye(2, dtype=np.float32), 32, axis=0) / 32 / 255
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["input"], ["numbers"], to=TensorProto.FLOAT),
            helper.make_node("Flatten", ["numbers"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["dense"]),
            helper.make_node("Softmax", ["dense"], ["output"]),
        ],
        "model",
        [helper.make_tensor_value_info("input", TensorProto.UINT8, ["batch", 8, 8, 1])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    content: bytes = model.SerializeToString()
    return content


@pytest.fixture
def archive(published, network, run_command) -> Path:
    """The archive of a bundle whose model says whether light comes from above or from below."""
    from src import golden
    from src.publish import bundle

    image = Image.new("L", (8, 8))
    image.paste(255, (0, 0, 8, 4))
    image.save("sky.png")
    (published / "src/models/model.onnx").write_bytes(network)
    inference = json.loads(Path("src/models/inference.json").read_text())
    inference |= {
        "classes": ["above", "below"],
        "encoder": {"size": [8, 8], "channels": 1, "aspect": "crop"},
        "output": {"units": 2, "activation": "softmax"},
    }
    Path("src/models/inference.json").write_text(json.dumps(inference))
    metrics = {"accuracy": 0.9, "classes": {name: {"recall": 0.9} for name in inference["classes"]}}
    Path("src/models/metrics.json").write_text(json.dumps(metrics))
    example = {
        "id": "sky",
        "input": golden.pack(Path("sky.png").read_bytes()),
        "output": [0.7310586, 0.26894143],
    }
    Path("src/models/golden.json").write_text(json.dumps({"unit": 1.0, "examples": [example]}))
    gate = json.loads(Path("build/gate/gate.json").read_text())
    names = [*gate["files"], "src/models/golden.json"]
    gate["files"] = {name: sha256(name) for name in names}
    Path("build/gate/gate.json").write_text(json.dumps(gate))
    assert run_command(bundle.main) == (0, "")
    assert run_command(pyz.main) == (0, "")
    return published / "build/bundle/sluice.pyz"


def run(*arguments: object, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, *map(str, arguments)], capture_output=True, text=True, check=False)


def rewrite(archive: Path, changes: dict[str, bytes | None]) -> Path:
    """Copies the archive with other members; None leaves one out."""
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile("changed.pyz", "w") as target:
        for name in source.namelist():
            content = changes.get(name, source.read(name))
            if content is not None:
                target.writestr(name, content)
    return Path("changed.pyz")


def test_the_file_predicts_outside_the_repository_and_writes_nothing(archive, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copyfile(archive, folder / "sluice.pyz")
    shutil.copyfile("sky.png", folder / "sky.png")
    result = subprocess.run(
        [sys.executable, "-I", "sluice.pyz", "sky.png"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(result.stdout)
    assert answer["prediction"] == "above"
    assert answer["probability"] == pytest.approx(0.7310586, abs=1e-6)
    assert {path.name for path in folder.iterdir()} == {"sluice.pyz", "sky.png"}


def test_it_is_an_archive_that_unzip_reads(archive):
    for name in ("model.keras", "model.onnx", "README.md"):
        with zipfile.ZipFile(archive) as opened:
            assert opened.read(name) == (archive.parent / name).read_bytes()
    if shutil.which("unzip"):
        result = subprocess.run(["unzip", "-p", archive, "model.keras"], capture_output=True)
        assert (result.returncode, result.stderr) == (0, b"")
        assert result.stdout == b"the weights"


def test_it_runs_as_a_command_of_its_own(archive):
    assert os.access(archive, os.X_OK)
    assert archive.read_bytes().startswith(b"#!/usr/bin/env python3\n")


def test_the_same_bundle_makes_the_same_bytes_and_the_bundle_names_the_archive(archive, run_command):
    before = sha256(archive)
    assert run_command(pyz.main) == (0, "")
    assert sha256(archive) == before
    stores.check(archive.parent)
    assert stores.checksums(archive.parent)["sluice.pyz"] == before


def test_it_holds_the_code_that_predicting_imports_and_no_other(archive):
    with zipfile.ZipFile(archive) as opened:
        code = {name for name in opened.namelist() if name.startswith("src/")}
    assert {"src/__init__.py", "src/predict/__main__.py", "src/tasks/image.py", "src/plugin.py"} <= code
    for name in ("src/params.py", "src/dataset.py", "src/tasks/text.py", "src/train/fit.py"):
        assert name not in code


@pytest.mark.parametrize("task", ["image", "text", "audio", "tabular", "time_series", "volume"])
def test_what_a_task_needs_is_found_by_its_imports(task):
    own = {
        "image": {"pillow"},
        "text": {"tokenizers"},
        "audio": {"soundfile", "soxr"},
        "tabular": set(),
        "time_series": set(),
        "volume": {"nibabel"},
    }
    needs = pyz.find_needs(list(pyz.find_modules(task).values()))
    always = {str(need["package"]).split("==")[0].lower() for need in needs.values() if need["always"]}
    assert always == {"numpy", "onnxruntime", *own[task]}


def test_info_tells_what_it_is_how_good_and_what_the_gate_said(archive):
    result = run(archive, "info")
    assert result.returncode == 0, result.stderr
    facts = dict(line.split("  ", 1) for line in result.stdout.splitlines() if "  " in line)
    assert facts["verdict"].strip() == "pass"
    assert "accuracy 0.9" in facts["metrics"]
    assert facts["classes"].strip() == "above, below"
    assert "pillow==" in facts["needs"]
    assert "library_name" not in result.stdout  # the card without its metadata
    assert "| minimum | pass |" in result.stdout


def test_help_comes_without_any_package(archive):
    result = run("-I", "-S", archive, "--help")
    assert result.returncode == 0, result.stderr
    assert "python sluice.pyz" in result.stdout


def test_verify_finds_nothing_wrong_with_what_was_published(archive):
    result = run(archive, "verify")
    assert result.returncode == 0, result.stderr
    assert "1 golden examples predict the same" in result.stdout


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model.keras": b"other weights"}, "model.keras was changed"),
        ({"README.md": None}, "README.md is missing"),
        ({"SHA256SUMS": None, "golden.json": None}, "SHA256SUMS is missing; expected a whole sluice.pyz"),
        ({"src/tasks/image.py": b"VERSION = 2"}, "src/tasks/image.py was changed"),
        (
            {"SHA256SUMS": b"none"},
            "SHA256SUMS: expected a SHA-256 and a name inside the bundle, found 'none'",
        ),
    ],
)
def test_one_changed_byte_anywhere_is_found(archive, changes, sentence):
    result = run(archive, "verify", "--model", rewrite(archive, changes))
    assert result.returncode == 1
    assert result.stderr.startswith("error: changed.pyz: ")
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_model_that_predicts_otherwise_than_when_it_was_published_is_found(archive):
    content = json.loads((archive.parent / "golden.json").read_text())
    content["examples"][0]["output"] = [0.732, 0.268]
    assert run(archive, "extract", "out").returncode == 0
    Path("out/golden.json").write_text(json.dumps(content))
    Path("out/SHA256SUMS").unlink()
    result = run(archive, "verify", "--model", "out")
    assert result.returncode == 1
    assert "golden example sky is predicted otherwise than when the model was published" in result.stderr


def test_what_is_extracted_is_the_bundle_and_runs_too(archive):
    assert run(archive, "extract", "out").returncode == 0
    listed = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd="out", capture_output=True
    )
    assert listed.returncode == 0, listed.stderr
    assert Path("out/model.keras").read_bytes() == b"the weights"
    assert json.loads(run("out", "sky.png").stdout)["prediction"] == "above"
    assert run("out", "verify").returncode == 0
    again = run(archive, "extract", "out")
    assert again.returncode == 1
    assert again.stderr == "error: out: is there already; expected a new folder's name\n"


def test_an_archive_that_leads_out_of_its_folder_is_refused(archive):
    with zipfile.ZipFile("evil.pyz", "w") as evil:
        evil.writestr("../../escaped", b"x")
    result = run(archive, "extract", "out", "--model", "evil.pyz")
    assert result.returncode == 1
    assert "'../../escaped' points outside the archive; refused" in result.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize("part", [0.1, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_one_sentence(archive, part):
    content = archive.read_bytes()
    Path("cut.pyz").write_bytes(content[: int(len(content) * part)])
    result = run(archive, "sky.png", "--model", "cut.pyz")
    assert result.returncode == 1
    assert result.stderr == (
        "error: cut.pyz: expected a sluice.pyz, found no whole zip archive: cut short, or another file\n"
    )


def test_a_damaged_member_a_missing_one_and_a_newer_format_are_one_sentence(archive):
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        place = opened.getinfo("model.onnx").header_offset + 30 + len("model.onnx") + 5
    content[place] ^= 255
    Path("damaged.pyz").write_bytes(content)
    result = run(archive, "sky.png", "--model", "damaged.pyz")
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "damaged.pyz: model.onnx is damaged: Bad CRC-32" in result.stderr

    result = run(archive, "sky.png", "--model", rewrite(archive, {"model.onnx": None}))
    assert result.stderr == "error: changed.pyz: model.onnx is missing; expected a whole model\n"

    with zipfile.ZipFile(archive) as opened:
        inference = json.loads(opened.read("inference.json"))
    newer = json.dumps({**inference, "format": 2}).encode()
    result = run(archive, "sky.png", "--model", rewrite(archive, {"inference.json": newer}))
    assert "inference.json has format 2, newer than 1" in result.stderr


def test_a_keras_model_from_elsewhere_is_tried_in_a_process_of_its_own_first(archive):
    before = sorted(Path.cwd().iterdir())
    result = run(archive, "sky.png", "--keras")
    assert (result.returncode, result.stderr) == (
        1,
        f"error: {archive}: model.keras: expected a Keras model that loads in safe mode, found: no whole zip "
        "archive (File is not a zip file)\n",
    )
    assert sorted(Path.cwd().iterdir()) == before


def test_a_package_that_is_not_installed_is_named_with_the_command(archive):
    result = run("-I", "-S", archive, "sky.png")
    assert result.returncode == 1
    assert result.stderr.startswith("error: pillow and numpy and onnxruntime are not installed: ")
    assert result.stderr.endswith("-m pip install pillow numpy onnxruntime\n")


def test_it_serves_predictions_and_the_page_with_all_its_files(archive):
    with serving(archive, program=[str(archive)], cwd=archive.parent) as (url, _):
        kind = {"Content-Type": "image/png"}
        sky = Path("sky.png").read_bytes()
        answer = httpx2.post(f"{url}/predict", content=sky, headers=kind, trust_env=False).json()
        page = httpx2.get(url, trust_env=False).text
        for name in re.findall(r'"(page/[^"]+)"', page):
            assert httpx2.get(f"{url}/{name}", trust_env=False).status_code == 200
    assert answer["predictions"][0]["prediction"] == "above"


def test_what_serving_needs_is_named_together_and_predicting_needs_none_of_it(archive):
    with zipfile.ZipFile(archive) as opened:
        needs = json.loads(opened.read("needs.json"))
    served = {name for name in needs if needs[name].get("part") == "web"}
    assert served == {"starlette", "uvicorn", "python_multipart"}
    assert not any(needs[name]["always"] for name in served)


@pytest.mark.slow
def test_it_needs_numpy_onnxruntime_and_pillow_and_nothing_else(archive, tmp_path):
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "bare"], check=True)
    python = str(tmp_path / "bare/bin/python")
    assert "-m pip install pillow numpy onnxruntime" in run(archive, "sky.png", python=python).stderr
    packages = ["numpy", "onnxruntime", "pillow"]
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, *packages], check=True)
    result = run(archive, "sky.png", python=python)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["prediction"] == "above"
    for words in (["info"], ["verify"], ["extract", "out"], ["sky.png", "--csv"]):
        result = run(archive, *words, python=python)
        assert result.returncode == 0, result.stderr
    result = run(archive, "serve", python=python)
    assert result.returncode == 1
    assert result.stderr.endswith("-m pip install python-multipart starlette uvicorn\n")
    result = run(archive, "sky.png", "--keras", python=python)
    assert result.returncode == 1
    assert "keras is not installed" in result.stderr

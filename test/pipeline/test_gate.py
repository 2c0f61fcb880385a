"""The whole gate command on a real, tiny model: it scores for itself, and believes no file."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from src import command, engine
from src.evaluate import export, gate, report, score
from src.files import read_json, sha256, write_json
from src.judgement import verdict
from src.train import fit, prepare

GATES = {
    "minimum": {"limit": 0.6},
    "no_regression": {"margin": 0.1},
    "slices": {"limit": 0.3},
    "flips": {"limit": 0.2},
    "calibration": {"limit": 0.6},
    "budget": {"megabytes": 1, "latency": 20.0, "size": 1.1},
    "data": {"near_duplicates": 0.2},
    "looks": {},
}
ENVIRONMENT = (
    "CI_MERGE_REQUEST_TARGET_BRANCH_NAME",
    "CI_MERGE_REQUEST_DIFF_BASE_SHA",
    "CI_DEFAULT_BRANCH",
    "CI",
)


@pytest.fixture(scope="module")
def project(tmp_path_factory, write_photos, write_params) -> Iterator[Path]:
    """A trained and scored model, and a copy of it in `baseline/`."""
    folder = tmp_path_factory.mktemp("project")
    before = Path.cwd()
    os.chdir(folder)
    try:
        write_photos(folder / "photos", 200, suffixes=("png",))
        write_params(gates=GATES, data={"test": 0.45, "validation": 0.1}, fit={"epochs": 4})
        for stage in (prepare, fit, score, export, report):
            stage.main()
        shutil.copytree("src/models", "baseline")
        shutil.copytree("src/models", "original")
        yield folder
    finally:
        os.chdir(before)


@pytest.fixture
def fresh(project, write_params, monkeypatch) -> Path:
    """The project as it was, whatever the test before has done to it; outside git, and outside CI."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(project.parent))
    monkeypatch.chdir(project)
    for name in ("src/models", "baseline"):
        shutil.rmtree(name)
        shutil.copytree("original", name)
    write_params(gates=GATES)
    shutil.rmtree(".git", ignore_errors=True)
    return project


@pytest.fixture
def run(monkeypatch) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Runs the gate and returns its exit code and gate.json."""

    def call(*arguments: str) -> tuple[int, dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", ["gate", *arguments])
        with pytest.raises(SystemExit) as exit:
            command.run(gate.main)
        assert exit.value.code in (0, 1), exit.value.code
        return int(exit.value.code), read_json(gate.GATE / "gate.json")

    return call


def answers(result: dict[str, Any]) -> dict[str, str]:
    return {entry["gate"]: entry["verdict"] for entry in result["gates"]}


def named(result: dict[str, Any], gate: str) -> dict[str, Any]:
    entry: dict[str, Any] = next(entry for entry in result["gates"] if entry["gate"] == gate)
    return entry


def untimed(result: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the one gate that looks at a clock."""
    return {**result, "gates": [entry for entry in result["gates"] if entry["gate"] != "budget"]}


def spoil(path: Path, amount: float) -> None:
    """Replaces a model's weights, as far as `amount` says, by noise of the same size."""
    model = engine.load(path)
    random = np.random.default_rng(0)
    for weight in model.trainable_weights:
        values = weight.numpy()
        noise = random.normal(0, values.std() + 1e-3, values.shape)
        weight.assign((1 - amount) * values + amount * noise)
    engine.save(model, path)


def test_a_model_as_good_as_the_baseline_passes_and_all_files_are_written(fresh, run, capsys):
    spoil(Path("baseline/model.keras"), 0.03)
    code, result = run("--baseline", "baseline")
    assert (code, result["verdict"]) == (0, "pass"), result
    assert answers(result) == dict.fromkeys(GATES, "pass")
    for entry in result["gates"]:
        assert set(entry) == {
            *("gate", "verdict", "warning", "metric", "estimate", "lower", "upper", "confidence", "limit"),
            *("examples", "needed", "reason", "details"),
        }
        assert entry["reason"]
    files = result["files"]
    assert files["src/models/model.keras"] == sha256("src/models/model.keras")
    assert set(files) >= {
        f"src/models/{name}" for name in ("inference.json", "metrics.json", "report/index.html")
    }
    assert result["test"]["hash"] == read_json("build/prepared/data.json")["test_hash"]
    assert result["test"]["changed"] is False
    assert result["looks"] == 1
    accuracy = next(row for row in result["metrics"] if row["metric"] == "accuracy")
    assert accuracy["candidate"] == read_json("src/models/metrics.json")["accuracy"]
    assert accuracy["lower"] <= accuracy["difference"] <= accuracy["upper"]
    cases = ElementTree.parse(gate.GATE / "gates.xml").iter("testcase")
    assert {case.get("name") for case in cases} == set(GATES)
    assert (gate.GATE / "curves.png").read_bytes().startswith(b"\x89PNG")
    note = (gate.GATE / "gate.md").read_text()
    assert note.startswith("## ✅ Pass: all 8 gates let this model through")
    said = capsys.readouterr().out
    assert "no_regression" in said
    assert "Pass: all 8 gates" in said


def test_a_worse_model_is_stopped_and_what_it_broke_is_shown(fresh, run):
    spoil(Path("src/models/model.keras"), 0.9)
    code, result = run("--baseline", "baseline")
    assert (code, result["verdict"]) == (1, "fail")
    assert (
        answers(result)["minimum"] == answers(result)["no_regression"] == answers(result)["flips"] == "fail"
    )
    broken = next(entry for entry in result["gates"] if entry["gate"] == "flips")["details"]
    assert all(row["was"] == row["label"] != row["now"] for row in broken)
    assert (gate.GATE / "newly_broken.png").exists()
    assert "newly_broken.png" in (gate.GATE / "gate.md").read_text()


def test_forged_files_change_no_gate_and_fail_by_themselves(fresh, run):
    spoil(Path("src/models/model.keras"), 0.9)
    _, honest = run("--baseline", "baseline")
    forged = {**read_json("src/models/metrics.json"), "accuracy": 0.999, "macro_f1": 0.999}
    write_json("src/models/metrics.json", forged)
    Path("src/models/predictions.parquet").write_bytes(b"all of them are right")
    code, result = run("--baseline", "baseline")
    assert code == 1
    assert untimed(result)["gates"] == untimed(honest)["gates"]
    assert result["metrics"] == honest["metrics"]
    assert any("claims accuracy 0.999" in claim for claim in result["contradictions"])
    assert "claim what was not found" in result["sentence"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("encoder", {"size": [999, 999], "channels": 3, "aspect": "crop"}),
        ("classes", ["cat", "dog", "eel"]),
        ("objective", "regression"),
        ("data", {"test_hash": "0" * 64}),
    ],
)
def test_a_model_is_not_published_with_a_description_that_is_another_models(fresh, run, key, value):
    path = Path("src/models/inference.json")
    write_json(path, {**read_json(path), key: value})
    code, result = run("--baseline", "baseline")
    assert code == 1
    assert set(answers(result).values()) == {"pass"}
    assert any(f"{path} claims {key}" in claim for claim in result["contradictions"])


def test_a_file_or_link_that_no_stage_made_is_not_published(fresh, run):
    made = sorted(str(path) for path in Path("src/models").rglob("*") if path.is_file())
    outs = [{"path": path, "hash": "md5", "md5": 32 * "0"} for path in made]
    write_json("dvc.lock", {"schema": "2.0", "stages": {"fit": {"cmd": "fit", "outs": outs}}})
    try:
        Path("src/models/run-me.sh").write_text("echo hello")
        Path("src/models/secrets").symlink_to("/etc/passwd")
        code, result = run("--baseline", "baseline")
    finally:
        Path("dvc.lock").unlink()
    assert code == 1
    assert sorted(result["files"]) == made
    for name in ("run-me.sh", "secrets"):
        assert f"src/models/{name} was made by no stage of dvc.lock." in result["contradictions"]


def test_a_baseline_without_onnx_is_compared_as_onnx_all_the_same(fresh, run):
    Path("baseline/model.onnx").unlink()
    code, result = run("--baseline", "baseline")
    assert code == 0, result
    reason = named(result, "budget")["reason"]
    assert " ms for one example by ONNX Runtime, " in reason
    assert "1.00 times the baseline's" in reason
    assert not Path("baseline/model.onnx").exists()


def published(folder: str) -> int:
    return sum(Path(folder, name).stat().st_size for name in ("model.keras", "model.onnx"))


def test_a_model_that_became_too_large_is_stopped(fresh, run):
    import onnx

    larger = onnx.load("src/models/model.onnx")
    larger.doc_string = "x" * published("baseline")
    onnx.save(larger, "src/models/model.onnx")
    _, result = run("--baseline", "baseline")
    budget = named(result, "budget")
    assert (budget["verdict"], budget["limit"]) == ("fail", 1.1)
    assert budget["estimate"] == pytest.approx(published("src/models") / published("baseline"))


def test_a_damaged_onnx_file_is_a_reason(fresh, run):
    Path("src/models/model.onnx").write_bytes(b"no model")
    code, result = run("--baseline", "baseline")
    assert code == 1
    assert "src/models/model.onnx: expected what ONNX Runtime loads" in named(result, "budget")["reason"]


def test_the_baseline_itself_passes_however_small_the_test_set_is(fresh, run, write_params):
    write_params(gates={"no_regression": {"margin": 0.0001}, "flips": {"limit": 0.0001}})
    code, result = run("--baseline", "baseline")
    assert (code, result["verdict"]) == (0, "pass")
    assert "byte for byte" in named(result, "no_regression")["reason"]


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("classes", ["cat", "dog", "eel"], "other classes"), ("encoder", {"size": [8, 8]}, "other inputs")],
)
def test_a_baseline_that_answers_another_question_fails_with_a_reason(
    fresh, run, write_params, key, value, said
):
    write_json("baseline/inference.json", {**read_json("baseline/inference.json"), key: value})
    code, result = run("--baseline", "baseline")
    assert code == 1
    failed = {name for name, answer in answers(result).items() if answer == "fail"}
    assert failed == {"no_regression", "flips", "budget"}
    assert said in named(result, "no_regression")["reason"]
    write_params(gates={**GATES, "override": "the classes were renamed"})
    code, result = run("--baseline", "baseline")
    assert code == 0
    assert result["limits"]["override"] == "the classes were renamed"
    assert named(result, "no_regression")["warning"]
    assert said in named(result, "no_regression")["reason"]


def test_a_baseline_that_cannot_be_loaded_fails_with_a_reason(fresh, run):
    Path("baseline/model.keras").write_bytes(b"not a model")
    code, result = run("--baseline", "baseline")
    assert code == 1
    assert "expected a Keras model" in named(result, "no_regression")["reason"]


def test_without_any_baseline_the_model_passes_with_a_warning_unless_that_is_forbidden(
    fresh, run, write_params
):
    code, result = run()
    assert code == 0
    assert result["baseline"]["source"] == "none"
    warned = {entry["gate"] for entry in result["gates"] if entry["warning"]}
    assert warned == {"no_regression", "flips", "budget"}
    assert "with a warning by" in (gate.GATE / "gate.md").read_text()
    write_params(gates={**GATES, "on_no_baseline": "fail"})
    assert run()[0] == 1


def test_too_small_a_test_set_is_not_enough_data_and_may_be_made_a_warning(fresh, run, write_params):
    accuracy = read_json("src/models/metrics.json")["accuracy"]
    tight = {"minimum": {"limit": round(accuracy - 0.005, 4)}}
    write_params(gates=tight)
    code, result = run()
    assert (code, result["verdict"]) == (1, "not enough data")
    assert result["gates"][0]["needed"] > result["gates"][0]["examples"]
    write_params(gates={**tight, "on_not_enough_data": "warn"})
    code, result = run()
    assert (code, result["verdict"], result["gates"][0]["verdict"]) == (0, "pass", "not enough data")


def test_a_model_that_cannot_be_scored_fails_every_gate_and_leaves_no_older_verdict(fresh, run):
    assert run()[0] == 0
    Path("src/models/model.keras").write_bytes(b"not a model")
    code, result = run()
    assert code == 1
    assert answers(result) == dict.fromkeys(GATES, "fail")
    assert "src/models/model.keras: expected a Keras model" in (gate.GATE / "gate.md").read_text()


def test_the_limits_are_the_target_branchs_where_those_are_stricter(fresh, run, write_params):
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], check=True, capture_output=True)

    write_params(gates={"minimum": {"limit": 0.999}}, fit={"epochs": 3})
    git("init", "-b", "main")
    git("add", "params.yaml")
    git("commit", "-m", "strict")
    git("checkout", "-b", "lax")
    write_params(gates={"minimum": {"limit": 0.1}})
    git("commit", "-am", "lax")

    code, result = run()
    assert code == 1
    assert result["limits"] == {
        "loosened": [{"key": "gates.minimum.limit", "target": 0.999, "candidate": 0.1}],
        "override": None,
    }
    assert result["gates"][0]["limit"] == 0.999
    assert "Loosened limit" in (gate.GATE / "gate.md").read_text()

    write_params(gates={"minimum": {"limit": 0.1}, "override": "the task has become harder"})
    code, result = run("--target", "main")
    assert code == 0
    assert result["gates"][0]["limit"] == 0.1
    for name in ("gate.json", "gate.md", "gates.xml"):
        assert "the task has become harder" in (gate.GATE / name).read_text()


def test_nothing_declared_is_an_error_and_not_a_pass(fresh, write_params, monkeypatch, fails):
    write_params(gates={})
    monkeypatch.setattr(sys, "argv", ["gate"])
    code, said = fails(gate.main)
    assert code == 1
    assert "declares no gate" in said
    assert not gate.GATE.exists()


@pytest.mark.slow
def test_the_verdict_on_a_model_does_not_change_from_run_to_run(fresh, run):
    (_, first), (_, second) = run("--baseline", "baseline"), run("--baseline", "baseline")
    assert json.dumps(untimed(first)) == json.dumps(untimed(second))
    assert verdict.REPORT in (gate.GATE / "gate.md").read_text()

"""The bundle: what the gate judged, unchanged and complete, or nothing."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from src import stores
from src.files import sha256
from src.publish import bundle


def front_matter(card: str) -> dict:
    _, front, _ = card.split("---\n", 2)
    return YAML(typ="safe").load(front)


def test_sha256sum_accepts_the_bundle_and_every_file_is_listed(bundled):
    result = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=bundled, capture_output=True
    )
    assert result.returncode == 0, result.stderr
    assert {str(path.relative_to(bundled)) for path in bundled.rglob("*") if path.is_file()} == {
        *(
            "model.keras",
            "model.onnx",
            "inference.json",
            "history.json",
            "metrics.json",
            "gate.json",
            "gate.md",
        ),
        *("newly_broken.png", "README.md", "provenance.json", "SHA256SUMS", "report/index.html"),
    }


def test_the_model_and_the_verdict_are_byte_for_byte_those_of_the_gate(bundled, published):
    for name in ("model.keras", "model.onnx", "history.json", "metrics.json", "report/index.html"):
        assert sha256(bundled / name) == sha256(published / "src/models" / name)
    for name in ("gate.json", "gate.md"):
        assert sha256(bundled / name) == sha256(published / "build/gate" / name)


def test_inference_json_gains_when_and_from_what_and_nothing_else_changes(bundled, published):
    before = json.loads((published / "src/models/inference.json").read_text())
    after = json.loads((bundled / "inference.json").read_text())
    assert after.pop("created") == "2026-01-02T03:04:05+00:00"
    assert after.pop("commit") == subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()
    assert after == before


def test_without_a_record_of_the_training_the_time_is_that_of_bundling(published, run_command):
    Path("build/run.json").unlink()
    assert run_command(bundle.main)[0] == 0
    provenance = json.loads(Path("build/bundle/provenance.json").read_text())
    assert provenance["created"] == provenance["bundled"]


def test_the_provenance_names_commit_data_parameters_packages_and_job(bundled, published):
    provenance = json.loads((bundled / "provenance.json").read_text())
    assert provenance["files"]["model.keras"] == sha256(bundled / "model.keras")
    assert provenance["dvc.lock"]["sha256"] == sha256("dvc.lock")
    assert provenance["dvc.lock"]["stages"]["fit"]["deps"] == {"build/prepared": "d" * 32}
    assert provenance["parameters"]["fit"] == {"epochs": 2}
    assert provenance["packages"]["keras"] == "3.15.1"
    assert provenance["job"] == "https://gitlab.example/group/project/-/jobs/5"
    assert provenance["tag"] is None


def test_the_card_has_the_fields_that_hugging_face_reads(bundled):
    card = front_matter((bundled / "README.md").read_text())
    assert card["license"] == "mit"
    assert card["library_name"] == "keras"
    assert card["pipeline_tag"] == "image-classification"
    assert {"keras", "onnx", "image", "cnn"} <= set(card["tags"])
    assert card["datasets"] == ["flowers"]
    assert card["metrics"] == ["accuracy", "log_loss"]
    (model,) = card["model-index"]
    (result,) = model["results"]
    assert result["metrics"][0] == {"type": "accuracy", "value": 0.9, "name": "accuracy"}
    assert result["dataset"]["split"] == "test"
    assert result["source"]["url"] == "https://gitlab.example/group/project/-/jobs/5"


def test_the_card_tells_what_was_measured_how_surely_and_what_it_is_not_good_for(bundled):
    text = (bundled / "README.md").read_text()
    assert "| accuracy | 0.9 | 0.886 to 0.912 | 0.88 | 0.02 | 0.004 to 0.036 |" in text
    assert "| minimum | pass | 0.9 | 0.886 to 0.912 at 95 % | 0.85 | 2000 | 0.886 is above 0.85 |" in text
    assert "least often: rose (70%)" in text
    assert "has judged 3 models" in text
    assert "> **Flowers**" in text  # the card of the dataset
    assert "\n\n\n" not in text
    assert "None" not in text.replace("session.run(None", "")


@pytest.mark.parametrize("change", [{"verdict": "fail"}, {"verdict": "not enough data"}])
def test_a_verdict_against_the_model_is_refused_with_its_reasons(published, change_gate, run_command, change):
    def alter(gate):
        gate.update(change)
        gate["gates"][0].update(verdict=change["verdict"], reason="0.81 to 0.93 is too wide")

    change_gate(alter)
    code, message = run_command(bundle.main)
    assert code == 1
    assert f"the verdict is {change['verdict']!r} (minimum: 0.81 to 0.93 is too wide)" in message
    assert not Path("build/bundle").exists()


def test_too_little_data_is_published_where_the_gate_calls_it_a_warning_and_the_card_says_so(
    published, change_gate, run_command
):
    def alter(gate):
        gate["gates"][0].update(verdict="not enough data", warning=True, reason="0.81 to 0.93 is too wide")

    change_gate(alter)
    assert run_command(bundle.main)[0] == 0
    card = Path("build/bundle/README.md").read_text()
    assert "- minimum: not enough data, with a warning: 0.81 to 0.93 is too wide" in card


def test_a_failed_gate_is_not_excused_by_a_warning_beside_it(published, change_gate, run_command):
    def alter(gate):
        gate["verdict"] = "not enough data"
        gate["gates"][0].update(verdict="not enough data", warning=True)
        gate["gates"].append({**gate["gates"][0], "gate": "flips", "verdict": "fail", "warning": False})

    change_gate(alter)
    assert run_command(bundle.main)[0] == 1


def test_a_file_changed_after_the_gate_is_refused_and_no_older_bundle_is_left(published, run_command):
    assert run_command(bundle.main)[0] == 0
    Path("src/models/model.onnx").write_bytes(b"another")
    code, message = run_command(bundle.main)
    assert code == 1
    assert "src/models/model.onnx: is not the file that the gate judged" in message
    assert sorted(os.listdir("build")) == ["gate", "run.json"]  # lest it be published in its place


@pytest.mark.parametrize(
    ("alter", "sentence"),
    [
        (lambda gate: gate["files"].pop("src/models/model.onnx"), "src/models/model.onnx is missing"),
        (lambda gate: gate["files"].update({"../secret": "0" * 64}), "found '../secret'"),
        (
            lambda gate: gate["files"].update({"src/models/../../params.yaml": "0" * 64}),
            "expected only files in",
        ),
        (lambda gate: gate["files"].update({"src/models/gone": "0" * 64}), "src/models/gone: not found"),
    ],
)
def test_files_that_were_not_judged_or_lead_elsewhere_are_refused(
    published, change_gate, run_command, alter, sentence
):
    change_gate(alter)
    code, message = run_command(bundle.main)
    assert code == 1
    assert sentence in message
    assert not Path("build/bundle").exists()


def test_without_a_verdict_there_is_no_bundle(published, run_command):
    Path("build/gate/gate.json").unlink()
    assert run_command(bundle.main) == (
        1,
        "error: build/gate/gate.json: not found; run `make gate`, which makes it",
    )


def test_checking_a_bundle_finds_what_was_changed_added_or_removed(bundled):
    stores.check(bundled)
    (bundled / "extra").write_text("x")
    with pytest.raises(stores.UserError, match="extra: is not listed"):
        stores.check(bundled)
    (bundled / "extra").unlink()
    (bundled / "gate.md").write_text("all is well")
    with pytest.raises(stores.UserError, match=r"gate\.md: was changed"):
        stores.check(bundled)
    (bundled / "gate.md").unlink()
    with pytest.raises(stores.UserError, match=r"gate\.md: is not there"):
        stores.check(bundled)
    (bundled / "SHA256SUMS").write_text("0" * 64 + "  ../../etc/passwd\n")
    with pytest.raises(stores.UserError, match="expected a SHA-256 and a name inside the bundle"):
        stores.check(bundled)

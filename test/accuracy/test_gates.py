"""The gates as tests: one for each gate that params.yaml declares, passed or failed as the gate decided.

The gate itself runs once, and not at all if build/gate/gate.json is of this very model and these parameters.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from src import params
from src.files import sha256

ROOT = Path(__file__).parents[2]
RESULT = ROOT / "build/gate/gate.json"
MODEL = ROOT / "src/models/model.keras"


def is_current() -> bool:
    """Whether gate.json judged exactly the files that are there, by the parameters that are there."""
    if not RESULT.exists() or RESULT.stat().st_mtime < (ROOT / params.PATH).stat().st_mtime:
        return False
    judged = json.loads(RESULT.read_text())["files"]
    return all((ROOT / path).exists() and sha256(ROOT / path) == digest for path, digest in judged.items())


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """What the gate decided."""
    if not MODEL.exists():
        pytest.skip("there is no model to judge yet; `make repro` trains one")
    said = ""
    if not is_current():
        command = [sys.executable, "-m", "src.evaluate.gate"]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        said = run.stdout + run.stderr
    assert RESULT.exists(), said
    content: dict[str, Any] = json.loads(RESULT.read_text())
    return content


@pytest.mark.parametrize("gate", params.load(ROOT / params.PATH).gates.declared)
def test_the_model_passes_the_gate(gate, result):
    entry = next(entry for entry in result["gates"] if entry["gate"] == gate)
    assert entry["verdict"] == "pass" or entry["warning"], entry["reason"]


def test_no_limit_is_looser_than_on_the_target_branch_without_a_reason(result):
    assert not result["limits"]["loosened"] or result["limits"]["override"]


def test_the_verdict_is_a_pass(result):
    assert result["verdict"] == "pass", result["sentence"]

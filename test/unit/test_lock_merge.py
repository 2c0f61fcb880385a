"""Git's merge driver for dvc.lock."""

import io
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from src import lock
from src.lock.merge import merge
from src.lock.verify import verify


@pytest.fixture
def driven(repository, root):
    """The trained repository with the merge driver installed; `repository.merge()` merges `theirs`."""
    driver = f"PYTHONPATH='{root}' '{sys.executable}' -m src.lock merge %O %A %B"
    repository.git("config", "merge.dvc-lock.driver", driver)
    repository.write(".gitattributes", "dvc.lock merge=dvc-lock\n")
    repository.commit("merge dvc.lock by stages")
    repository.git("branch", "theirs")

    def change(branch: str, path: str, text: str) -> None:
        repository.git("switch", "--quiet", branch)
        repository.write(path, text)
        repository.repro()
        repository.commit(f"{branch} changes {path}")

    def attempt() -> subprocess.CompletedProcess:
        repository.git("switch", "--quiet", "main")
        command = ["git", "merge", "--quiet", "--no-edit", "theirs"]
        return subprocess.run(command, cwd=repository.folder, capture_output=True, text=True, check=False)

    repository.change = change
    repository.merge = attempt
    return repository


def stages(repository) -> list[str]:
    return list(lock.read(repository.read("dvc.lock")))


def test_branches_that_changed_different_stages_merge_to_what_dvc_would_write(driven):
    driven.change("main", "code/report.sh", "echo ours > src/models/report.html\n")
    driven.change("theirs", "code/export.sh", "echo theirs > src/models/model.onnx\n")
    result = driven.merge()
    assert result.returncode == 0, result.stderr
    merged = driven.read("dvc.lock")
    driven.git("diff", "--quiet", "HEAD")
    subprocess.run(["dvc", "checkout", "--quiet"], cwd=driven.folder, check=True)
    assert verify().sentences() == []
    driven.repro()
    assert driven.read("dvc.lock") == merged


def test_a_stage_that_both_changed_is_taken_from_neither_and_git_stops(driven):
    driven.change("main", "code/export.sh", "echo ours > src/models/model.onnx\n")
    driven.change("theirs", "params.yaml", "data: {sample: 1.0}\nfit: {epochs: 3}\n")
    result = driven.merge()
    assert result.returncode == 1
    assert stages(driven) == ["prepare", "fit", "score", "report"]
    assert "'export' is left out: both branches changed it" in result.stderr
    assert "run `dvc repro`, which runs export again" in result.stderr
    driven.repro()
    driven.commit("merge theirs")
    assert sorted(stages(driven)) == ["export", "fit", "prepare", "report", "score"]
    assert verify().sentences() == []


def test_a_stage_that_one_branch_added_is_left_out_when_the_other_changed_what_it_uses(driven):
    driven.change("theirs", "params.yaml", "data: {sample: 1.0}\nfit: {epochs: 3}\n")
    driven.git("switch", "--quiet", "main")
    added = "  size:\n    cmd: wc -c < src/models/model.keras > build/size\n"
    added += "    deps: [src/models/model.keras]\n    outs: [build/size]\n"
    driven.change("main", "dvc.yaml", driven.read("dvc.yaml") + added)
    result = driven.merge()
    assert result.returncode == 1
    assert "size" not in stages(driven)
    assert (
        "'size' is left out: the other branch changed src/models/model.keras, which it uses" in result.stderr
    )


def test_what_the_driver_writes_is_written_as_dvc_writes_it(repository):
    text = repository.read("dvc.lock")
    stream = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.dump({"schema": "2.0", "stages": lock.read(text)}, stream)
    assert stream.getvalue() == text


def test_a_side_that_cannot_be_read_is_left_as_it_is_and_fails(repository, root):
    for name, text in {"base": "", "ours": repository.read("dvc.lock"), "theirs": "stages: ["}.items():
        repository.write(name, text)
    command = [
        sys.executable,
        "-m",
        "src.lock",
        "merge",
        *(repository.folder / name for name in ("base", "ours", "theirs")),
    ]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("error: dvc.lock (theirs): expected the YAML that DVC writes")
    assert repository.read("ours") == repository.read("dvc.lock")


# ── Stage by stage ─────────────────────────────────────────────────────────────────────────────────────


def stage(out: str = "", md5: str = "1", **deps: str) -> dict:
    """A stage's record: its output, and its dependencies' md5s by their paths."""
    entries = [{"path": path.replace("_", "/"), "md5": value} for path, value in deps.items()]
    return {"cmd": "x", "deps": entries, "outs": [{"path": out, "md5": md5}] if out else []}


A, B, C = (stage("a", md5) for md5 in "123")


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "merged"),
    [
        (A, A, A, A),
        (A, B, A, B),
        (A, A, B, B),
        (A, B, B, B),
        (None, A, None, A),
        (None, None, A, A),
        (None, A, A, A),
        (A, None, A, None),
        (A, A, None, None),
    ],
)
def test_a_stage_is_taken_from_the_branch_that_changed_it(base, ours, theirs, merged):
    sides = [{} if side is None else {"s": side} for side in (base, ours, theirs)]
    assert merge(*sides) == ({} if merged is None else {"s": merged}, {})


@pytest.mark.parametrize(("base", "ours", "theirs"), [(A, B, C), (None, A, B), (A, B, None), (A, None, B)])
def test_a_stage_is_left_out_where_both_changed_it(base, ours, theirs):
    sides = [{} if side is None else {"s": side} for side in (base, ours, theirs)]
    merged, left_out = merge(*sides)
    assert merged == {}
    assert list(left_out) == ["s"]


def test_what_follows_a_stage_left_out_is_left_out_too():
    later = {"t": stage("b", a="1"), "u": stage("c", b="1"), "v": stage("d")}
    merged, left_out = merge({"s": A, **later}, {"s": B, **later}, {"s": C, **later})
    assert list(merged) == ["v"]
    assert list(left_out) == ["s", "t", "u"]


def test_a_part_of_a_folder_that_one_branch_changed_is_in_doubt():
    base = {"s": stage("folder", "1")}
    merged, left_out = merge(base, {"s": stage("folder", "2")}, {**base, "t": stage("b", folder_part="7")})
    assert list(merged) == ["s"]
    assert left_out == {"t": "one branch changed folder, of which it uses a part"}
    merged, left_out = merge(base, base, {**base, "t": stage("b", folder_part="7")})
    assert list(merged) == ["s", "t"]
    assert left_out == {}

"""How many models a test split has judged."""

import hashlib
import subprocess
import time

import pytest

from src.errors import UserError
from src.judgement import looks

LOCK = """\
schema: '2.0'
stages:
  fit:
    cmd: python -m src.train.fit
    outs:
    - path: src/models/model.keras
      hash: md5
      md5: {md5}
      size: 9
  score:
    cmd: python -m src.evaluate.score
    deps:
    - path: src/models/model.keras
      hash: md5
      md5: {md5}
      size: 9
"""


def md5(name: str) -> str:
    return hashlib.md5(name.encode()).hexdigest()


@pytest.fixture
def history(repository):
    """A repository with a history of its own: `repository.judge(model, split)` commits a scored model."""

    def judge(model: str, split: str = "first split") -> str:
        repository.write("dvc.lock", LOCK.format(md5=md5(model)))
        repository.write("src/models/inference.json", f'{{"data": {{"test_hash": "{split}"}}}}\n')
        return repository.commit(f"{model} on {split}")

    repository.judge = judge
    return repository


def test_the_first_model_is_the_first_look(history):
    assert looks.count("first split") == 1
    history.judge("a")
    assert looks.count("first split") == 1


def test_each_different_model_is_a_look_and_the_same_one_again_is_none(history):
    for model in "abcab":
        history.judge(model)
    assert looks.count("first split") == 3


def test_the_present_candidate_counts_though_it_is_not_committed(history):
    history.judge("a")
    assert looks.count("first split", md5("b")) == 2
    assert looks.count("first split", md5("a")) == 1
    history.write("dvc.lock", LOCK.format(md5=md5("c")))
    assert looks.count("first split") == 2


def test_a_fresh_test_split_starts_again(history):
    history.judge("a")
    history.judge("b")
    history.judge("b", "second split")
    history.judge("c", "second split")
    assert looks.count("second split") == 2
    assert looks.count("first split", md5("b")) == 2
    assert looks.count("third split") == 1


def test_commits_that_touch_neither_file_change_nothing(history):
    history.judge("a")
    history.write("README.md", "more words")
    history.commit("words")
    assert looks.count("first split") == 1


def test_models_of_both_sides_of_a_merge_count_though_one_side_won(history):
    history.judge("a")
    history.git("switch", "--quiet", "--create", "side")
    history.judge("b")
    history.judge("c")
    history.git("switch", "--quiet", "main")
    history.judge("d")
    history.git("merge", "--quiet", "--no-edit", "--strategy", "ours", "side")
    assert looks.count("first split") == 4


def test_models_of_the_target_branch_count_though_head_does_not_have_them(history):
    history.judge("a")
    history.git("switch", "--quiet", "--create", "feature")
    history.judge("b")
    history.git("switch", "--quiet", "main")
    history.judge("c")
    history.git("switch", "--quiet", "feature")
    assert looks.count("first split") == 3


def test_a_branch_that_nobody_compares_with_does_not_count(history):
    history.judge("a")
    history.git("switch", "--quiet", "--create", "elsewhere")
    history.judge("b")
    history.git("switch", "--quiet", "main")
    assert looks.count("first split") == 1


def test_a_dvc_lock_that_names_a_model_in_another_way_is_read_as_yaml(history):
    history.judge("a")
    flow = f"{{stages: {{fit: {{cmd: x, outs: [{{path: src/models/model.keras, md5: {md5('b')}}}]}}}}}}\n"
    history.write("dvc.lock", flow)
    history.commit("the same, in flow style")
    assert looks.count("first split") == 2


def test_a_past_dvc_lock_that_cannot_be_read_is_no_look_and_a_present_one_is_an_error(history):
    history.judge("a")
    history.write("dvc.lock", "<<<<<<< ours\nsrc/models/model.keras\n=======\n: [")
    history.commit("conflict")
    with pytest.raises(UserError, match="expected the YAML that DVC writes"):
        looks.count("first split")
    history.judge("b")
    assert looks.count("first split") == 2


def test_a_past_inference_file_that_is_no_json_is_no_look(history):
    history.judge("a")
    history.write("src/models/inference.json", "[")
    history.commit("break it")
    assert looks.count("first split") == 1


def test_a_shallow_clone_is_an_error_that_names_the_setting(history, clone):
    history.judge("a")
    clone("--depth", "1")
    with pytest.raises(UserError, match=r"shallow clone.*GIT_DEPTH: 0"):
        looks.count("first split")


def test_outside_git_and_without_a_commit_there_is_one_look(workspace):
    assert looks.count("first split") == 1
    subprocess.run(["git", "init", "--quiet"], check=True)
    assert looks.count("first split") == 1


def test_a_repository_in_a_folder_of_a_larger_one_counts_its_own(history, monkeypatch):
    history.judge("a")
    history.write("part/dvc.lock", LOCK.format(md5=md5("b")))
    history.write("part/src/models/inference.json", '{"data": {"test_hash": "first split"}}\n')
    history.commit("a second project")
    monkeypatch.chdir(history.folder / "part")
    assert looks.judged("first split") == {md5("b")}


def test_two_thousand_commits_are_counted_in_seconds(tmp_path, monkeypatch, repository):
    def stream():
        yield "reset refs/heads/long\n"
        for number in range(2000):
            files = {
                "dvc.lock": LOCK.format(md5=md5(str(number % 1500))),
                "src/models/inference.json": f'{{"data": {{"test_hash": "split"}}, "number": {number}}}',
            }
            message = f"commit {number}"
            yield f"commit refs/heads/long\ncommitter Ada <ada@example.org> {number} +0000\n"
            yield f"data {len(message)}\n{message}\n"
            for path, text in files.items():
                yield f"M 100644 inline {path}\ndata {len(text)}\n{text}\n"

    subprocess.run(["git", "fast-import", "--quiet"], input="".join(stream()), text=True, check=True)
    repository.git("switch", "--quiet", "--force", "long")
    started = time.process_time()
    assert looks.count("split") == 1500
    assert time.process_time() - started < 2

"""dvc.lock against the pipeline, the parameters, the code and the data."""

import sys

import pytest

from src import command, lock
from src.errors import UserError
from src.lock import __main__ as program
from src.lock.verify import missing_from_remote, verify


def only(sentences: list[str]) -> str:
    assert len(sentences) == 1, sentences
    return sentences[0]


def forge(repository, path: str, md5: str, part: str = "outs") -> None:
    """Edits the md5 of an entry of dvc.lock by hand."""
    text = repository.read("dvc.lock")
    start = text.index(f"{part}:", text.index("  fit:"))
    position = text.index(f"path: {path}", start)
    old = repository.md5(path)
    repository.write("dvc.lock", text[:position] + text[position:].replace(old, md5, 1))


def test_a_pipeline_that_has_just_run_matches(repository):
    findings = verify()
    assert findings.sentences() == []
    assert findings.unchecked == []
    assert findings.stages == 5


def test_a_fresh_clone_without_data_and_remote_matches_and_says_what_it_did_not_look_at(repository, clone):
    clone()
    findings = verify()
    assert findings.sentences() == []
    assert {line.split()[0] for line in findings.unchecked} == {
        "build/prepared",
        "src/models/model.keras",
        "src/models/model.onnx",
        "src/models/report.html",
    }


def test_a_changed_parameter_is_named_with_both_values(repository, clone):
    clone().replace("params.yaml", "epochs: 1", "epochs: 9")
    assert only(verify().sentences()) == (
        "params.yaml: fit.epochs is 9, dvc.lock has 1 (stage fit); run `dvc repro`"
    )


def test_a_parameter_taken_away_is_named(repository, clone):
    clone().replace("params.yaml", "fit: {epochs: 1}", "")
    assert "params.yaml: fit is not there, dvc.lock has {'epochs': 1}" in only(verify().sentences())


def test_an_edited_stage_file_is_named(repository, clone):
    clone().write("code/score.sh", "echo better\n")
    sentence = only(verify().sentences())
    assert sentence.startswith("code/score.sh: was edited after the stage ran")
    assert sentence.endswith("(stage score); run `dvc repro`")


def test_a_stage_file_that_is_gone_is_named(repository, clone):
    (clone().folder / "code/score.sh").unlink()
    assert only(verify().sentences()).startswith("code/score.sh: not found")


def test_changed_data_is_named(repository, clone):
    clone().write("datasets/d.txt", "roses")
    assert only(verify().sentences()).startswith("datasets/d.txt: was edited")


def test_a_changed_command_is_named(repository, clone):
    clone().replace("dvc.yaml", "cmd: sh code/fit.sh", "cmd: sh code/fit.sh --fast")
    sentence = only(verify().sentences())
    assert "dvc.yaml: the command is 'sh code/fit.sh --fast', it ran 'sh code/fit.sh'" in sentence


def test_forged_metrics_are_named(repository, clone):
    clone().write("src/models/metrics.json", '{"size": 1000000}\n')
    sentence = only(verify().sentences())
    assert sentence.startswith("src/models/metrics.json: is not what the stage wrote")
    assert "(stage score)" in sentence


def test_metrics_that_are_not_committed_are_named(repository, clone):
    (clone().folder / "src/models/metrics.json").unlink()
    assert "src/models/metrics.json: not found" in only(verify().sentences())


def test_metrics_forged_in_dvc_lock_too_no_longer_fit_the_report(repository, clone):
    repository = clone()
    repository.write("src/models/metrics.json", "{}\n")
    forge(repository, "src/models/metrics.json", "8a80554c91d9fca8acb82f023de02f11")
    assert only(verify().sentences()).startswith("dvc.lock: it used src/models/metrics.json with md5")


def test_a_model_forged_in_dvc_lock_is_named_though_no_data_is_here(repository, clone):
    forge(clone(), "src/models/model.keras", "a" * 32)
    first, *others = verify().sentences()
    assert first.startswith("dvc.lock: it used src/models/model.keras with md5")
    assert "but fit made aaaaaaaa (stages score, export); run `dvc repro`" in first
    assert others == []


def test_a_model_changed_by_hand_is_named_where_it_is_here(repository):
    (repository.folder / "src/models/model.keras").unlink()
    repository.write("src/models/model.keras", "forged")
    assert only(verify().sentences()).startswith("src/models/model.keras: is not what the stage wrote")


def test_a_dependency_taken_out_of_dvc_yaml_is_named_which_dvc_status_does_not_see(repository, clone):
    clone().replace("dvc.yaml", "deps: [build/prepared, code/fit.sh]", "deps: [build/prepared]")
    assert only(verify().sentences()) == (
        "dvc.yaml: no longer lists the dependency code/fit.sh, which dvc.lock has (stage fit); "
        "put it back, or run `dvc repro --force fit`"
    )


def test_a_dependency_added_to_dvc_yaml_is_named(repository, clone):
    clone().replace("dvc.yaml", "code/fit.sh]", "code/fit.sh, code/score.sh]")
    assert "dvc.yaml: lists the dependency code/score.sh" in only(verify().sentences())


def test_stages_that_only_one_of_the_two_files_has_are_named(repository, clone):
    clone().replace("dvc.yaml", "  export:", "  convert:")
    first, second = verify().sentences()
    assert first == "dvc.lock: has no record of a stage in dvc.yaml (stage convert); run `dvc repro`"
    assert second.startswith("dvc.lock: has a stage that dvc.yaml has not (stage export)")


def test_data_tracked_by_dvc_and_not_pulled_is_compared_by_its_dvc_file(repository, clone):
    from dvc.repo import Repo

    repository.git("rm", "--quiet", "--cached", "datasets/d.txt")
    with Repo() as repo:
        repo.add("datasets/d.txt")
    repository.commit("track the data")
    runner = clone()
    findings = verify()
    assert findings.sentences() == []
    assert "datasets/d.txt (not pulled; compared by its .dvc file)" in findings.unchecked
    md5 = "1e7de5cc28c72e3326e7e31e5eb830b2"  # of "tulips"
    runner.replace("datasets/d.txt.dvc", md5, "c" * 32)
    assert only(verify().sentences()).startswith("datasets/d.txt: its .dvc file names md5 cccccccc, dvc.lock")


@pytest.mark.parametrize(
    "text",
    [
        "stages: [",
        "<<<<<<< ours\nstages:\n",
        "[]",
        "stages: {fit: 3}",
        "",
        f"stages: {{fit: {{cmd: x, outs: [{{path: y, md5: {'1' * 32}}}]}}}}",
    ],
)
def test_a_dvc_lock_that_dvc_did_not_write_is_an_error_that_names_it(repository, clone, text):
    clone().write("dvc.lock", text)
    with pytest.raises(UserError, match=r"^dvc\.lock: expected the"):
        verify()


def test_no_dvc_lock_says_to_run_the_pipeline(repository, clone):
    (clone().folder / lock.PATH).unlink()
    with pytest.raises(UserError, match=r"dvc\.lock: not found; run `dvc repro`"):
        verify()


def test_a_dvc_yaml_that_dvc_cannot_read_is_an_error(repository, clone):
    clone().write("dvc.yaml", "stages: 3\n")
    with pytest.raises(UserError, match=r"^dvc: .*dvc\.yaml' validation failed"):
        verify()


def test_a_remote_that_holds_everything_has_nothing_missing(repository):
    repository.push()
    assert missing_from_remote() == []


@pytest.mark.parametrize("path", ["src/models/model.keras", "build/prepared"])
def test_an_object_that_the_remote_lacks_is_named(repository, path):
    repository.push()
    repository.forget()
    md5 = repository.md5(path)
    (repository.remote / "files/md5" / md5[:2] / md5[2:]).unlink()
    assert only(missing_from_remote()) == f"{path}: the DVC remote 'store' lacks {md5}; run `dvc push`"


def test_a_file_of_a_folder_that_the_remote_lacks_is_named(repository):
    repository.push()
    md5 = "1e7de5cc28c72e3326e7e31e5eb830b2"  # of "tulips"
    (repository.remote / "files/md5" / md5[:2] / md5[2:]).unlink()
    assert only(missing_from_remote()).startswith(f"build/prepared/d.txt: the DVC remote 'store' lacks {md5}")


def test_a_hash_that_was_made_up_is_not_on_the_remote(repository):
    repository.push()
    forge(repository, "src/models/report.html", "b" * 32)
    assert only(missing_from_remote()).startswith("src/models/report.html: the DVC remote 'store' lacks bbbb")


def test_asking_a_remote_that_is_not_configured_is_an_error(repository):
    with pytest.raises(UserError, match="no default remote"):
        missing_from_remote()


def run(monkeypatch, fails, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr(sys, "argv", ["lock", *arguments])
    return fails(program.main)


def test_the_command_exits_with_0_or_1(repository, monkeypatch, fails, capsys):
    repository.push()
    assert run(monkeypatch, fails, "verify", "--remote") == (0, "")
    assert "dvc.lock matches dvc.yaml, params.yaml, code and data: 5 stages" in capsys.readouterr().out
    repository.replace("params.yaml", "epochs: 1", "epochs: 2")
    code, said = run(monkeypatch, fails, "verify")
    assert code == 1
    assert "params.yaml: fit.epochs is 2, dvc.lock has 1" in said


def test_the_help_shows_every_use(capsys):
    with pytest.raises(SystemExit):
        command.parser(program.__doc__).parse_args(["--help"])
    assert "python -m src.lock merge BASE OURS THEIRS" in capsys.readouterr().out

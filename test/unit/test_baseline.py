"""Which model is the baseline, and its files."""

import http.server
import threading
from pathlib import Path

import pytest

from src.errors import UserError
from src.files import sha256
from src.judgement import baseline

FILES = {"model.keras", "inference.json", "metrics.json", "history.json"}


@pytest.fixture
def branched(grown, checkout):
    """`main` has models of 1 and 4 epochs, and `feature`, which left it after the first, one of 2."""
    repository = checkout(grown)
    repository.first = repository.git("rev-parse", "main~1")
    repository.third = repository.git("rev-parse", "main")
    return repository


@pytest.fixture
def orphan(branched):
    """A branch that has nothing in common with main but its files."""
    branched.git("switch", "--quiet", "--orphan", "orphan")
    branched.git("checkout", "--quiet", "feature", ".")
    branched.commit("start again")
    return branched


def epochs(found: baseline.Baseline) -> str:
    """What the model of a baseline was trained with."""
    assert found.folder is not None
    return (found.folder / "model.keras").read_text().split("epochs: ")[1].rstrip("}\n")


def files(found: baseline.Baseline) -> set[str]:
    assert found.folder is not None
    return {path.name for path in found.folder.iterdir()}


# ── Which one ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_branch_is_compared_with_its_merge_base_and_not_with_what_came_after(branched, tmp_path):
    found = baseline.find(tmp_path / "scratch")
    assert (found.source, found.revision, epochs(found)) == ("merge base", branched.first, "1")
    assert found.reason == f"{branched.first[:8]}, the merge base with main"
    assert files(found) == FILES


def test_the_files_are_those_of_the_baseline_and_not_of_the_checkout(branched, tmp_path):
    found = baseline.find(tmp_path / "scratch")
    assert found.folder is not None
    for name in ("metrics.json", "inference.json", "history.json"):
        assert (found.folder / name).read_text() == baseline.show("main~1", f"src/models/{name}")


def test_a_branch_without_a_merge_base_is_compared_with_the_target_branch(orphan, tmp_path):
    found = baseline.find(tmp_path / "scratch", "main")
    assert (found.source, found.revision, epochs(found)) == ("target branch", orphan.third, "4")
    assert found.reason == f"{orphan.third[:8]}, the tip of main: HEAD has no commit in common with main"


def test_a_merge_base_before_the_first_model_gives_way_to_the_target_branch(repository, tmp_path):
    repository.git("checkout", "--quiet", "--orphan", "bare")
    repository.git("rm", "--quiet", "--cached", "dvc.lock")
    (repository.folder / "dvc.lock").unlink()
    repository.commit("a pipeline not yet run")
    repository.git("branch", "feature")
    tip = repository.train(3)
    repository.git("switch", "--quiet", "feature")
    repository.train(5)
    found = baseline.find(tmp_path / "scratch", "bare")
    assert (found.source, found.revision, epochs(found)) == ("target branch", tip, "3")
    assert "the merge base with bare has no dvc.lock" in found.reason


def test_a_target_branch_without_a_dvc_lock_gives_none_and_says_so(repository, tmp_path):
    repository.git("checkout", "--quiet", "--orphan", "bare")
    repository.git("rm", "--quiet", "--cached", "dvc.lock")
    (repository.folder / "dvc.lock").unlink()
    repository.commit("a pipeline not yet run")
    repository.git("switch", "--quiet", "--create", "feature")
    repository.train(5)
    found = baseline.find(tmp_path / "scratch", "bare")
    assert (found.source, found.revision, found.folder) == ("none", None, None)
    assert found.reason.endswith("the merge base with bare has no dvc.lock; no published model is given")


def test_the_default_branch_is_compared_with_its_first_parent(branched, tmp_path):
    branched.git("switch", "--quiet", "main")
    branched.git("merge", "--quiet", "--strategy", "ours", "--no-edit", "feature")
    assert baseline.target_branch() == branched.third
    found = baseline.find(tmp_path / "scratch")
    assert (found.source, found.revision, epochs(found)) == ("merge base", branched.third, "4")
    assert "the commit of the target branch that this one follows" in found.reason


def test_after_a_push_of_several_commits_it_is_what_the_branch_was_before(repository, monkeypatch):
    before = repository.git("rev-parse", "HEAD")
    repository.commit("one")
    repository.commit("two")
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("CI_COMMIT_BEFORE_SHA", before)
    assert baseline.target_branch() == before
    monkeypatch.setenv("CI_COMMIT_BEFORE_SHA", "0" * 40)  # GitLab's for a new branch
    assert baseline.target_branch() == repository.git("rev-parse", "HEAD^")


def test_a_model_that_is_not_committed_is_compared_with_that_of_head(repository, tmp_path):
    repository.write("params.yaml", "data: {sample: 1.0}\nfit: {epochs: 8}\n")
    repository.repro()
    assert epochs(baseline.find(tmp_path / "scratch")) == "1"


def test_the_first_commit_has_none(repository, tmp_path):
    assert baseline.target_branch() is None
    found = baseline.find(tmp_path / "scratch")
    assert (found.source, found.reason) == (
        "none",
        "none: HEAD is the first commit; no published model is given",
    )


def test_a_folder_outside_git_has_none(workspace, tmp_path):
    assert baseline.target_branch() is None
    assert baseline.find(tmp_path / "scratch").reason.startswith("none: this folder is not in git")


def test_a_target_branch_that_is_not_here_is_an_error_that_names_it(branched, tmp_path):
    with pytest.raises(UserError, match="the target branch 'develop' is not in this clone"):
        baseline.find(tmp_path / "scratch", "develop")


def test_a_shallow_clone_is_an_error_that_names_the_setting(branched, clone, tmp_path):
    clone("--depth", "1")
    with pytest.raises(UserError, match=r"shallow clone.*GIT_DEPTH: 0"):
        baseline.find(tmp_path / "scratch")


# ── GitLab's variables ─────────────────────────────────────────────────────────────────────────────────


def test_a_merge_request_is_compared_with_its_target_branch_and_not_the_default_one(
    branched, clone, monkeypatch
):
    branched.git("branch", "release", branched.third)
    clone("--branch", "feature")
    monkeypatch.setenv("CI_DEFAULT_BRANCH", "main")
    assert baseline.target_branch() == "refs/remotes/origin/main"
    monkeypatch.setenv("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "release")
    assert baseline.target_branch() == "refs/remotes/origin/release"


def test_a_merge_request_whose_target_is_not_fetched_falls_back_to_gitlabs_merge_base(
    branched, clone, monkeypatch
):
    clone("--branch", "feature", "--single-branch")
    monkeypatch.setenv("CI_MERGE_REQUEST_TARGET_BRANCH_NAME", "main")
    with pytest.raises(UserError, match="'main' of the merge request is not in this clone"):
        baseline.target_branch()
    monkeypatch.setenv("CI_MERGE_REQUEST_DIFF_BASE_SHA", branched.first)
    assert baseline.target_branch() == branched.first


def test_a_forks_own_target_branch_is_not_believed(branched, clone, monkeypatch):
    clone("--branch", "feature")
    for name, value in {
        "TARGET_BRANCH_NAME": "main",
        "DIFF_BASE_SHA": branched.first,
        "PROJECT_ID": "1",
    }.items():
        monkeypatch.setenv(f"CI_MERGE_REQUEST_{name}", value)
    monkeypatch.setenv("CI_PROJECT_ID", "1")
    assert baseline.target_branch() == "refs/remotes/origin/main"
    monkeypatch.setenv("CI_PROJECT_ID", "2")
    assert baseline.target_branch() == branched.first


@pytest.mark.parametrize("kind", ["tag", "branch"])
def test_a_tag_or_branch_that_borrows_the_target_branchs_name_is_not_believed(
    branched, clone, kind, tmp_path
):
    # git itself reads `origin/main` as refs/tags/origin/main or refs/heads/origin/main before the remote's.
    branched.git(kind, "origin/main", "feature")
    runner = clone("--branch=feature")
    runner.git(
        "fetch", "--quiet", "origin", "refs/tags/*:refs/tags/*", "refs/heads/origin/*:refs/heads/origin/*"
    )
    assert baseline.resolve("main") == branched.third
    found = baseline.find(tmp_path / "scratch", target="main")
    assert found.revision in (None, branched.first, branched.third)


def test_without_variables_the_default_branch_is_the_remotes(branched, clone):
    branched.git("branch", "--move", "main", "trunk")
    branched.git("switch", "--quiet", "trunk")
    runner = clone()
    runner.git("switch", "--quiet", "feature")
    assert baseline.target_branch() == "refs/remotes/origin/trunk"


# ── Its files ──────────────────────────────────────────────────────────────────────────────────────────


def test_show_returns_a_file_at_a_revision_or_none(branched):
    assert "epochs: 4" in str(baseline.show("main", "params.yaml"))
    assert baseline.show("main", "nothing.yaml") is None
    assert baseline.show("nowhere", "params.yaml") is None


def test_a_fresh_clone_fetches_the_model_from_the_remote(branched, clone, tmp_path):
    branched.git("switch", "--quiet", "main")
    branched.push()
    branched.commit("add the remote")
    branched.train(6)
    clone("--branch", "main")
    found = baseline.find(tmp_path / "scratch")
    assert epochs(found) == "4"
    assert not (Path(".dvc/cache") / "files").exists()


def test_without_remote_and_cache_there_is_none_and_the_reason_says_so(branched, clone, tmp_path):
    clone("--branch", "feature")
    found = baseline.find(tmp_path / "scratch", "main")
    assert found.source == "none"
    assert found.reason.count("not in the local DVC cache") == 2
    assert found.reason.count("no remote is configured") == 2
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_remote_that_lacks_the_model_is_an_error(branched, clone, tmp_path):
    branched.push()
    branched.commit("add the remote")
    md5 = model_md5(branched.first)
    (branched.remote / "files/md5" / md5[:2] / md5[2:]).unlink()
    clone("--branch", "feature")
    with pytest.raises(UserError, match=f"the DVC remote 'store' has no object {md5}; run `dvc push`"):
        baseline.find(tmp_path / "scratch", "main")


def test_a_remote_that_holds_other_bytes_under_the_models_name_is_an_error(branched, clone, tmp_path):
    branched.push()
    branched.commit("add the remote")
    md5 = model_md5(branched.first)
    stored = branched.remote / "files/md5" / md5[:2] / md5[2:]
    stored.chmod(0o644)
    stored.write_text("forged")
    clone("--branch", "feature")
    with pytest.raises(UserError, match=rf"the DVC remote 'store' holds other bytes .*, expected {md5}"):
        baseline.find(tmp_path / "scratch", "main")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_cache_that_holds_other_bytes_is_passed_over_for_the_remote(branched, tmp_path):
    branched.push()
    md5 = model_md5(branched.first)
    stored = branched.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    stored.chmod(0o644)
    stored.write_text("forged")
    stored.chmod(0o444)
    assert epochs(baseline.find(tmp_path / "scratch")) == "1"


@pytest.mark.parametrize("status", [403, 500])
def test_a_remote_that_refuses_is_an_error(branched, tmp_path, status):
    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(status)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        branched.write(".dvc/config", f"[core]\n    remote = web\n['remote \"web\"']\n    url = {url}\n")
        branched.forget()
        with pytest.raises(UserError, match=r"model\.keras: the DVC remote cannot be asked: "):
            baseline.find(tmp_path / "scratch")
        server.shutdown()


def test_a_remote_that_the_branch_took_away_is_an_error_and_not_a_missing_baseline(branched, clone, tmp_path):
    branched.push()
    fork = branched.commit("add the remote")
    branched.write(".dvc/config", "")
    branched.commit("take the remote away")
    clone("--branch", "feature")
    with pytest.raises(UserError, match=r"no remote is configured, and .* is on the remote 'store'"):
        baseline.find(tmp_path / "scratch", fork)


def test_an_inference_file_that_is_not_the_one_dvc_lock_names_is_an_error(branched, tmp_path):
    branched.write("src/models/inference.json", "{}\n")
    edited = branched.commit("edit by hand")
    branched.train(7)
    with pytest.raises(UserError, match=r"src/models/inference.json: found md5 8a80554c"):
        baseline.find(tmp_path / "scratch", edited)


def test_metrics_that_are_not_those_dvc_lock_names_are_left_out_and_it_is_said(branched, tmp_path):
    branched.write("src/models/metrics.json", '{"size": 9}\n')
    edited = branched.commit("edit by hand")
    branched.train(7)
    found = baseline.find(tmp_path / "scratch", edited)
    assert files(found) == FILES - {"metrics.json"}
    assert "its src/models/metrics.json is left out" in found.reason


@pytest.mark.parametrize("text", ["stages: [", "stages: {fit: 3}"])
def test_a_dvc_lock_that_cannot_be_read_is_an_error(branched, tmp_path, text):
    branched.write("dvc.lock", text)
    broken = branched.commit("break dvc.lock")
    branched.commit("go on")
    with pytest.raises(UserError, match=f"{broken[:8]}:dvc.lock: expected the"):
        baseline.find(tmp_path / "scratch", broken)


def model_md5(revision: str) -> str:
    from src import lock

    return lock.outputs(lock.read(str(baseline.show(revision, "dvc.lock"))))[lock.MODEL]


# ── The last published model ───────────────────────────────────────────────────────────────────────────


@pytest.fixture
def published(tmp_path) -> Path:
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "model.keras").write_text("epochs: 12\n")
    (folder / "inference.json").write_text("{}\n")
    sums = [f"{sha256(folder / name)}  {name}\n" for name in ("model.keras", "inference.json")]
    (folder / "SHA256SUMS").write_text("".join(sums))
    return folder


def test_the_published_model_comes_after_git(branched, published, tmp_path):
    assert baseline.find(tmp_path / "scratch", published=published).source == "merge base"


def test_the_published_model_is_taken_where_git_has_none(repository, published, monkeypatch, tmp_path):
    found = baseline.find(tmp_path / "scratch", published=published)
    assert (found.source, found.revision, found.folder) == ("published", None, published)
    assert found.reason == f"the published model in {published}: HEAD is the first commit"
    store = tmp_path / "store"
    store.mkdir()
    monkeypatch.setenv("PUBLISH_FOLDER", str(store))
    assert baseline.find(tmp_path / "scratch").source == "none"
    (store / "latest").symlink_to(published)
    assert baseline.find(tmp_path / "scratch").folder == store / "latest"


def test_a_published_folder_without_a_model_or_with_another_one_is_an_error(repository, published, tmp_path):
    (published / "model.keras").write_text("forged")
    with pytest.raises(UserError, match=r"model\.keras: was changed since it was bundled"):
        baseline.find(tmp_path / "scratch", published=published)
    (published / "model.keras").unlink()
    with pytest.raises(UserError, match=r"has no model\.keras"):
        baseline.find(tmp_path / "scratch", published=published)

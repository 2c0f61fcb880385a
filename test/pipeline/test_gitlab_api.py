"""The note and the model registry, with python-gitlab talking to a stand-in for GitLab on this machine."""

import logging
import socket
from pathlib import Path

import pytest
from gitlab_stand_in import TOKEN, StandIn  # type: ignore[import-not-found]

from src import stores
from src.errors import UserError
from src.publish import note, publish
from src.stores import gitlab as registry


@pytest.fixture(autouse=True)
def no_secret_is_told(capfd, caplog):
    """Neither what is printed nor what is logged, at any level, has the token."""
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    yield told
    captured = capfd.readouterr()
    assert TOKEN not in captured.out + captured.err + caplog.text + "".join(told)


@pytest.fixture
def post(run_command, capfd, no_secret_is_told):
    """Runs the note's command, which always ends well; returns what it says."""

    def run() -> str:
        assert run_command(note.main) == (0, "")
        said = capfd.readouterr().out
        no_secret_is_told.append(said)
        return said

    return run


@pytest.fixture
def send(run_command, capfd, no_secret_is_told):
    """Runs the publish command; returns its exit code and what it says."""

    def run(*arguments: str) -> tuple[int, str]:
        no_secret_is_told.append(capfd.readouterr().out)  # of bundling
        code, error = run_command(publish.main, *arguments)
        said = capfd.readouterr().out + error
        no_secret_is_told.append(said)
        return code, said

    return run


def whole(bundle: Path) -> dict[str, bytes]:
    return {str(path.relative_to(bundle)): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


# ── The note ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_note_is_written_once_and_then_updated_in_place(published, server, post):
    server.notes += [{"id": 100 + number, "body": "Looks good", "author": {"id": 1}} for number in range(3)]
    assert "wrote a note on merge request !3" in post()
    assert len(server.notes) == 4
    assert server.notes[3]["body"].startswith(note.MARKER)
    assert "## The gate: pass" in server.notes[3]["body"]

    Path("build/gate/gate.md").write_text("## The gate: fail\n")
    assert "updated the note" in post()  # found on the second page
    assert len(server.notes) == 4
    assert server.notes[3]["body"] == f"{note.MARKER}\n## The gate: fail\n"
    assert [one["body"] for one in server.notes[:3]] == ["Looks good"] * 3


def test_pictures_are_uploaded_and_linked(published, server, post):
    post()
    ((url, sent),) = server.uploads.items()
    assert f"![broken]({url})" in server.notes[0]["body"]
    assert Path("build/gate/newly_broken.png").read_bytes() in sent


def test_a_picture_that_is_refused_or_not_there_does_not_cost_the_note(published, server, post):
    server.fail("POST /projects/42/uploads", 413)
    assert "a picture less in the note: GitLab: cannot upload newly_broken.png: 413" in post()
    assert "*broken: in the job's artifacts*" in server.notes[0]["body"]
    Path("build/gate/gate.md").write_text("![gone](gone.png) ![far](https://example.org/far.png)\n")
    post()
    assert server.notes[0]["body"].endswith(
        "*gone: in the job's artifacts* ![far](https://example.org/far.png)\n"
    )


def test_a_note_by_somebody_else_that_looks_the_same_is_left_alone(published, server, post):
    theirs = {"id": 100, "body": f"{note.MARKER}\nAll is well", "author": {"id": 1}}
    server.notes.append(dict(theirs))
    post()
    assert server.notes[0] == theirs
    assert len(server.notes) == 2


def test_a_fault_that_passes_is_waited_for(published, server, post):
    server.fail("POST /projects/42/merge_requests/3/notes", 500, 503)
    server.fail("GET /user", "hang")
    assert "wrote a note" in post()
    assert len(server.notes) == 1


def test_an_answer_that_is_lost_does_not_write_the_note_twice(published, server, post):
    server.fail("POST /projects/42/merge_requests/3/notes", "lose")
    post()
    assert len(server.notes) == 1


@pytest.mark.parametrize(
    ("status", "attempts", "sentence"),
    [
        (401, 1, "cannot log in: 401, GITLAB_TOKEN is not valid or has expired"),
        (403, 1, "cannot log in: 403, GITLAB_TOKEN may not do this; it takes the scope `api`"),
        (500, 4, "cannot log in: 500, the server says 'no: Bearer [masked]'"),
        ("hang", 4, "cannot log in: no answer within 0.5 s"),
    ],
)
def test_a_note_that_cannot_be_posted_is_said_in_one_line_and_changes_nothing_else(
    published, server, post, status, attempts, sentence
):
    server.fail("GET /user", *[status] * attempts)
    said = post()
    assert sentence in said
    assert "the verdict stands" in said
    assert len(said.splitlines()) == 1
    assert server.asked == [("GET", "/user")] * attempts
    assert not server.notes


def test_a_wrong_token_is_said_without_the_token(published, server, post, monkeypatch, no_secret_is_told):
    monkeypatch.setenv("GITLAB_TOKEN", "glpat-another")
    said = post()
    assert "401, GITLAB_TOKEN is not valid" in said
    assert "glpat-another" not in said


def test_no_network_is_said_in_one_line(published, server, post, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: nobody else gets the port
        monkeypatch.setenv("CI_API_V4_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/api/v4")
        said = post()
    assert "cannot log in: the server cannot be reached" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("variable", ["GITLAB_TOKEN", "CI_MERGE_REQUEST_IID"])
def test_without_a_token_or_a_merge_request_nothing_is_asked(published, server, post, monkeypatch, variable):
    monkeypatch.delenv(variable)
    assert f"no note: {variable}" in post()
    assert server.asked == []


def test_without_a_verdict_the_note_is_an_error(workspace, server, run_command):
    assert (
        run_command(note.main)[1] == "error: build/gate/gate.md: not found; run `make gate`, which makes it"
    )


# ── The model registry ─────────────────────────────────────────────────────────────────────────────────


def test_a_version_in_the_registry_is_the_bundle_with_its_metrics_and_its_job(bundled, server, send):
    code, said = send()
    assert (code, said) == (0, f"0.0.1: published at {server.url}/group/project/-/ml/models/1/versions/4\n")
    assert server.visible() == {"0.0.1": whole(bundled)}
    (run,) = server.runs.values()
    assert run["metrics"] == {"accuracy": 0.9}
    assert run["tags"] == [{"key": "gitlab.CI_JOB_ID", "value": "5"}]


def test_the_version_is_made_after_the_last_file(bundled, server, send):
    send()
    paths = [path for method, path in server.asked if method in ("PUT", "POST")]
    made = [number for number, path in enumerate(paths) if path.endswith("model-versions/create")]
    assert made == [len(paths) - 1]
    assert sum("/files/" in path for path in paths) == len(whole(bundled))


def test_publishing_twice_is_harmless_and_another_model_is_the_next_patch(bundled, server, send, retrain):
    assert send()[0] == 0
    first = server.visible()
    retrain("the weights")
    assert send() == (0, f"0.0.1: published at {server.url}/group/project/-/ml/models/1/versions/4\n")
    assert server.visible() == first
    retrain("other weights")
    assert send()[1].startswith("0.0.2: ")
    assert sorted(server.visible()) == ["0.0.1", "0.0.2"]


def test_the_tag_names_the_version_and_another_model_cannot_have_it(
    bundled, server, send, retrain, monkeypatch
):
    monkeypatch.setenv("CI_COMMIT_TAG", "v1.2.0")
    assert send()[1].startswith("1.2.0: ")
    retrain("other weights")
    assert send() == (1, "error: GitLab: shoes 1.2.0 is another model already; expected a new version")
    assert server.visible()["1.2.0"]["model.keras"] == b"the weights"


def test_what_was_published_can_be_fetched(bundled, server, send, tmp_path):
    send()
    options = registry.options(None, {**_environment(server), "CI_PROJECT_NAME": "shoes"})
    stores.get(registry, "0.0.1", tmp_path / "fetched", options)
    assert whole(tmp_path / "fetched") == whole(bundled)
    with pytest.raises(UserError, match=r"GitLab: there is no shoes 3\.0\.0"):
        stores.get(registry, "3.0.0", tmp_path / "none", options)


def _environment(server: StandIn) -> dict[str, str]:
    return {"CI_API_V4_URL": f"{server.url}/api/v4", "CI_PROJECT_ID": "42", "GITLAB_TOKEN": TOKEN}


def test_an_upload_that_fails_halfway_is_sent_again_whole(bundled, server, send):
    server.fail("/files/model.keras", 500, "hang", 502)
    assert send()[0] == 0
    assert server.visible() == {"0.0.1": whole(bundled)}


def test_a_publish_that_is_cut_off_shows_no_version_and_the_next_one_completes(bundled, server, send):
    server.fail("/files/model.onnx", 500, 500, 500, 500)
    code, said = send()
    assert code == 1
    assert said.startswith("error: GitLab: cannot upload model.onnx: 500")
    assert server.visible() == {}
    assert send()[0] == 0
    assert server.visible() == {"0.0.1": whole(bundled)}


@pytest.mark.parametrize("call", ["registered-models/create", "model-versions/create"])
def test_an_answer_that_is_lost_makes_nothing_twice(bundled, server, send, call):
    server.fail(call, "lose")
    assert send()[0] == 0
    assert server.visible() == {"0.0.1": whole(bundled)}


def test_a_server_that_makes_an_empty_version_gets_the_files_there(bundled, server, send):
    server.promotes_runs = False
    server.fail("PUT /projects/42/packages/ml_models/4/files/gate.md", 500, 500, 500, 500)
    assert send()[0] == 1
    assert "SHA256SUMS" not in server.visible()["0.0.1"]  # half, and marked so
    assert send("--version", "0.0.1")[0] == 0
    assert server.visible() == {"0.0.1": whole(bundled)}


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (401, "401, GITLAB_TOKEN is not valid or has expired"),
        (403, "403, GITLAB_TOKEN may not do this; it takes the scope `api` and at least the role Developer"),
        (404, "404, not found; GITLAB_TOKEN may not see it, or the project has this feature turned off"),
    ],
)
def test_a_refusal_is_one_sentence_and_is_not_tried_again(bundled, server, send, status, sentence):
    server.fail("GET /projects/42/packages", status)
    assert send() == (1, f"error: GitLab: cannot list the versions: {sentence}")
    assert len(server.asked) == 1
    assert server.visible() == {}

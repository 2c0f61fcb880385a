"""A small stand-in for GitLab's API, after its documentation and its source, on a free loopback port.

It holds one project with one merge request, artifacts of jobs and a model registry, wants one token, and can
be told to fail.
"""

import itertools
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "glpat-a-secret-of-the-tests"
PAGE = 2  # notes on a page
MLFLOW = "/ml/mlflow/api/2.0/mlflow/"


class StandIn:
    """What the server knows, what it was asked, and how it should fail."""

    def __init__(self) -> None:
        self.notes: list[dict[str, Any]] = []
        self.uploads: dict[str, bytes] = {}
        self.models: dict[str, str] = {}  # name → experiment
        self.runs: dict[str, dict[str, Any]] = {}
        self.versions: list[dict[str, Any]] = []
        self.files: dict[str, dict[str, bytes]] = {}  # owner → name → content
        self.artifacts: dict[str, dict[str, bytes]] = {}  # id of a job → path → content
        self.promotes_runs = True  # servers before that made an empty version beside the run
        self.asked: list[tuple[str, str]] = []
        self.faults: list[tuple[str, int | str]] = []  # (part of "METHOD path", status, "hang" or "lose")
        self.ids = itertools.count(1)
        self.released = threading.Event()
        self.url = ""

    def fail(self, part: str, *faults: int | str) -> None:
        """Answers the next requests whose method and path contain `part` with these statuses."""
        self.faults += [(part, fault) for fault in faults]

    def visible(self) -> dict[str, dict[str, bytes]]:
        """What a user sees: version → name → content."""
        return {version["number"]: self.files.get(version["id"], {}) for version in self.versions}

    def answer(
        self, method: str, path: str, query: dict[str, str], body: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        """Returns status, content and headers."""
        if path == "/user":
            return 200, {"id": 7, "username": "project_bot"}, {}
        if not path.startswith("/projects/42/"):
            return 404, {"message": "404 Project Not Found"}, {}
        path = path.removeprefix("/projects/42")
        sent = json.loads(body) if body.startswith(b"{") and "/files/" not in path else {}
        if path.startswith("/merge_requests/3/notes"):
            return self.note(method, path, query, sent)
        if path == "/uploads":
            name = re.search(rb'filename="([^"]+)"', body)
            assert name
            url = f"/uploads/{next(self.ids)}/{name[1].decode()}"
            self.uploads[url] = body
            return 201, {"url": url, "markdown": f"![x]({url})"}, {}
        if path == "/packages":
            listed = [{"id": 1, "name": "shoes", "version": v["number"]} for v in self.versions]
            extra = [
                {"id": 2, "name": "shoes", "version": "candidate_9"},
                {"id": 3, "name": "shoes2", "version": "9.9.9"},
            ]
            return 200, [*listed, *extra], {}
        if path.startswith("/packages/ml_models/"):
            return self.file(method, path, body)
        if artifact := re.fullmatch(r"/jobs/(\d+)/artifacts/(.+)", path):
            # https://docs.gitlab.com/api/job_artifacts/#download-a-single-artifact-file-by-job-id
            found = self.artifacts.get(artifact[1], {}).get(artifact[2])
            return (404, {"message": "404 Not found"}, {}) if found is None else (200, found, {})
        if path.startswith(MLFLOW):
            return self.mlflow(method, path.removeprefix(MLFLOW), {**query, **sent})
        return 404, {"error": "404 Not Found"}, {}

    def note(
        self, method: str, path: str, query: dict[str, str], sent: Any
    ) -> tuple[int, Any, dict[str, str]]:
        if method == "POST":
            self.notes.append({"id": next(self.ids), "body": sent["body"], "author": {"id": 7}})
            return 201, self.notes[-1], {}
        if method == "PUT":
            (note,) = [note for note in self.notes if str(note["id"]) == path.split("/")[-1]]
            note["body"] = sent["body"]
            return 200, note, {}
        page = int(query.get("page", 1))
        shown = self.notes[PAGE * (page - 1) : PAGE * page]
        more = len(self.notes) > PAGE * page
        following = f"{self.url}/api/v4/projects/42{path}?page={page + 1}"
        return 200, shown, {"Link": f'<{following}>; rel="next"'} if more else {}

    def file(self, method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        owner, name = re.fullmatch(r"/packages/ml_models/([^/]+)/files/(.+)", path).groups()  # type: ignore[union-attr]
        if method == "PUT":
            assert owner in self.files, f"no such version or run: {owner}"
            self.files[owner][name] = body
            return 201, {"message": "201 Created"}, {}
        content = self.files.get(owner, {}).get(name)
        return (404, {"message": "404 Not Found"}, {}) if content is None else (200, content, {})

    def mlflow(self, method: str, call: str, sent: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        missing: tuple[int, Any, dict[str, str]] = 404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}, {}
        if call == "registered-models/create":
            if sent["name"] in self.models:
                return 400, {"error_code": "RESOURCE_ALREADY_EXISTS"}, {}
            self.models[sent["name"]] = str(next(self.ids))
        if call.startswith("registered-models/"):
            found = sent["name"] in self.models
            return (200, {"registered_model": {"name": sent["name"]}}, {}) if found else missing
        if call == "experiments/get-by-name":
            name = sent["experiment_name"].removeprefix("[model]")
            found = name in self.models and sent["experiment_name"] != name
            return (200, {"experiment": {"experiment_id": self.models[name]}}, {}) if found else missing
        if call == "runs/create":
            assert sent["experiment_id"] in self.models.values()
            run, owner = f"run-{next(self.ids)}", f"candidate:{next(self.ids)}"
            self.runs[run] = {"owner": owner, "tags": sent["tags"], "metrics": {}}
            self.files[owner] = {}
            uri = f"{self.url}/api/v4/projects/42/packages/ml_models/{owner}/files/"
            return 200, {"run": {"info": {"run_id": run, "artifact_uri": uri}}}, {}
        if call == "runs/log-batch":
            self.runs[sent["run_id"]]["metrics"] = {row["key"]: row["value"] for row in sent["metrics"]}
            return 200, {}, {}
        if call == "model-versions/create":
            return self.create(sent)
        assert (method, call) == ("GET", "model-versions/get")
        wanted = (sent["name"], sent["version"])
        matching = [version for version in self.versions if (version["name"], version["number"]) == wanted]
        return (200, {"model_version": self.record(matching[0])}, {}) if matching else missing

    def create(self, sent: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        number = next(tag["value"] for tag in sent["tags"] if tag["key"] == "gitlab.version")
        if any((v["name"], v["number"]) == (sent["name"], number) for v in self.versions):
            return (
                400,
                {"error_code": "INVALID_PARAMETER_VALUE", "message": ["Version has already been taken"]},
                {},
            )
        identity = str(next(self.ids))
        version = {"id": identity, "name": sent["name"], "number": number, "run": f"run-of-{identity}"}
        self.files[identity] = {}
        if self.promotes_runs:
            version["run"] = sent["run_id"]
            self.files[identity] = self.files[self.runs[sent["run_id"]]["owner"]]
        self.versions.append(version)
        return 200, {"model_version": self.record(version)}, {}

    def record(self, version: dict[str, Any]) -> dict[str, Any]:
        source = f"{self.url}/group/project/-/ml/models/1/versions/{version['id']}"
        return {"name": version["name"], "version": version["id"], "run_id": version["run"], "source": source}


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP for a stand-in."""

    protocol_version = "HTTP/1.1"
    stand_in: StandIn

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing."""

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path).removeprefix("/api/v4")
        self.stand_in.asked.append((self.command, path))
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        fault = self.fault(f"{self.command} {path}")
        if fault == "hang":
            self.stand_in.released.wait(10)
            self.close_connection = True
            return
        if isinstance(fault, int):
            echo = f"no: {self.headers['Authorization']}"  # as a careless proxy might
            self.reply(fault, {"message": echo}, {})
            return
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.reply(401, {"message": "401 Unauthorized"}, {})
            return
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        answer = self.stand_in.answer(self.command, path, query, body)
        if fault == "lose":  # done, but the answer does not arrive
            self.close_connection = True
            return
        self.reply(*answer)

    do_GET = do_POST = do_PUT = handle_any  # noqa: N815

    def fault(self, request: str) -> int | str | None:
        for number, (part, fault) in enumerate(self.stand_in.faults):
            if part in request:
                del self.stand_in.faults[number]
                return fault
        return None

    def reply(self, status: int, content: Any, headers: dict[str, str]) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        self.send_response(status)
        for key, value in {"Content-Type": kind, "Content-Length": str(len(data)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def serving() -> Iterator[StandIn]:
    """Runs the stand-in for the length of the block."""
    stand_in = StandIn()
    handler = type("Bound", (Handler,), {"stand_in": stand_in})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        stand_in.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=lambda: server.serve_forever(0.02))
        thread.start()
        try:
            yield stand_in
        finally:
            stand_in.released.set()
            server.shutdown()
            thread.join()

"""GitLab's model registry: Deploy > Model registry, in the free tier since GitLab 17.6.

`--store gitlab`, or `--store gitlab:NAME` for a model of another name than the project's; with GITLAB_TOKEN.

The files are uploaded to a run, which is no version yet; the last request makes the run a version, and with
it all files visible at once. A server too old for that (it ignores `run_id`) makes an empty version, whose
files then follow, SHA256SUMS last: a version without that file is not whole, and publishing it again
completes it.

What a CI job of this project has published is also its artifact: the id of the job stands for a version where
something is downloaded.

API: https://docs.gitlab.com/user/project/ml/experiment_tracking/mlflow_client/ (models, versions, runs)
and https://docs.gitlab.com/api/model_registry/ (files); https://docs.gitlab.com/api/job_artifacts/.
"""

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from src.checksums import SUMS, checksums
from src.errors import UserError
from src.gitlab_api import ApiError, Server
from src.stores import PROVENANCE, SEMANTIC, judged

if TYPE_CHECKING:
    import gitlab

CHUNK = 1 << 20
ARTIFACT = "build/bundle"  # what the publish job keeps


@dataclass(frozen=True)
class Options:
    """The project, and the model's name in its registry."""

    server: Server
    name: str
    job: str | None = None  # the id of the CI job, which GitLab links to the version


def options(argument: str | None, environ: Mapping[str, str]) -> Options | None:
    """Returns the options, None without a token or outside GitLab CI."""
    server = Server.find(environ)
    if server is None:
        return None
    name = argument or re.sub(r"[^\w.-]", "-", environ.get("CI_PROJECT_NAME", "model"))
    return Options(server, name, environ.get("CI_JOB_ID"))


def put(bundle: Path, version: str, options: Options) -> str:
    """Publishes a bundle: files first, the visible version last.

    Returns:
        The version's page.

    Raises:
        UserError: If the version is another model, or GitLab refuses.
    """
    with options.server.connect() as client:
        registry = _Registry(client, options)
        found = registry.version(version)
        if found is None:
            found = registry.publish(bundle, version)
        elif registry.judged(found["version"]) not in ({}, judged(bundle)):
            raise UserError(
                f"GitLab: {options.name} {version} is another model already; expected a new version"
            )
        elif not registry.has(found["version"], SUMS):  # an old server, and a publish cut off there
            registry.upload(bundle, found["version"])
        return str(found.get("source") or f"{options.name} {version}")


def versions(options: Options) -> list[str]:
    """Returns the published versions: a version of a model is a package of the same name."""
    with options.server.connect() as client:
        packages = client.projects.get(options.server.project, lazy=True).packages
        found = options.server.ask(
            "list the versions",
            lambda: packages.list(package_type="ml_model", package_name=options.name, get_all=True),
        )
        # The filter by name is fuzzy, and the package of a run is named `candidate_NUMBER`.
        names = [package.version for package in found if package.name == options.name]
        return [name for name in names if SEMANTIC.fullmatch(name)]


def download(version: str, name: str, path: Path, options: Options) -> None:
    """Writes one file of a version, or of a job's artifact, to `path`.

    Raises:
        UserError: If there is no such version, job or file, or GitLab refuses.
    """
    with options.server.connect() as client:
        registry = _Registry(client, options)
        if version.isdecimal():
            registry.fetch(
                f"{registry.project}/jobs/{version}/artifacts/{ARTIFACT}/{quote(name)}", name, path
            )
            return
        found = registry.version(version)
        if found is None:
            raise UserError(f"GitLab: there is no {options.name} {version}")
        registry.fetch(registry.url(found["version"], name), name, path)


class _Registry:
    """The registry of one project, over one connection.

    The `owner` of files is the id of a version, or `candidate:ID` of a run.
    """

    def __init__(self, client: "gitlab.Gitlab", options: Options) -> None:
        self.client, self.options, self.server = client, options, options.server
        self.project = f"/projects/{quote(self.server.project, safe='')}"

    def mlflow(self, verb: str, path: str, **values: Any) -> Any:
        """Calls GitLab's part of MLflow's API; returns its JSON, None where there is no such thing."""
        sent: dict[str, Any] = {"query_data" if verb == "get" else "post_data": values}

        def request() -> Any:
            url = f"{self.project}/ml/mlflow/api/2.0/mlflow/{path}"
            return self.client.http_request(verb, url, **sent).json()

        try:
            return self.server.ask(f"{path.replace('/', ' ')} {self.options.name}", request)
        except ApiError as error:
            if verb == "get" and error.status == 404:
                return None
            raise

    def version(self, version: str) -> dict[str, Any] | None:
        """Returns GitLab's record of a version; its `version` is the id, not the number."""
        found = self.mlflow("get", "model-versions/get", name=self.options.name, version=version)
        return found["model_version"] if found else None

    def publish(self, bundle: Path, version: str) -> dict[str, Any]:
        """Uploads to a run and makes it a version."""
        experiment = self._experiment()
        run = self._run(experiment, version)
        owner = re.search(r"candidate:\d+", run["artifact_uri"])
        if owner:
            self.upload(bundle, owner[0])
        self._log(bundle, run["run_id"])
        made = self._make(bundle, version, run["run_id"])
        if not owner or made["run_id"] != run["run_id"]:
            self.upload(bundle, made["version"])
        return made

    def _experiment(self) -> str:
        """Returns the experiment that a model has for its runs; makes the model if it is new."""
        if not self.mlflow("get", "registered-models/get", name=self.options.name):
            try:
                self.mlflow("post", "registered-models/create", name=self.options.name)
            except ApiError as error:
                if error.status != 400:  # made since, by another job or by an attempt whose answer was lost
                    raise
        found = self.mlflow("get", "experiments/get-by-name", experiment_name=f"[model]{self.options.name}")
        if not found:
            raise ApiError(f"GitLab: the model {self.options.name} has no experiment for its runs", 404)
        return str(found["experiment"]["experiment_id"])

    def _run(self, experiment: str, version: str) -> dict[str, Any]:
        tags = [{"key": "gitlab.CI_JOB_ID", "value": self.options.job}] if self.options.job else []
        answer = self.mlflow(
            "post",
            "runs/create",
            experiment_id=experiment,
            run_name=f"version {version}",
            start_time=int(time.time() * 1000),
            tags=tags,
        )
        info: dict[str, Any] = answer["run"]["info"]
        return info

    def _log(self, bundle: Path, run: str) -> None:
        """Shows the metrics on the version's page."""
        now = int(time.time() * 1000)
        metrics = [
            {"key": key, "value": value, "timestamp": now}
            for key, value in json.loads((bundle / "metrics.json").read_text()).items()
            if isinstance(value, int | float)
        ]
        self.mlflow("post", "runs/log-batch", run_id=run, metrics=metrics)

    def _make(self, bundle: Path, version: str, run: str) -> dict[str, Any]:
        """Makes the version; an attempt whose answer was lost is looked up instead of done twice."""
        commit = json.loads((bundle / PROVENANCE).read_text()).get("commit")
        try:
            answer = self.mlflow(
                "post",
                "model-versions/create",
                name=self.options.name,
                description=f"Commit {commit}; README.md among the files is the model card.",
                tags=[{"key": "gitlab.version", "value": version}],
                run_id=run,
            )
        except ApiError:
            found = self.version(version)
            if found is None or found["run_id"] != run:
                raise
            return found
        made: dict[str, Any] = answer["model_version"]
        return made

    def url(self, owner: str, name: str) -> str:
        """Returns where a file is."""
        return f"{self.project}/packages/ml_models/{owner}/files/{quote(name)}"

    def upload(self, bundle: Path, owner: str) -> None:
        """Uploads all files, SHA256SUMS last. A file uploaded twice counts once: the later one."""
        for name in [*sorted(checksums(bundle)), SUMS]:

            def send(name: str = name) -> None:
                with open(bundle / name, "rb") as file:
                    self.client.http_request("put", self.url(owner, name), post_data=file, raw=True)

            self.server.ask(f"upload {name}", send)

    def fetch(self, url: str, name: str, path: Path) -> None:
        """Streams a file to `path`."""

        def stream() -> None:
            with (
                self.client.http_request("get", url, streamed=True) as answer,
                open(path, "wb") as file,
            ):
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)

        self.server.ask(f"download {name}", stream)

    def _small(self, owner: str, name: str) -> bytes | None:
        try:
            return self.server.ask(
                f"download {name}", lambda: self.client.http_request("get", self.url(owner, name)).content
            )
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def has(self, owner: str, name: str) -> bool:
        """Returns whether a small file is there."""
        return self._small(owner, name) is not None

    def judged(self, owner: str) -> dict[str, str]:
        """Returns what the gate judged of a version, name → SHA-256."""
        files: dict[str, str] = json.loads(self._small(owner, PROVENANCE) or b"{}").get("files", {})
        return files

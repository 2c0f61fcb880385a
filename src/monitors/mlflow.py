"""MLflow: a run with its parameters, metrics and tags on a `mlflow server`, or in GitLab's model experiments.

MLFLOW_TRACKING_URI says where, MLFLOW_TRACKING_TOKEN (or _USERNAME and _PASSWORD) who: for GitLab
https://gitlab.example.com/api/v4/projects/<id>/ml/mlflow and a token of scope `api`. Only calls are made that
GitLab lists as supported, since 15.11:
https://docs.gitlab.com/user/project/ml/experiment_tracking/mlflow_client/
"""

import logging
import os
import time
from typing import Any

from src.errors import UserError
from src.params import Section
from src.training.watching import Run

LONGEST = 250  # characters of a parameter's value, GitLab's limit
MOST = 100  # parameters in one request
# A server that does not answer must not hold up the end; nothing is sent to MLflow's makers.
QUIET = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "4",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class Options(Section):
    """`monitors: [{mlflow: {…}}]`: under which names a training is found."""

    experiment: str = "sluice"  # is made where it is new
    run: str | None = None  # None: when the training began


def looks(options: Options) -> bool:
    """No: curves and parameters are all that every server takes."""
    return False


def start(options: Options, run: Run) -> "MLflow":
    """Makes the run, or goes on with the one there.

    Raises:
        UserError: If MLflow's client is not installed, or no server is named.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise UserError("MLFLOW_TRACKING_URI is not set, expected the address of a server")
    try:
        import mlflow
    except ImportError:
        raise UserError("its package is not installed; `pip install mlflow-skinny` does it") from None
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    return MLflow(mlflow.MlflowClient(), options, run)


class MLflow:
    """One run of an experiment."""

    def __init__(self, client: Any, options: Options, run: Run) -> None:
        self.client = client
        self.id = run.previous or ""
        if run.previous is not None and self._is_there():
            client.update_run(self.id, status="RUNNING")
            return
        found = client.get_experiment_by_name(options.experiment)
        experiment = found.experiment_id if found else client.create_experiment(options.experiment)
        tags = {"commit": run.commit or "none", "gitlab.CI_JOB_ID": os.environ.get("CI_JOB_ID")}
        tags = {key: value for key, value in tags.items() if value}
        self.id = client.create_run(experiment, run_name=options.run or run.name, tags=tags).info.run_id
        self._describe(run)

    def _is_there(self) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_run(self.id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return True

    def _describe(self, run: Run) -> None:
        from mlflow.entities import Param

        parameters = {**run.parameters, "network.weights": run.weights}
        if run.classes:
            parameters["network.classes"] = len(run.classes)
        texts = {key: str(value)[:LONGEST] for key, value in parameters.items()}
        params = [
            Param(key, text) for key, text in texts.items() if text.strip()
        ]  # GitLab refuses empty ones
        for first in range(0, len(params), MOST):
            self.client.log_batch(self.id, params=params[first : first + MOST])

    def log(self, record: dict[str, Any]) -> None:
        """Adds a point to each curve."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(key, value, now, record["epoch"]) for key, value in record.items() if key != "epoch"
        ]
        self.client.log_batch(self.id, metrics=metrics)

    def end(self, status: str) -> None:
        """Says that the run has ended."""
        self.client.set_terminated(self.id, status.upper())

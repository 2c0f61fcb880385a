"""Who watches a training can neither stop nor slow it: with servers that refuse, hang, are slow or well."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest

from src import engine, params, prepared
from src.errors import UserError
from src.files import write_json
from src.monitors import dvclive, mlflow, tensorboard, wandb
from src.objectives import classification, regression
from src.training import checkpoint, watching
from src.training.watching import Monitors, Run, flatten, redact

SECRET = "pa55-of-the-tests"
RUN = Run(
    "2026-01-02T03-04-05", {"fit.seed": 0, "data.path": "photos"}, "a network", 42, ["a", "b"], "c0ffee"
)
# https://docs.gitlab.com/user/project/ml/experiment_tracking/mlflow_client/, and the requests they stand for.
GITLAB = {
    "experiments/get-by-name": "get_experiment_by_name",
    "experiments/create": "create_experiment",
    "runs/create": "start_run",
    "runs/get": "get_run",
    "runs/log-batch": "log_batch",
    "runs/update": "set_terminated",
}


def record(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "loss": 1 / epoch, "val_loss": 2 / epoch, "learning_rate": 0.01}


def history(epochs: int) -> list[dict[str, Any]]:
    return [record(epoch) for epoch in range(1, epochs + 1)]


class Server:
    """What an MLflow server on the loopback address was told; it takes `delay` seconds for each answer."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.runs: list[dict[str, Any]] = []
        self.asked: list[str] = []

    def answer(self, call: str, sent: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        time.sleep(self.delay)
        self.asked.append(call)
        if call == "experiments/get-by-name":
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}
        if call == "experiments/create":
            return 200, {"experiment_id": "1"}
        if call == "runs/create":
            self.runs.append({"params": {}, "steps": [], "status": "RUNNING", "tags": sent["tags"]})
            info = {"run_id": str(len(self.runs)), "experiment_id": "1", "status": "RUNNING"}
            return 200, {"run": {"info": info, "data": {}}}
        run = self.runs[int(sent["run_id"]) - 1]
        if call == "runs/log-batch":
            run["params"] |= {each["key"]: each["value"] for each in sent.get("params", [])}
            run["steps"] += [each["step"] for each in sent.get("metrics", []) if each["key"] == "val_loss"]
        if call == "runs/update":
            run["status"] = sent["status"]
        return 200, {
            "run": {"info": {"run_id": sent["run_id"], "experiment_id": "1"}, "data": {}},
            "run_info": {},
        }


@pytest.fixture
def serve(monkeypatch) -> Iterator[Any]:
    """Starts a server and points MLflow to it."""
    started = []

    def start(delay: float = 0.0) -> Server:
        server = Server(delay)

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                query = urlsplit(self.path).query
                self.reply(dict(pair.split("=") for pair in query.split("&") if pair))

            def do_POST(self) -> None:
                self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def reply(self, sent: dict[str, Any]) -> None:
                status, content = server.answer(urlsplit(self.path).path.split("/mlflow/")[-1], sent)
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, daemon=True).start()
        started.append(http)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{http.server_port}")
        return server

    yield start
    for http in started:
        http.shutdown()
        http.server_close()


@pytest.fixture
def hanging() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.fixture(autouse=True)
def environment(workspace, monkeypatch) -> None:
    """An empty folder, and no variable of a monitor, nor one that stays when it sets its own."""
    for name in os.environ:
        if name.startswith(("MLFLOW_", "WANDB_")):
            monkeypatch.delenv(name, raising=False)
    for name, value in (mlflow.QUIET | wandb.QUIET).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NETRC", "no-such-file")


def watch(monitors: dict[str, Any], epochs: int, belongs: str = "this") -> float:
    """Tells monitors of a training; returns the seconds that it cost, without the end."""
    with Monitors(monitors, RUN, belongs) as watchers:
        started = time.monotonic()
        for epoch in range(1, epochs + 1):
            watchers.epoch(history(epoch))
        return time.monotonic() - started


# ── No training is stopped or slowed ───────────────────────────────────────────────────────────────────


def test_a_server_that_is_not_there_is_one_warning_without_its_password(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ada:{SECRET}@127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    watch({"mlflow": mlflow.Options()}, 3)
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 1
    assert said.out.startswith("warning: monitor mlflow: ")
    assert f"http://***@127.0.0.1:{port}" in said.out
    assert SECRET not in said.out + said.err


def test_a_server_that_never_answers_costs_no_time_but_a_little_at_the_end(hanging, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{hanging}")
    monkeypatch.setattr(watching, "WAIT", 1.0)
    started = time.monotonic()
    assert watch({"mlflow": mlflow.Options()}, 200) < 2
    assert 1.0 <= time.monotonic() - started < 4
    assert capsys.readouterr().out == (
        "warning: monitor mlflow: has taken 0 of 200 epochs so far and is not waited for\n"
    )


def test_a_slow_server_is_left_behind_and_what_it_misses_is_said(serve, monkeypatch, capsys):
    server = serve(delay=0.4)
    monkeypatch.setattr(watching, "WAIT", 3.0)
    assert watch({"mlflow": mlflow.Options()}, 100) < 2
    (line,) = capsys.readouterr().out.splitlines()
    taken = int(line.removeprefix("warning: monitor mlflow: has taken ").split()[0])
    assert "of 100 epochs so far" in line
    assert taken < 20
    assert server.runs[0]["status"] == "RUNNING"


def test_one_that_fails_does_not_keep_the_others_from_their_work(capsys):
    monitors = {"mlflow": mlflow.Options(), "dvclive": dvclive.Options()}
    watch(monitors, 3)
    said = "warning: monitor mlflow: MLFLOW_TRACKING_URI is not set, expected the address of a server\n"
    assert capsys.readouterr().out == said
    assert (
        dvclive.CURVES / "val/loss.tsv"
    ).read_text() == "step\tloss\n1\t2.0\n2\t1.0\n3\t0.6666666666666666\n"


def test_one_that_fails_later_is_a_warning_too(workspace, capsys):
    (workspace / "dvclive").mkdir()
    (workspace / "dvclive/plots").write_text("a file where a folder should be")
    watch({"dvclive": dvclive.Options()}, 3)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("warning: monitor dvclive: [Errno 20] Not a directory")


@pytest.mark.parametrize(("name", "package"), [("mlflow", "mlflow-skinny"), ("wandb", "wandb")])
def test_a_package_that_is_missing_is_named(name, package, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    monkeypatch.setitem(sys.modules, name, None)
    watch({name: params.pick("monitors", name).Options()}, 1)
    said = f"warning: monitor {name}: its package is not installed; `pip install {package}` does it\n"
    assert capsys.readouterr().out == said


def test_weights_and_biases_without_an_answer_does_not_keep_the_process_from_ending(hanging, root, workspace):
    """In a process of its own: at its exit, the package's own hooks would wait for the server."""
    program = f"""
import sys, time
sys.path.insert(0, {str(root)!r})
from src.monitors import wandb
from src.training.watching import Monitors, Run
with Monitors({{"wandb": wandb.Options()}}, Run("name", {{}}, "", 1), "this") as monitors:
    monitors.epoch([{record(1)!r}])
"""
    key = "0123456789abcdef" * 2 + "01234567"
    environment = {**os.environ, "WANDB_API_KEY": key, "WANDB_BASE_URL": f"http://127.0.0.1:{hanging}"}
    started = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60
    )
    assert time.monotonic() - started < watching.WAIT + 10
    assert result.returncode == 0
    assert result.stdout.startswith("warning: monitor wandb: ")
    assert result.stderr == ""


# ── What a monitor is told ─────────────────────────────────────────────────────────────────────────────


def test_mlflow_is_told_of_parameters_epochs_and_the_end(serve, capsys):
    server = serve()
    watch({"mlflow": mlflow.Options()}, 5)
    assert capsys.readouterr().out == ""
    (run,) = server.runs
    assert run["params"] == {
        "fit.seed": "0", "data.path": "photos", "network.weights": "42", "network.classes": "2"
    }  # fmt: skip
    assert run["steps"] == [1, 2, 3, 4, 5]
    assert run["status"] == "FINISHED"
    assert {"key": "commit", "value": "c0ffee"} in run["tags"]
    assert set(server.asked) <= set(GITLAB)


def kill_after(epochs: int, belongs: str = "this") -> None:
    """Tells MLflow of a training that ends too early."""
    watchers = Monitors({"mlflow": mlflow.Options()}, RUN, belongs)
    with suppress(KeyboardInterrupt), watchers:
        watchers.epoch(history(epochs))
        raise KeyboardInterrupt


def test_a_training_that_goes_on_after_it_was_killed_goes_on_in_the_same_run(serve):
    server = serve()
    kill_after(2)
    assert server.runs[0]["status"] == "FAILED"
    watch({"mlflow": mlflow.Options()}, 4)
    (run,) = server.runs
    assert run["steps"] == [1, 2, 3, 4]
    assert run["status"] == "FINISHED"
    assert set(server.asked) <= set(GITLAB)
    assert not list(watching.FOLDER.glob("*.json"))


def test_another_training_gets_a_run_of_its_own_with_all_epochs(serve):
    server = serve()
    kill_after(2, belongs="another")
    watch({"mlflow": mlflow.Options()}, 3)
    assert [run["steps"] for run in server.runs] == [[1, 2], [1, 2, 3]]


def test_weights_and_biases_writes_files_where_there_is_no_key_and_says_so(capsys):
    watch({"wandb": wandb.Options()}, 2)
    said = "monitor wandb: no WANDB_API_KEY; the run is written to build/monitors/wandb alone\n"
    assert capsys.readouterr().out == said
    (run,) = watching.FOLDER.glob("wandb/offline-run-*")
    assert list(run.glob("*.wandb"))


def test_parameters_are_told_by_their_keys():
    assert flatten({"fit": {"seed": 0, "optimizer": {"name": "adam"}}, "encode": {"size": [8, 8]}}) == {
        "fit.seed": 0, "fit.optimizer.name": "adam", "encode.size": [8, 8]
    }  # fmt: skip


# ── What is seen of the network ────────────────────────────────────────────────────────────────────────


def batches(inputs: np.ndarray, labels: np.ndarray, classes: int | None = None) -> prepared.Batches:
    table = pd.DataFrame({"id": np.arange(len(labels)).astype(str), "label": labels})
    return prepared.Batches(prepared.Split(inputs, labels, table), 8, classes=classes)


def test_gradients_are_those_of_the_compiled_loss_of_the_first_validation_examples():
    import keras

    engine.start(0)
    draw = np.random.default_rng(0)
    inputs, labels = draw.normal(size=(50, 3)).astype(np.float32), draw.normal(size=50).astype(np.float32)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(loss="mean_absolute_error")
    seen = watching.Probe(model, regression, batches(inputs, labels), None).look()
    x, y = inputs[: watching.EXAMPLES], labels[: watching.EXAMPLES, None]
    kernel, bias = map(np.asarray, model.variables)
    error = x @ kernel + bias - y
    slope, offset = seen.gradients.values()
    assert np.allclose(slope, (x.T @ np.sign(error) / len(x)).ravel(), atol=1e-5)
    assert np.allclose(offset, np.sign(error).mean(), atol=1e-5)
    assert list(seen.weights) == [variable.path for variable in model.variables]
    assert np.array_equal(seen.weights[model.variables[0].path], kernel.ravel())
    assert list(seen.predictions) == ["id", "label", "prediction"]
    assert np.allclose(seen.predictions["prediction"], (x @ kernel + bias).ravel(), atol=1e-5)


def test_a_look_changes_nothing_in_the_network_and_is_small():
    import keras

    engine.start(0)
    layers = [
        keras.layers.Embedding(9000, 4, mask_zero=True),
        keras.layers.SimpleRNN(5, dropout=0.5),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(2, activation="softmax"),
    ]
    model = keras.Sequential([keras.Input((6,), dtype="int32"), *layers])
    model.compile(optimizer="adam", loss="categorical_crossentropy")
    inputs = np.random.default_rng(0).integers(1, 9000, (40, 6)).astype(np.int32)
    given = batches(inputs, np.arange(40) % 2, classes=2)
    probe = watching.Probe(model, classification, given, ["a", "b"])
    before = [np.asarray(variable).copy() for variable in model.variables]
    first, second = probe.look(), probe.look()
    assert all(np.array_equal(*pair) for pair in zip(before, map(np.asarray, model.variables), strict=True))
    for name, values in first.gradients.items():
        assert np.array_equal(values, second.gradients[name])
        assert len(values) == len(first.weights[name]) <= watching.VALUES
    model.layers[0].trainable = False
    model.compile(optimizer="adam", loss="categorical_crossentropy")
    model.fit(inputs, given.encode(np.arange(40) % 2), verbose=0)
    third = probe.look()
    changed = model.trainable_variables[-1].path
    assert not np.array_equal(third.weights[changed], first.weights[changed])
    assert list(third.weights) == list(first.weights)[1:]


def test_looks_at_short_epochs_are_left_out_rather_than_slowing_the_training():
    import keras
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    engine.start(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(loss="mean_squared_error")
    probe = watching.Probe(model, regression, batches(np.ones((5, 3), np.float32), np.ones(5)), None)
    with Monitors({"tensorboard": tensorboard.Options()}, RUN, "this", probe) as watchers:
        for epoch in range(1, 101):
            watchers.epoch(history(epoch))
    folder = watching.FOLDER / "tensorboard" / RUN.name
    train, validation = (
        EventAccumulator(str(folder / name), {"tensors": 0}).Reload() for name in ("train", "validation")
    )
    assert len(train.Tensors("loss")) == 100
    assert 1 <= len(validation.Tensors("predictions")) < 20


# ── No secret is said ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("variable", "value", "text", "expected"),
    [
        ("X", "", "https://ada:s3cr%40t@host/x refused s3cr@t", "https://***@host/x refused ***"),
        ("MLFLOW_TRACKING_TOKEN", "glpat-12345", "401 for glpat-12345", "401 for ***"),
        ("WANDB_API_KEY", "0123456789", "bad key 0123456789", "bad key ***"),
        ("URL", "https://ada:s3cr%40t@host", "s3cr@t is wrong,\n s3cr%40t", "*** is wrong, ***"),
    ],
)
def test_secrets_of_the_environment_and_of_addresses_are_left_out(
    variable, value, text, expected, monkeypatch
):
    monkeypatch.setenv(variable, value)
    assert redact(text) == expected


# ── params.yaml ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("monitors", "sentence"),
    [
        (["tensorbord"], "monitors: src/monitors: there is no 'tensorbord', expected one of dvclive, "),
        (["tensorbord"], "; did you mean 'tensorboard'?"),
        ([{"mlflow": {"experment": "x"}}], "monitors.mlflow.experment: unknown key; did you mean 'exp"),
        ([{"mlflow": {"experiment": 3}}], "monitors.mlflow.experiment: found 3, expected a valid string"),
        ([{"mlflow": 3}], "monitors.mlflow: found 3, expected a section of keys"),
        ([{"mlflow": {}, "wandb": {}}], "monitors: found {'mlflow': {}, 'wandb': {}}, expected a name"),
        (["mlflow", {"mlflow": {}}], "monitors: mlflow is there twice, expected each monitor once"),
        ("mlflow", "monitors: found 'mlflow', expected a list such as [tensorboard]"),
    ],
)  # fmt: skip
def test_a_wrong_monitor_is_said_with_key_found_and_expected(write_params, monitors, sentence):
    write_params(monitors=monitors)
    with pytest.raises(UserError) as error:
        params.load()
    assert sentence in str(error.value)


def test_a_monitor_is_one_line_with_or_without_options(write_params):
    write_params(monitors=["dvclive", {"mlflow": {"experiment": "shoes"}}])
    monitors = params.load().monitors
    assert monitors == {"dvclive": dvclive.Options(), "mlflow": mlflow.Options(experiment="shoes")}
    write_params()
    assert params.load().monitors == {}


def test_a_checkpoint_belongs_to_a_training_whoever_watches_it(write_params):
    for name in ("data.json", "encoder.json"):
        write_json(prepared.FOLDER / name, {})
    write_params()
    alone = params.load()
    write_params(monitors=["dvclive"])
    watched = params.load()
    assert checkpoint.owner(alone) == checkpoint.owner(watched)
    assert alone.fit.model_dump() == watched.fit.model_dump()

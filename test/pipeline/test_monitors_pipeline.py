"""A training with every monitor: what they write is read back, and the model is the one without them."""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.files import read_json
from src.train import fit, prepare
from src.training import watching

MONITORS = ["tensorboard", "wandb", "dvclive"]
MLFLOW = Path(sys.prefix) / "mlflow/bin/mlflow"  # made by `make test-slow`
PATIENCE = 300  # seconds for a server or a training to get somewhere


@pytest.fixture(scope="module")
def project(tmp_path_factory, write_photos, write_params) -> Iterator[Path]:
    """Prepared photographs, trained without monitors (model.keras and history.json are kept), then with."""
    before = Path.cwd()
    folder = tmp_path_factory.mktemp("project")
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watching, "SHARE", 1.0)  # epochs are too short for a look at each
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_CONFIG_DIR", str(folder / "config"))
        patch.setenv("WANDB_CACHE_DIR", str(folder / "cache"))
        write_photos(folder / "photos", 16)
        write_params(fit={"epochs": 3})
        prepare.main()
        fit.main()
        shutil.copytree("src/models", "alone")
        write_params(fit={"epochs": 3}, monitors=MONITORS)
        fit.main()
        yield folder
    os.chdir(before)


def tensors(points: Any) -> dict[int, Any]:
    """Returns step → value."""
    from tensorboard.util import tensor_util

    found = {point.step: tensor_util.make_ndarray(point.tensor_proto) for point in points}
    assert len(found) == len(points)
    return found


def events(folder: Path, name: str) -> Any:
    """Reads the event files of the one training there."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (run,) = (folder / "build/monitors/tensorboard").iterdir()
    accumulator = EventAccumulator(str(run / name), size_guidance={"tensors": 0})
    return accumulator.Reload()


def test_monitors_change_no_byte_of_model_and_history(project):
    for name in ("model.keras", "history.json"):
        assert (project / "src/models" / name).read_bytes() == (project / "alone" / name).read_bytes(), name


def test_nothing_is_left_that_a_later_training_would_go_on_with(project):
    assert not list((project / "build/monitors").glob("*.json"))


def test_tensorboard_has_the_curves_of_both_splits(project):
    history = read_json(project / "src/models/history.json")
    for split, prefix in (("train", ""), ("validation", "val_")):
        found = events(project, split)
        for metric in ("loss", "accuracy"):
            expected = {record["epoch"]: np.float32(record[prefix + metric]) for record in history}
            assert tensors(found.Tensors(metric)) == expected


def test_tensorboard_has_histograms_of_weights_and_gradients_of_every_layer_in_every_epoch(project):
    import keras

    found = events(project, "train")
    model = keras.saving.load_model(project / "src/models/model.keras")
    for variable in model.trainable_variables:
        for kind in ("weights", "gradients"):
            histograms = tensors(found.Tensors(f"{kind}/{variable.path}"))
            assert list(histograms) == [1, 2, 3]
            assert histograms[1][:, 2].sum() == np.prod(variable.shape)


def test_tensorboard_has_the_graph_the_parameters_and_the_first_predictions(project):
    train, validation = events(project, "train"), events(project, "validation")
    assert any("Conv2D" in node.op for node in train.Graph().node)
    (parameters,) = tensors(train.Tensors("parameters")).values()
    assert b"| fit.optimizer.learning_rate | 0.01 |" in parameters.item()
    tables = tensors(validation.Tensors("predictions"))
    assert list(tables) == [1, 2, 3]
    assert tables[3].item().startswith(b"| id | label | prediction | confidence |")
    pictures = tensors(validation.Tensors("examples"))
    assert pictures[1][2].startswith(b"\x89PNG")


def records(path: Path) -> Iterator[Any]:
    """Reads a .wandb file: LevelDB's log format behind a header of 7 bytes, in blocks of 32 KiB.

    https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    from wandb.proto import wandb_internal_pb2

    data, position, whole = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # full, last
            yield wandb_internal_pb2.Record.FromString(whole)  # type: ignore[attr-defined]
            whole = b""


def test_weights_and_biases_has_the_history_and_the_parameters_offline(project):
    (path,) = (project / "build/monitors/wandb").glob("offline-run-*/*.wandb")
    found = list(records(path))
    rows = [
        {item.nested_key[0] or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in found
        if record.HasField("history")
    ]
    own = [{key: value for key, value in row.items() if not key.startswith("_")} for row in rows]
    assert own == read_json(project / "src/models/history.json")
    (run,) = [record.run for record in found if record.HasField("run")]
    config = {each.key: json.loads(each.value_json) for each in run.config.update}
    assert config["fit.optimizer.learning_rate"] == 0.01
    assert config["network.classes"] == ["flower", "portrait", "temple"]


def dvc(*arguments: str) -> str:
    """Runs DVC here, in a repository of git; returns what it prints."""
    own = Path(sys.executable).parent
    environment = {**os.environ, "DVC_SITE_CACHE_DIR": ".dvc/site", "GIT_CONFIG_GLOBAL": os.devnull}
    return subprocess.run(
        [own / "dvc", *arguments], env=environment, check=True, capture_output=True, text=True
    ).stdout


def curves(root: Path) -> dict[str, list[dict[str, Any]]]:
    """Returns what `dvc plots show` draws of dvclive/ and of the history: name → data."""
    if not Path(".dvc").exists():
        for name in ("dvc.yaml", ".gitignore"):
            shutil.copy(root / name, name)
        subprocess.run(["git", "init", "--quiet"], check=True)
        dvc("init", "--quiet")
    shown = json.loads(dvc("plots", "show", "--json"))["data"]
    return {
        name.split("metrics/")[-1].removesuffix(".tsv"): plots[0]["content"]["data"]["values"]
        for name, plots in shown.items()
        if plots and isinstance(plots[0]["content"], dict)  # the report's pictures are not there yet
    }


@pytest.mark.slow
def test_dvc_draws_a_curve_for_each_metric(project, root):
    drawn = curves(root)
    for record in read_json(Path("src/models/history.json")):
        row = record["epoch"] - 1
        assert float(drawn["val/accuracy"][row]["accuracy"]) == record["val_accuracy"]
        assert float(drawn["train/loss"][row]["loss"]) == record["loss"]
    metrics = json.loads(dvc("metrics", "show", "--json"))[""]["data"]["dvclive/metrics.json"]["data"]
    assert metrics["val"]["accuracy"] == record["val_accuracy"]


# ── A real MLflow server, and a training that is killed ────────────────────────────────────────────────


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[str]:
    """A real MLflow server of one process, its address."""
    assert MLFLOW.exists(), f"{MLFLOW} is missing: `make test-slow` makes the environment of MLflow's server"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db"]
    store += ["--artifacts-destination", str(tmp_path / "artifacts")]
    command = [str(MLFLOW), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", *store]
    environment = {
        **os.environ,
        "PATH": f"{MLFLOW.parent}:{os.environ['PATH']}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with open(tmp_path / "server.log", "wb") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until(lambda: answers(f"{address}/health"), process, tmp_path / "server.log")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its workers are in its session
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def until(holds: Callable[[], bool], process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Waits for something that a process brings about."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.05)


def told(monitor: str) -> int:
    """Returns up to which epoch a monitor was told."""
    path = Path(f"build/monitors/{monitor}.json")
    return int(read_json(path)["epoch"]) if path.exists() else 0


@pytest.mark.slow
def test_a_training_is_seen_while_it_runs_and_goes_on_everywhere_after_it_was_killed(
    server, root, workspace, write_photos, write_params
):
    from mlflow import MlflowClient

    epochs = 60
    monitors = ["tensorboard", "dvclive", {"mlflow": {"experiment": "photographs"}}]
    write_photos(workspace / "photos", 16)
    write_params(fit={"epochs": epochs, "early_stopping": None}, monitors=monitors)
    prepare.main()
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "src.train.fit"]
    with open("fit.log", "wb") as log:
        training = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        until(lambda: min(map(told, ("tensorboard", "dvclive", "mlflow"))) >= 2, training, Path("fit.log"))
        training.send_signal(signal.SIGSTOP)  # it runs on whatever DVC costs
        drawn = curves(root)
        assert 2 <= len(drawn["val/loss"]) < epochs
        assert {point["field"] for point in drawn["loss"]} == {"loss", "val_loss"}
        client = MlflowClient(server)
        experiment = client.get_experiment_by_name("photographs")
        assert experiment is not None
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.info.status == "RUNNING"
    finally:
        training.kill()
        training.wait()

    subprocess.run(command, env=environment, check=True)
    history = read_json(Path("src/models/history.json"))
    assert len(history) == epochs
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["fit.batch_size"] == "8"
    for metric in ("loss", "val_accuracy", "learning_rate"):
        points = client.get_metric_history(run.info.run_id, metric)
        expected = {record["epoch"]: record[metric] for record in history}
        assert {point.step: point.value for point in points} == expected
    losses = events(workspace, "train").Tensors("loss")
    assert {point.step for point in losses} == {record["epoch"] for record in history}
    assert [point["step"] for point in curves(root)["val/loss"]] == [str(n + 1) for n in range(epochs)]
    assert not list(Path("build/monitors").glob("*.json"))

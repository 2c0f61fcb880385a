"""Tells monitors how a training goes. None of them can stop it, slow it or change what it gives.

Each has a thread and a queue of its own. What goes wrong is one warning, without secrets, and the end of that
monitor; at the end of the training all together are waited for `WAIT` seconds at most.

build/monitors/<name>.json says under which id a monitor knows the training, and up to which epoch: one that
was killed and goes on after its checkpoint goes on there, too. It is gone when the training has ended.
"""

import hashlib
import json
import os
import queue
import re
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np
import pandas as pd

from src import command, engine, params, prepared
from src.files import read_json, write_json
from src.plugin import pick
from src.training import checkpoint

if TYPE_CHECKING:
    import keras

FOLDER = Path("build/monitors")
WAIT = 10.0  # seconds for all monitors together, at the end
RECORDS, SNAPSHOTS = 10_000, 5  # that may wait in a queue; more are dropped
EXAMPLES = 32  # that a snapshot looks at
SHARE = 0.05  # of the training's time that snapshots may take, after the first; others are left out
VALUES = 4096  # of each array of weights, enough for a histogram
SECRET = re.compile(r"TOKEN|SECRET|PASS|KEY|CREDENTIAL|AUTH", re.IGNORECASE)


@dataclass(frozen=True)
class Run:
    """What a monitor is told when a training begins.

    Args:
        name: Of the training: when it began.
        previous: The id that this monitor gave it before it was killed; None for a new training.
        parameters: params.yaml as `section.key` → value, defaults included.
        network: Layers, shapes and numbers of parameters, a table as text.
        weights: How many numbers the network learns or keeps.
        classes: The class names, None where labels are numbers.
        commit: The checked-out one, `-dirty` added when files differ; None without git.
    """

    name: str
    parameters: dict[str, Any]
    network: str
    weights: int
    classes: list[str] | None = None
    commit: str | None = None
    previous: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """The network at the end of an epoch, as the first validation examples see it.

    Args:
        weights: Name → up to `VALUES` values of each trainable array, equally spaced, (values,) float32.
        gradients: Name → the same of the loss's derivatives.
        predictions: A row for each example: id, label, and the objective's first two columns.
        pictures: (examples, height, width, 1 or 3) uint8 where inputs are such, otherwise None.
        graph: TensorFlow's `GraphDef` of the network.
    """

    weights: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    predictions: pd.DataFrame
    pictures: np.ndarray | None = None
    graph: Any = field(default=None, repr=False)


class Probe:
    """Looks at a network, always with the same examples and as it predicts: nothing in it changes.

    Args:
        model: The compiled network.
        objective: A file of src/objectives.
        batches: Of the validation split, with labels as the compiled loss takes them.
        classes: The class names, or None.
    """

    def __init__(
        self,
        model: "keras.Model",
        objective: ModuleType,
        batches: prepared.Batches,
        classes: list[str] | None,
    ) -> None:
        self.model, self.objective, self.classes = model, objective, classes
        split = batches.split
        self.inputs, self.labels = split.inputs[:EXAMPLES], batches.encode(split.labels[:EXAMPLES])
        self.table = split.table.iloc[:EXAMPLES][["id", "label"]].reset_index(drop=True)
        self.compute: Any = None
        self.names: list[str] = []
        self.graph: Any = None

    def look(self) -> Snapshot:
        """Returns what the network is now."""
        names = [variable.path for variable in self.model.trainable_variables]
        if names != self.names:  # at first, and where the training thaws layers
            self._trace()
            self.names = names
        with engine.unchanged(self.model):
            outputs, weights, gradients = self.compute(self.inputs, self.labels)
        guesses = self.objective.predict(np.asarray(outputs), self.classes).iloc[:, :2]
        is_picture = (
            self.inputs.dtype == np.uint8 and self.inputs.ndim == 4 and self.inputs.shape[-1] in (1, 3)
        )
        return Snapshot(
            {name: np.asarray(values) for name, values in zip(names, weights, strict=True)},
            {name: np.asarray(values) for name, values in zip(names, gradients, strict=True)},
            pd.concat([self.table, guesses], axis=1),
            np.asarray(self.inputs) if is_picture else None,
            self.graph,
        )

    def _trace(self) -> None:
        import keras
        import tensorflow as tf

        model = self.model
        loss = keras.losses.get(model.loss)

        def some(array: Any) -> Any:
            values = tf.reshape(array, [-1])
            return tf.cast(values[:: max(1, -(-values.shape[0] // VALUES))], tf.float32)

        @tf.function(autograph=False)
        def compute(inputs: Any, labels: Any) -> Any:
            arrays = [variable.value for variable in model.trainable_variables]
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(arrays)
                outputs = model(inputs, training=False)
                mean = tf.reduce_mean(loss(labels, outputs))
            zero = tf.UnconnectedGradients.ZERO
            gradients = tape.gradient(mean, arrays, unconnected_gradients=zero)
            return outputs, [some(each) for each in arrays], [some(each) for each in gradients]

        self.compute = compute
        predict = tf.function(lambda inputs: model(inputs, training=False), autograph=False)
        spec = tf.TensorSpec((None, *self.inputs.shape[1:]), self.inputs.dtype)
        self.graph = predict.get_concrete_function(spec).graph.as_graph_def()


class Feed(threading.Thread):
    """One monitor's thread: brings it what is in its queue.

    Args:
        name: Of the monitor.
        options: Its `Options`.
        run: What it is told.
        belongs: What a training must be to go on with this one's run.
    """

    def __init__(self, name: str, options: Any, run: Run, belongs: str) -> None:
        super().__init__(name=f"monitor {name}", daemon=True)
        self.monitor, self.options, self.told, self.belongs = name, options, run, belongs
        self.path = FOLDER / f"{name}.json"
        self.waiting: queue.SimpleQueue[tuple[str, tuple[Any, ...]]] = queue.SimpleQueue()
        self.looks = bool(pick("monitors", name).looks(options))
        self.given = self.delivered = 0  # epochs
        self.over = False  # it has failed, or nobody waits for it any more

    def give(self, call: str, *arguments: Any) -> None:
        """Puts a call of the monitor into its queue; never waits."""
        if call == "end" or self.waiting.qsize() < (SNAPSHOTS if call == "look" else RECORDS):
            self.waiting.put((call, arguments))
        if call == "log":
            self.given = arguments[0]["epoch"]

    def run(self) -> None:
        """Starts the monitor and makes its calls, until the last one or the first that fails."""
        try:
            self._watch()
        except (Exception, SystemExit) as error:  # anything at all: these are other people's libraries
            self.say(str(error) or type(error).__name__)

    def _watch(self) -> None:
        kept = read_json(self.path) if self.path.exists() else {}
        if kept.get("belongs") != self.belongs:
            kept = {"id": None, "epoch": 0}
        run = replace(self.told, previous=kept["id"])
        monitor = pick("monitors", self.monitor).start(self.options, run)
        self.delivered = kept["epoch"] if monitor.id == kept["id"] else 0
        call: str = ""
        arguments: tuple[Any, ...] = ()
        while call != "end" and not self.over:
            self._keep(monitor.id)
            call, arguments = self.waiting.get()
            if call != "log" or arguments[0]["epoch"] > self.delivered:
                getattr(monitor, call)(*arguments)
            if call == "log":
                self.delivered = max(self.delivered, arguments[0]["epoch"])
        if arguments == ("finished",):
            self.path.unlink(missing_ok=True)

    def _keep(self, name: str) -> None:
        write_json(self.path, {"belongs": self.belongs, "id": name, "epoch": self.delivered})

    def say(self, reason: str) -> None:
        """Warns, once, and ends it."""
        if not self.over:
            print(f"warning: monitor {self.monitor}: {redact(reason)}", flush=True)
        self.over = True


class Monitors:
    """The monitors that params.yaml chooses; a context in which the training runs.

    Args:
        chosen: Name → `Options`.
        run: What they are told.
        belongs: What a training must be to go on with a run that was killed.
        probe: Looks at the network for those who want it.
    """

    def __init__(self, chosen: dict[str, Any], run: Run, belongs: str, probe: Probe | None = None) -> None:
        self.feeds = [Feed(name, options, run, belongs) for name, options in chosen.items()]
        self.probe = probe
        self.sent = 0
        self.began = time.monotonic()
        self.looked: float | None = None  # seconds; the first look, which compiles, does not count

    def __enter__(self) -> "Monitors":
        """Starts them."""
        for feed in self.feeds:
            feed.start()
        return self

    def epoch(self, history: list[dict[str, Any]]) -> None:
        """Tells of the records that are new in a history; the training goes on at once."""
        new, self.sent = history[self.sent :], len(history)
        for feed in self.feeds:
            for record in new:
                feed.give("log", record)
        lookers = [feed for feed in self.feeds if feed.looks and feed.is_alive()]
        now = time.monotonic()
        spent = self.looked or 0.0
        if new and lookers and self.probe is not None and spent <= SHARE * (now - self.began):
            try:
                snapshot = self.probe.look()
                self.looked = 0.0 if self.looked is None else spent + time.monotonic() - now
            except Exception as error:
                self.probe = None
                print(f"warning: monitors see no weights and no predictions: {redact(str(error))}")
                return
            for feed in lookers:
                feed.give("look", new[-1]["epoch"], snapshot)

    def __exit__(self, kind: Any, *_: Any) -> None:
        """Says how it ended, and waits a little."""
        until = time.monotonic() + WAIT
        for feed in self.feeds:
            feed.give("end", "failed" if kind else "finished")
        for feed in self.feeds:
            feed.join(max(0.0, until - time.monotonic()))
            if feed.is_alive():
                feed.say(f"has taken {feed.delivered} of {feed.given} epochs so far and is not waited for")


def start(
    settings: params.Params,
    model: "keras.Model",
    objective: ModuleType,
    batches: prepared.Batches,
    classes: list[str] | None,
) -> Monitors:
    """Returns the monitors of `monitors`.

    Args:
        settings: params.yaml.
        model: The compiled network.
        objective: A file of src/objectives.
        batches: Of the validation split, whose first examples they are shown.
        classes: The class names, None where labels are numbers.
    """
    lines: list[str] = []
    model.summary(line_length=100, print_fn=lambda line, **_: lines.append(str(line)))
    belongs = json.dumps(checkpoint.owner(settings), sort_keys=True)
    run = Run(
        name=datetime.now().strftime("%Y-%m-%dT%H-%M-%S"),
        parameters=flatten(settings.model_dump(mode="json", exclude={"gates", "report", "monitors"})),
        network="\n".join(lines),
        weights=model.count_params(),
        classes=classes,
        commit=command.commit(),
    )
    if not checkpoint.PATH.exists():  # nothing goes on: what is there is left from a training that failed
        for name in settings.monitors:
            (FOLDER / f"{name}.json").unlink(missing_ok=True)
    digest = hashlib.sha256(belongs.encode()).hexdigest()
    return Monitors(dict(settings.monitors), run, digest, Probe(model, objective, batches, classes))


def flatten(content: Any, key: str = "") -> dict[str, Any]:
    """Returns {"fit": {"seed": 0}} as {"fit.seed": 0}; lists stay whole."""
    if not isinstance(content, dict):
        return {key: content}
    parts = [flatten(value, f"{key}.{name}" if key else str(name)) for name, value in content.items()]
    return {name: value for part in parts for name, value in part.items()}


def redact(text: str) -> str:
    """Returns text on one line, without the passwords that stand in it or in the environment."""
    text = " ".join(text.split())
    secrets = {value for name, value in os.environ.items() if SECRET.search(name) and len(value) > 5}
    for value in [text, *os.environ.values()]:
        secrets |= set(re.findall(r"://[^/\s:@]*:([^/\s@]+)@", value))
    text = re.sub(r"://[^/\s@]+@", "://***@", text)
    for secret in sorted(secrets | {unquote(each) for each in secrets}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text if len(text) < 300 else f"{text[:299]}…"

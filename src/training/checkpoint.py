"""Checkpoints: all that continues a training exactly where it was, in one file, written whole or not at all.

build/checkpoint.npz, which no stage of DVC owns, so that `dvc repro` deletes nothing: the variables of
model, optimizer and metrics (states of random numbers included), the best weights so far, the history, and
what the checkpoint belongs to: parameters, code, data, versions. It is gone when the training has ended.
"""

import hashlib
import io
import json
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src import params, prepared
from src.errors import UserError, differences, said
from src.files import replacing, sha256

if TYPE_CHECKING:
    import keras

PATH = Path("build/checkpoint.npz")
TERMINATED = 128 + signal.SIGTERM  # the exit status of a process that it ended, as shells have it


@dataclass
class Progress:
    """Where a training stands, beside the variables of model, optimizer and metrics.

    Args:
        epoch: Epochs that are finished.
        step: Steps done of the one that has begun.
        history: A record for each finished epoch.
        best_loss: The lowest validation loss so far.
        waited: Epochs since then.
        best_weights: Those of that epoch.
        phase: 1 once `fit.fine_tune` has begun.
        thaw: Whether it begins next.
        batch_size: What `fit.batch_size: auto` was found to be.
        ended: Whether there is nothing left to train.
        examined: What the doctor saw in the network (src/train/doctor.py).
    """

    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_loss: float | None = None
    waited: int = 0
    best_weights: list[np.ndarray] = field(default_factory=list)
    phase: int = 0
    thaw: bool = False
    batch_size: int = 0
    ended: bool = False
    examined: list[dict[str, Any]] = field(default_factory=list)


class Keeper:
    """Writes checkpoints as often as `fit.checkpoint_every` says, and finds the one to go on from.

    Args:
        model: The compiled network.
        fit: The `fit:` section.
        belongs: What the checkpoints belong to, as `owner` says it.
        enter: Puts the network into a phase from 1 on, before its variables are read.
    """

    def __init__(
        self,
        model: "keras.Model",
        fit: params.Fit,
        belongs: dict[str, Any],
        enter: Callable[[int], None] = lambda phase: None,
    ) -> None:
        self.model = model
        self.enter = enter
        self.every = fit.checkpoint_every
        self.belongs = belongs
        self.last = time.monotonic()
        self.leaving = False  # whether the process is to end with the next one
        self.progress = Progress()  # of the training, which changes it

    def due(self, progress: Progress) -> bool:
        """Whether it is time for the next one, at the end of a step or of an epoch."""
        if self.leaving:
            return True
        if self.every.minutes is not None:
            return time.monotonic() - self.last >= 60 * self.every.minutes
        return progress.step == 0 and progress.epoch % self.every.epochs == 0

    def write(self, progress: Progress) -> None:
        """Writes a checkpoint; a full disk is said and ends nothing.

        Raises:
            SystemExit: If the process is to end with it, with the status of one that SIGTERM ended.
        """
        arrays: dict[str, Any] = {
            f"variable_{number}": np.asarray(each) for number, each in enumerate(self._variables())
        }
        arrays |= {f"best_{number}": weight for number, weight in enumerate(progress.best_weights)}
        state = {**vars(progress), "best_weights": len(progress.best_weights)}
        content = json.dumps({"belongs": self.belongs, "progress": state})
        arrays["meta"] = np.frombuffer(content.encode(), np.uint8)
        try:
            with replacing(PATH) as temporary, open(temporary, "wb") as file:
                np.savez(file, **arrays)
        except UserError as error:
            print(f"warning: no checkpoint: {error}")
        self.last = time.monotonic()
        if self.leaving:
            print(
                f"ended by SIGTERM after epoch {progress.epoch}, step {progress.step}; {PATH} goes on there"
            )
            sys.exit(TERMINATED)

    def begin(self, measure: Callable[[], None]) -> Progress:
        """Puts model, optimizer and metrics where the last checkpoint has them.

        Args:
            measure: Makes the variables of optimizer and metrics, once the network is compiled.

        Returns:
            What `progress` is from then on: where the training goes on.
        """
        measure()
        self.progress = self._read(measure)
        return self.progress

    def _read(self, measure: Callable[[], None]) -> Progress:
        """Reads the last checkpoint.

        Returns:
            Where the training goes on; the beginning where there is no checkpoint that belongs to it.
        """
        if not PATH.exists():
            return Progress()
        try:
            with np.load(io.BytesIO(PATH.read_bytes()), allow_pickle=False) as arrays:
                meta = json.loads(arrays["meta"].tobytes())
                saved = meta["progress"]
                best = [arrays[f"best_{number}"] for number in range(saved["best_weights"])]
                other = _differences(meta["belongs"], self.belongs)
                if not other:
                    count = sum(name.startswith("variable_") for name in arrays.files)
                    values = [arrays[f"variable_{number}"] for number in range(count)]
                    if saved["phase"]:
                        self.enter(saved["phase"])
                        measure()
                    variables = self._variables()
                    if [tuple(variable.shape) for variable in variables] != [each.shape for each in values]:
                        raise ValueError("variables of other shapes")
                    for variable, value in zip(variables, values, strict=True):
                        variable.assign(value)
                    progress = Progress(**{**saved, "best_weights": best})
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            print(f"{PATH}: cannot be read ({reason}); the training starts afresh")
            return Progress()
        if other:
            print(f"{PATH}: belongs to another training, {other}; this one starts afresh")
            return Progress()
        print(f"{PATH}: goes on after epoch {progress.epoch}, step {progress.step}")
        return progress

    def _variables(self) -> list[Any]:
        return [*self.model.variables, *self.model.optimizer.variables, *self.model.metrics_variables]


def saved_batch_size(belongs: dict[str, Any]) -> int:
    """Returns the batch size that a checkpoint of this training was made with; 0 where there is none."""
    try:
        with np.load(PATH, allow_pickle=False) as arrays:
            meta = json.loads(arrays["meta"].tobytes())
        return 0 if _differences(meta["belongs"], belongs) else int(meta["progress"]["batch_size"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return 0


def owner(settings: params.Params) -> dict[str, Any]:
    """Returns what a checkpoint belongs to: parameters, code, data and versions, as JSON.

    Who watches is no part of it: a monitor can be added or mended without losing the checkpoint.
    """
    import keras
    import tensorflow as tf

    root = Path(__file__).parent
    modules = [
        Path(found) for module in list(sys.modules.values()) if (found := getattr(module, "__file__", None))
    ]
    watchers = root / "monitors"
    code = sorted(path for path in modules if path.is_relative_to(root) and watchers not in path.parents)
    digests = "".join(sha256(path) for path in code)
    fit = settings.fit.model_dump(mode="json", exclude={"checkpoint_every"})
    data = [sha256(prepared.FOLDER / name) for name in ("data.json", "encoder.json")]
    return {
        "parameters": {
            "architecture": settings.architecture,
            "model": settings.model.model_dump(mode="json"),
            "fit": fit,
        },
        "code": hashlib.sha256(digests.encode()).hexdigest(),
        "data": "".join(data),
        "versions": {"keras": keras.version(), "tensorflow": tf.__version__, "numpy": np.__version__},
    }


def _differences(theirs: Any, ours: Any) -> str:
    """Says the first thing in which two owners differ; empty if there is none."""
    found = next(differences(ours, theirs), None)
    if found is None:
        return ""
    key, our, their = found
    if key in ("code", "data"):
        return f"of other {key}"
    name = key.removeprefix("parameters.").removeprefix("versions.")
    return f"whose {name} is {said(their)} and not {said(our)}"

"""Keras on TensorFlow: started quietly, seeded; models saved as the same bytes, loaded in safe mode."""

import importlib.util
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src import confined
from src.errors import UserError
from src.files import replacing, sha256
from src.scan import SAFE, scan

if TYPE_CHECKING:
    import keras

UNUSED = ("matplotlib", "sklearn")  # a quarter of Keras' start: its wrappers and galleries want them
# What loading a foreign model may take, beyond Keras itself: bytes, bytes for each byte of the file, seconds
# of computing. The weights' file is read into memory, and each weight is drawn before it is read.
MEMORY, MEMORY_RATIO, SECONDS = 1 << 30, 8, 120

_known: set[str] = set()  # SHA-256 of models that this process has saved, or found to load


def start(seed: int = 0, deterministic: bool = True) -> None:
    """Imports Keras and TensorFlow, which takes seconds, and fixes what is random about them.

    Layers are numbered from 1 again, as in a new process: their names are a part of a saved model's bytes.

    Args:
        seed: Of Python's, NumPy's and TensorFlow's random numbers.
        deterministic: Whether every operation must give the same bytes on the same machine.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _silenced(), _without(*UNUSED):
        import keras
        import tensorflow as tf
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    if deterministic:
        tf.config.experimental.enable_op_determinism()


def place(device: str) -> Any:
    """Chooses what Keras computes on; call it before anything is computed.

    Args:
        device: `auto`, the first GPU where there is one; `cpu`; `gpu`, the first one; `gpu:1`, that one;
            `gpu:0,1` or `gpus`, several, which share each batch (tf.distribute.MirroredStrategy).

    Returns:
        The `tf.distribute.Strategy` in whose scope networks are built, compiled and trained.

    Raises:
        UserError: If there is no such GPU.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    kind, _, numbers = device.partition(":")
    if device == "auto":
        kind = "gpu" if gpus else "cpu"
    if kind == "cpu":
        if gpus:
            tf.config.set_visible_devices([], "GPU")
        names = [f"CPU:{number}" for number in numbers.split(",")]
    else:
        wanted = [int(number) for number in numbers.split(",")] if numbers else [0]
        if kind == "gpus":
            wanted = list(range(max(1, len(gpus))))
        if max(wanted) >= len(gpus):
            found = f"TensorFlow finds {len(gpus)} GPUs" if gpus else "TensorFlow finds no GPU here"
            raise UserError(f"params.yaml: fit.device: found {device!r}, but {found}; expected auto or cpu")
        tf.config.set_visible_devices([gpus[number] for number in wanted], "GPU")
        for number in wanted:
            tf.config.experimental.set_memory_growth(gpus[number], True)  # not all of its memory at once
        names = [f"GPU:{number}" for number in range(len(wanted))]
    return tf.distribute.MirroredStrategy(names) if len(names) > 1 else tf.distribute.get_strategy()


def copy(model: "keras.Model") -> "keras.Model":
    """Returns the same network, with the same names and weights, on one device."""
    import keras

    copied = keras.models.clone_model(model)
    copied.set_weights(model.get_weights())
    return copied


def compute_in(precision: str) -> None:
    """Sets what layers that are built from now on compute in; their weights stay in 32 bits."""
    import keras

    keras.config.set_dtype_policy(precision)


@contextmanager
def unchanged(model: "keras.Model") -> Iterator[None]:
    """Puts back the states of a network's random numbers: recurrent layers draw some even to predict."""
    states = [variable for variable in model.variables if "int" in variable.dtype]
    before = [np.asarray(state).copy() for state in states]
    yield
    for state, value in zip(states, before, strict=True):
        state.assign(value)


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Hides packages that are not imported yet from those that import them only if they are there."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: an ImportError
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextmanager
def _silenced() -> Iterator[None]:
    """Drops what native code writes to standard error: TensorFlow greets before it obeys its log level."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


# ── Loading ────────────────────────────────────────────────────────────────────────────────────────────────
# A model of this repository's own is loaded as it is: src/models, and a baseline by the dvc.lock of a commit.
# One that is foreign, for a person says where it is, is first tried in a process with limits (`vet`):
# transfer's backbone, what --keras runs from elsewhere than src/models, and a baseline that is a folder.


def load(path: Path, foreign: bool = False) -> "keras.Model":
    """Loads a model in safe mode, with Keras freshly started.

    Args:
        path: Of the .keras file.
        foreign: Whether it is not known to be of this repository's own; seconds longer.

    Raises:
        UserError: If the file is missing or is no such model.
    """
    if not path.exists():
        raise UserError(f"{path}: not found; run `dvc repro`, which makes it")
    if foreign:
        vet(path)
    start()
    return read(path)


def read(path: Path, foreign: bool = False) -> "keras.Model":
    """Loads a model in safe mode, that is, runs no code that the file might carry; it is scanned before.

    Unlike `load`, it leaves seeds and the numbering of layers as they are: a network may be built around it.

    Args:
        path: Of the .keras file.
        foreign: Whether it is not known to be of this repository's own; seconds longer.

    Raises:
        UserError: If the file is no such model.
    """
    import keras

    if foreign:
        vet(path)
    scan(path)
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        if not isinstance(model, keras.Model) or len(model.inputs or ()) != 1 or len(model.outputs) != 1:
            raise ValueError("no network of one input and one output")
        return model
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"{path}: expected {SAFE}, found: {reason}") from None


def vet(path: Path) -> None:
    """Checks that a model can be loaded, in a process whose memory and time are limited; once for a content.

    Raises:
        UserError: If it cannot, or would not end, or needs more than a model of its size.
        ModuleNotFoundError: If what loads a model is not installed, which is not the model's fault.
    """
    for name in ("keras", "tensorflow", "h5py"):
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    digest = sha256(path)
    if digest in _known:
        return
    reason = confined.run("src.engine", "try_out", path)
    if reason:
        known = reason.startswith(f"{path}: expected ")
        raise UserError(reason if known else f"{path}: expected {SAFE}, found: {reason}")
    _known.add(digest)


def try_out(path: Path) -> None:
    """Loads a model within limits: what `vet` does in a process of its own."""
    memory = MEMORY + MEMORY_RATIO * path.stat().st_size
    confined.limit(memory, SECONDS)
    scan(path)  # before Keras: reading HDF5 alone can end a process
    confined.lift()
    start()
    confined.limit(memory, SECONDS)
    read(path)


def save(model: "keras.Model", path: Path) -> None:
    """Saves the network and its weights, without the optimizer, as the same bytes for the same weights.

    A .keras file is a zip archive that differs from save to save only in the date in its metadata.json,
    in the ids of shared objects in its config.json, which are memory addresses, and in the members'
    times; all are fixed here.

    Raises:
        UserError: If the disk is full; `path` is then what it was.
    """
    import keras

    uncompiled = keras.Model(model.inputs, model.outputs, name=model.name)
    with replacing(path) as temporary:
        raw = temporary.with_name("raw.keras")
        uncompiled.save(raw)
        with zipfile.ZipFile(raw) as source, zipfile.ZipFile(temporary, "w") as target:
            for name in sorted(source.namelist()):
                content = source.read(name)
                if name == "metadata.json":
                    content = f'{{"keras_version": "{keras.version()}", "date_saved": ""}}'.encode()
                if name == "config.json":
                    content = _numbered(content)
                target.writestr(zipfile.ZipInfo(name), content)
    _known.add(sha256(path))


def _numbered(config: bytes) -> bytes:
    """Numbers the shared objects of a Keras configuration in the order in which they first appear."""
    numbers: dict[bytes, int] = {}

    def number(found: re.Match[bytes]) -> bytes:
        return found[1] + str(numbers.setdefault(found[2], len(numbers) + 1)).encode()

    return re.sub(rb'("shared_object_id": )(\d+)', number, config)

"""A .keras file that could do harm is refused before Keras sees it, with a reason and without a trace."""

import io
import json
import os
import resource
import shutil
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from src import confined, engine
from src.errors import UserError
from src.scan import CONFIG, WEIGHTS, scan

FILES = ("datasets/backbones/fashion-8.keras",)


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """A small network as Keras itself saves it, with many kinds of layers and a compiled loss."""
    engine.start()
    import keras

    inputs = keras.Input((8, 8, 1), dtype="uint8")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(0.1))(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.ops.where(x[:, ::2] > 0.5, x[:, ::2], 0.0)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(3, activation=keras.activations.softmax)(x)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(), keras.losses.CategoricalCrossentropy(), metrics=["accuracy"])
    path = tmp_path_factory.mktemp("good") / "model.keras"
    model.save(path)
    return path


def rewritten(good: Path, path: Path, changes: dict[str, bytes | None], kind=zipfile.ZIP_STORED) -> Path:
    """Writes the good archive with members changed, added, or (None) left out."""
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(path, "w", kind) as target:
        members = {name: source.read(name) for name in source.namelist()}
        for name, content in (members | changes).items():
            if content is not None:
                target.writestr(name, content)
    return path


def config_of(good: Path) -> dict[str, Any]:
    with zipfile.ZipFile(good) as archive:
        config: dict[str, Any] = json.loads(archive.read(CONFIG))
    return config


def refused(path: Path) -> str:
    with pytest.raises(UserError) as error:
        scan(path)
    assert str(error.value).startswith(f"{path}: expected a Keras model that loads in safe mode, found: ")
    return str(error.value)


def test_what_keras_saves_passes(good, root):
    scan(good)
    for name in FILES:
        scan(root / name)


def test_a_model_that_passes_is_loaded(good):
    assert engine.read(good).output_shape == (None, 3)


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil", "assets/vocabulary.txt", "model.py"])
def test_a_member_that_keras_does_not_write_is_refused(good, tmp_path, name):
    assert f"the member {name!r}" in refused(rewritten(good, tmp_path / "m.keras", {name: b"x"}))


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_member_that_is_missing_is_said(good, tmp_path, name):
    assert f"no member {name}" in refused(rewritten(good, tmp_path / "m.keras", {name: None}))


def test_a_member_that_is_there_twice_is_refused(good, tmp_path):
    path = rewritten(good, tmp_path / "m.keras", {})
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(CONFIG, b"{}")
    assert f"the member {CONFIG!r} twice" in refused(path)


def test_a_bomb_is_refused(good, tmp_path):
    path = rewritten(good, tmp_path / "m.keras", {WEIGHTS: bytes(80 << 20)}, zipfile.ZIP_DEFLATED)
    assert "bytes packed into" in refused(path)


def test_half_an_archive_is_refused(good, tmp_path):
    path = tmp_path / "m.keras"
    path.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    assert "no whole zip archive" in refused(path)


def test_a_changed_byte_is_found(good, tmp_path):
    content = bytearray(good.read_bytes())
    content[content.index(b"class_name")] ^= 1
    (tmp_path / "m.keras").write_bytes(content)
    assert "no whole zip archive (Bad CRC-32" in refused(tmp_path / "m.keras")


LAMBDA: dict[str, Any] = {
    "module": "keras.layers",
    "class_name": "Lambda",
    "config": {},
    "registered_name": None,
}


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (LAMBDA, "a layer Lambda: it holds code"),
        (LAMBDA | {"class_name": "TFSMLayer"}, "a layer TFSMLayer: it runs a TensorFlow program"),
        (LAMBDA | {"class_name": "TorchModuleWrapper"}, "a layer TorchModuleWrapper: it unpickles"),
        (LAMBDA | {"module": "os", "class_name": "system"}, "the class 'system' of 'os'"),
        (
            LAMBDA | {"module": "keras.utils", "class_name": "get_file"},
            "the class 'get_file' of 'keras.utils'",
        ),
        (
            LAMBDA | {"module": "keras.layersevil", "class_name": "Dense"},
            "the class 'Dense' of 'keras.layersevil'",
        ),
        (
            LAMBDA | {"module": "keras.models", "class_name": "function", "config": "load_model"},
            "the function 'load_model' of 'keras.models'",
        ),
        (LAMBDA | {"module": "builtins", "class_name": "function", "config": "exec"}, "the function 'exec'"),
        (LAMBDA | {"module": None, "class_name": "__lambda__"}, "the class '__lambda__' of None"),
        (
            LAMBDA | {"class_name": "Dense", "registered_name": "Evil>Dense"},
            "the registered class 'Evil>Dense'",
        ),
        (
            LAMBDA | {"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}},
            "the file '/etc/passwd' as vocabulary of a layer",
        ),
        (LAMBDA | {"class_name": 3}, "a class that is no name: 3"),
    ],
)
def test_a_class_that_does_more_than_compute_is_refused(good, tmp_path, node, reason):
    config = config_of(good)
    config["config"]["layers"][2]["config"]["activation"] = node
    path = rewritten(good, tmp_path / "m.keras", {CONFIG: json.dumps(config).encode()})
    assert reason in refused(path)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{", b"\xff\xfe"])
def test_a_configuration_that_is_none_is_refused(good, tmp_path, content):
    refused(rewritten(good, tmp_path / "m.keras", {CONFIG: content}))


def test_a_configuration_of_endless_depth_is_refused(good, tmp_path):
    deep = b'{"a":' * 500 + b"1" + b"}" * 500
    assert "deep in config.json" in refused(rewritten(good, tmp_path / "m.keras", {CONFIG: deep}))


def weights(change: Any) -> bytes:
    """Returns HDF5 with one weight, after a change."""
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["layers/dense/vars/0"] = np.ones(64, np.float32)
        change(file)
    return content.getvalue()


def link_outside(file):
    file["layers/dense/vars/1"] = h5py.ExternalLink("/etc/passwd", "/secret")


def link_inside(file):
    file["layers/dense/vars/1"] = h5py.SoftLink("/layers")


def data_outside(file):
    file.create_dataset("layers/dense/vars/1", (64,), "uint8", external=[("/etc/passwd", 0, 64)])


def virtual(file):
    layout = h5py.VirtualLayout((64,), "f4")
    layout[:] = h5py.VirtualSource("/tmp/other.h5", "data", (64,))
    file.create_virtual_dataset("layers/dense/vars/1", layout)


def circle(file):
    file["layers/dense/again"] = file["layers"]


def bomb(file):
    file.create_dataset("layers/dense/vars/1", data=np.zeros(16 << 20, np.float32), compression="gzip")


def huge(file):
    file.create_dataset("layers/dense/vars/1", (1 << 40,), "float32", chunks=(1024,), compression="gzip")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (link_outside, "a link to elsewhere, /layers/dense/vars/1"),
        (link_inside, "a link to elsewhere, /layers/dense/vars/1"),
        (data_outside, "data of another file, /layers/dense/vars/1"),
        (virtual, "data of another file, /layers/dense/vars/1"),
        (circle, "twice in model.weights.h5"),
        (bomb, "weights of 67,109,120 bytes in "),
        (huge, "weights of 4,398,046,511,"),
    ],
)
def test_weights_that_are_not_in_the_file_are_refused(good, tmp_path, change, reason):
    path = rewritten(good, tmp_path / "m.keras", {WEIGHTS: weights(change)})
    assert reason in refused(path)


def test_weights_that_are_no_hdf5_are_refused(good, tmp_path):
    assert "what cannot be read" in refused(
        rewritten(good, tmp_path / "m.keras", {WEIGHTS: os.urandom(2000)})
    )


def test_damaged_weights_are_never_more_than_a_reason(good, tmp_path):
    random = np.random.default_rng(0)
    with zipfile.ZipFile(good) as archive:
        whole = archive.read(WEIGHTS)
    reasons: set[str] = set()
    for _ in range(200):
        content = bytearray(whole)
        for position in random.integers(min(len(whole), 6000), size=20).tolist():
            content[position] = int(random.choice(np.array([0, 255, random.integers(256)])))
        path = rewritten(good, tmp_path / "m.keras", {WEIGHTS: bytes(content)})
        try:
            scan(path)
        except UserError as error:
            reasons.add(str(error))
    assert len(reasons) > 10
    assert not any("\n" in reason for reason in reasons)


def test_an_encrypted_member_is_refused(good, tmp_path):
    content = bytearray(good.read_bytes())
    content[content.index(b"PK\1\2") + 8] |= 1  # the first member's flags, in the central directory
    (tmp_path / "m.keras").write_bytes(content)
    assert "the encrypted member" in refused(tmp_path / "m.keras")


def hostile(good: Path, folder: Path) -> list[Path]:
    """Writes a file of each kind that does harm, or would."""
    config = config_of(good)
    config["config"]["layers"][2]["config"]["activation"] = LAMBDA
    members: dict[str, dict[str, bytes | None]] = {
        "traversal": {"../evil.txt": b"x"},
        "absolute": {str(folder / "evil.txt"): b"x"},
        "lambda": {CONFIG: json.dumps(config).encode()},
        "deep": {CONFIG: b'{"a":' * 500 + b"1" + b"}" * 500},
        "zipped": {WEIGHTS: bytes(80 << 20)},
        "noise": {WEIGHTS: os.urandom(2000)},
        "none": {WEIGHTS: None},
    }
    changes = (link_outside, link_inside, data_outside, virtual, circle, bomb, huge)
    members |= {change.__name__: {WEIGHTS: weights(change)} for change in changes}
    return [
        rewritten(good, folder / f"{name}.keras", each, zipfile.ZIP_DEFLATED)
        for name, each in members.items()
    ]


def test_what_is_refused_leaves_no_trace_and_takes_no_memory(good, tmp_path, monkeypatch):
    (tmp_path / "files").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    paths = hostile(good, tmp_path / "files")
    before = {path: path.read_bytes() for path in paths}
    tracemalloc.start()
    for path in paths:
        refused(path)
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()
    assert {path: path.read_bytes() for path in (tmp_path / "files").iterdir()} == before
    assert {path.name for path in tmp_path.rglob("*")} == {"files", "here", *(path.name for path in paths)}


def test_keras_never_sees_what_is_refused(good, tmp_path):
    path = next(path for path in hostile(good, tmp_path) if path.name == "lambda.keras")
    with pytest.raises(UserError, match="a layer Lambda: it holds code"):
        engine.read(path)


# ── A process with limits ──────────────────────────────────────────────────────────────────────────────────


def vetted(path: Path) -> str:
    """Returns why a process with limits does not load a file."""
    before = {each: each.read_bytes() for each in path.parent.iterdir()}
    with pytest.raises(UserError) as error:
        engine.vet(path)
    assert {each: each.read_bytes() for each in path.parent.iterdir()} == before
    message = str(error.value)
    assert message.startswith(f"{path}: expected a Keras model that loads in safe mode, found: ")
    assert "\n" not in message
    return message


def test_what_is_refused_is_refused_before_keras_is_started_for_it(good, tmp_path):
    path = rewritten(good, tmp_path / "m.keras", {"../evil.txt": b"x"})
    started = os.times().children_user
    assert "the member '../evil.txt'" in vetted(path)
    assert os.times().children_user - started < 2  # Keras alone takes three


def billion(good: Path, path: Path) -> Path:
    """Writes a network whose last layer has a billion units, though the file has weights for three."""
    config = config_of(good)
    config["config"]["layers"][-1]["config"]["units"] = 10**9
    return rewritten(good, path, {CONFIG: json.dumps(config).encode()})


def test_a_network_that_would_fill_the_memory_ends_only_the_process_that_tries_it(good, tmp_path):
    path = billion(good, tmp_path / "m.keras")
    scan(path)  # nothing is wrong with what it looks like
    assert "it needs more memory than there is room for" in vetted(path)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10
    assert peak < 4 << 30  # of 16 GB that the layer would take


def test_a_model_of_our_own_is_not_tried_in_another_process(good):
    started = os.times().children_user
    assert engine.load(good).output_shape == (None, 3)
    assert os.times().children_user == started


@pytest.mark.slow
def test_a_network_that_would_compute_for_ever_ends_only_the_process_that_tries_it(tmp_path, monkeypatch):
    import keras

    monkeypatch.syspath_prepend(tmp_path / "patience")
    (tmp_path / "patience").mkdir()
    (tmp_path / "patience/patience.py").write_text(
        "from src import engine\ndef try_out(path):\n    engine.SECONDS = 2\n    engine.try_out(path)\n"
    )
    inputs = keras.Input((8,))
    (tmp_path / "file").mkdir()
    keras.Model(inputs, keras.layers.Dense(8)(inputs)).save(tmp_path / "file/small.keras")
    config = config_of(tmp_path / "file/small.keras")
    orthogonal = {"class_name": "Orthogonal", "config": {"gain": 1.0, "seed": None}}  # takes n³ for n units
    config["config"]["layers"][1]["config"]["kernel_initializer"] |= orthogonal
    text = json.dumps(config).replace("[null, 8]", "[null, 4000]").replace('"units": 8', '"units": 4000')
    path = rewritten(tmp_path / "file/small.keras", tmp_path / "file/m.keras", {CONFIG: text.encode()})
    assert confined.run("patience", "try_out", path) == "it computes for longer than it may"


@pytest.mark.slow
def test_a_model_that_passes_is_tried_once_for_its_content(good, tmp_path):
    shutil.copyfile(good, tmp_path / "copy.keras")
    started = os.times().children_user
    assert engine.load(good, foreign=True).output_shape == (None, 3)
    assert os.times().children_user > started + 1
    started = os.times().children_user
    engine.vet(tmp_path / "copy.keras")
    assert os.times().children_user == started

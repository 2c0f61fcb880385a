"""A .keras file that could do harm is refused before Keras sees it, with a reason and without a trace."""

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from src import engine
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


def test_nothing_is_left_behind_by_what_is_refused(good, tmp_path):
    path = rewritten(good, tmp_path / "m.keras", {"../evil.txt": b"x"})
    refused(path)
    assert [each.name for each in tmp_path.iterdir()] == ["m.keras"]
    assert not (tmp_path.parent / "evil.txt").exists()


def test_keras_never_sees_what_is_refused(good, tmp_path):
    config = config_of(good)
    config["config"]["layers"][2]["config"]["activation"] = LAMBDA
    path = rewritten(good, tmp_path / "m.keras", {CONFIG: json.dumps(config).encode()})
    with pytest.raises(UserError, match="a layer Lambda: it holds code"):
        engine.read(path)

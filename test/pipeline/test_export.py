"""The ONNX file: the same predictions as Keras, the same bytes every time, or no file."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest

from src import conversion, engine, objectives
from src.architectures import cnn
from src.errors import UserError
from src.evaluate import export
from src.files import sha256
from src.network import Frame, Input, Output
from src.objectives import classification
from src.prepared import Split

CLASSES = ["flower", "portrait", "temple"]


@pytest.fixture(scope="module")
def images(photograph) -> np.ndarray:
    """Forty grey pictures, (40, 16, 16, 1) uint8."""
    pictures = [photograph(CLASSES[number % 3], number).convert("L").resize((16, 16)) for number in range(40)]
    return np.stack([np.asarray(picture) for picture in pictures])[..., None]


@pytest.fixture(scope="module")
def network():
    """A convolutional network with weights as Keras draws them, statistics of normalisation included."""
    engine.start(seed=7)
    frame = Frame(Input((16, 16, 1), "uint8", [{"Rescaling": {"scale": 1 / 255}}]), Output(3, "softmax"))
    model = cnn.build(frame, cnn.Options(filters=[4, 8]))
    draw = np.random.default_rng(7)
    model.set_weights([draw.uniform(0.1, 0.5, weight.shape) for weight in model.get_weights()])
    return model


@pytest.fixture
def prepared(workspace, images, network) -> Path:
    """A repository after `fit`: a model and a test split."""
    write_split(images)
    engine.save(network, Path("src/models/model.keras"))
    return workspace


def write_split(inputs: np.ndarray) -> None:
    folder = Path("build/prepared/test")
    folder.mkdir(parents=True)
    np.save(folder / "inputs.npy", inputs)
    np.save(folder / "labels.npy", np.arange(len(inputs)) % 3)
    names = [CLASSES[number % 3] for number in range(len(inputs))]
    ids = [f"photos/{number}.png" for number in range(len(inputs))]
    pd.DataFrame({"id": ids, "label": names}).to_parquet(folder / "table.parquet")
    content = {"objective": objectives.infer(pd.Series(names)), "names": CLASSES}
    Path("build/prepared/data.json").write_text(json.dumps(content))
    Path("build/prepared/test/golden.json").write_text(json.dumps([{"id": ids[3], "input": {"text": "raw"}}]))


def test_the_onnx_file_predicts_as_keras_does_on_batches_of_any_size(prepared, images, network, capsys):
    export.main()
    assert "on 40 test examples" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(export.ONNX, providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    assert (taken.name, taken.type, taken.shape) == ("input", "tensor(uint8)", ["batch", 16, 16, 1])
    expected = network.predict(images, verbose=0)
    assert np.ptp(expected, axis=0).max() > 0.01  # the outputs depend on the input
    for size in (1, 7, 40):
        (found,) = session.run(["output"], {"input": images[:size]})
        np.testing.assert_allclose(found, expected[:size], atol=1e-5)


def test_two_exports_of_one_model_have_the_same_bytes(prepared):
    export.main()
    first = sha256(export.ONNX)
    export.main()  # Keras' counters of names have moved on
    assert sha256(export.ONNX) == first


def test_neither_names_nor_the_order_of_nodes_change_the_bytes(prepared):
    export.main()
    expected = export.ONNX.read_bytes()
    model = onnx.load_from_string(expected)
    names = {name for node in model.graph.node for name in [*node.input, *node.output]}
    names |= {value.name for value in [*model.graph.input, *model.graph.output]}
    other = {name: f"x{number}" for number, name in enumerate(sorted(names))}
    conversion._rename(model.graph, {"": "", **other})
    conversion._replace(model.graph.node, list(model.graph.node)[::-1])
    conversion._replace(model.graph.initializer, list(model.graph.initializer)[::-1])
    model.graph.doc_string = "exported on a Sunday"
    model.metadata_props.add(key="date", value="Sunday")
    assert model.SerializeToString(deterministic=True) != expected
    conversion.normalise(model)
    assert model.SerializeToString(deterministic=True) == expected


@pytest.mark.slow
def test_a_recurrent_network_with_graphs_inside_its_nodes_is_exported_the_same_way_twice(workspace):
    engine.start(seed=3)
    import keras

    inputs = keras.Input((None, 4))
    state = keras.layers.GRU(5)(inputs)
    engine.save(keras.Model(inputs, keras.layers.Dense(3)(state)), Path("src/models/model.keras"))
    series = np.random.default_rng(3).normal(size=(12, 6, 4)).astype("float32")
    exported = []
    for _ in range(2):
        model = engine.load(export.KERAS)
        conversion.convert(model, Path("model.onnx"))
        exported.append(sha256("model.onnx"))
    assert exported[0] == exported[1]
    for length in (6, 2):
        found = export.run(Path("model.onnx"), series[:, :length])
        np.testing.assert_allclose(found, model.predict(series[:, :length], verbose=0), atol=1e-5)


def test_a_disagreement_is_an_error_and_leaves_no_file(prepared, monkeypatch, fails):
    export.main()
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    code, message = fails(export.main)
    assert code == 1
    assert "model.onnx: not written: for photos/" in message
    assert not export.ONNX.exists()
    assert [path.name for path in Path("src/models").iterdir()] == ["model.keras"]


def test_outputs_that_are_too_far_apart_or_no_numbers_are_named(prepared):
    expected = np.full((40, 3), 1 / 3, "float32")
    for wrong in (0.3339, np.nan):
        found = expected.copy()
        found[17, 1] = wrong
        with pytest.raises(UserError, match=r"for photos/17\.png ONNX Runtime's output differs"):
            export.compare(expected, found, Split.open("test"), classification, CLASSES)


def test_another_predicted_class_is_an_error_however_close_the_outputs_are(prepared):
    expected = np.tile(np.array([0.40001, 0.39999, 0.2], "float32"), (40, 1))
    found = expected.copy()
    found[4] = [0.39999, 0.40001, 0.2]
    with pytest.raises(UserError, match=r"photos/4\.png is flower to Keras and portrait to ONNX Runtime"):
        export.compare(expected, found, Split.open("test"), classification, CLASSES)


def test_large_numbers_may_differ_by_their_size(prepared):
    expected = np.full((40, 1), 5e6, "float32")
    largest = export.compare(expected, expected + 100, Split.open("test"), classification, None)
    assert largest == pytest.approx(2e-5)


def test_without_a_model_the_error_says_what_makes_it(prepared, fails):
    export.KERAS.unlink()
    assert fails(export.main) == (
        1,
        "error: src/models/model.keras: not found; run `dvc repro`, which makes it",
    )

"""The convolutional network: it compiles, has the right shapes, learns, and is saved whole and the same."""

import re
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src import engine
from src.architectures import cnn
from src.architectures.cnn import Options
from src.errors import UserError
from src.files import sha256
from src.network import Frame, Input, Output

engine_started = pytest.fixture(scope="module", autouse=True)(lambda: engine.start())


def build(shape: tuple[int, ...], units: int, options: Options) -> Any:
    """A network from raw pixels to a probability for each of so many classes."""
    pixels = Input(shape, "uint8", [{"Rescaling": {"scale": 1 / 255}}])
    return cnn.build(Frame(pixels, Output(units, "softmax")), options)


SMALL = Options(filters=[8, 16], dropout=0.0)


@pytest.fixture
def batch(fashion) -> tuple[np.ndarray, np.ndarray]:
    """Sixty real images, (60, 28, 28, 1) uint8, and their classes as numbers."""
    from src.tasks.image import Encoder
    from src.tasks.image import Options as Encode

    encoder = Encoder(Encode(size=[28, 28], channels=1))
    names = sorted({row["label"] for row in fashion})
    inputs = np.stack([encoder.encode(row["image"]["bytes"]) for row in fashion])
    return inputs, np.array([names.index(row["label"]) for row in fashion])


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 48, 3), (9, 8, 3)])
def test_outputs_are_one_probability_for_each_class_whatever_the_size(shape, classes):
    model = build(shape, classes, Options())
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    assert model.input_shape == (None, *shape)
    assert model.inputs[0].dtype == "uint8"
    inputs = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    outputs = np.asarray(model(inputs))
    assert (outputs.shape, outputs.dtype) == ((3, classes), np.float32)
    assert outputs.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_every_option_changes_the_network():
    def layers(**options) -> list[str]:
        model = build((16, 16, 3), 4, Options(filters=[4, 8], **options))
        return [f"{type(layer).__name__} {layer.count_params()}" for layer in model.layers]

    changes: list[dict[str, Any]] = [
        {"kernel": 5},
        {"convolutions": 2},
        {"batch_normalization": False},
        {"dense": [8]},
        {"flatten": True},
    ]
    assert len({tuple(layers(**change)) for change in [{}, *changes]}) == 6
    assert build((16, 16, 3), 4, Options(dropout=0.5)).layers[-2].rate == 0.5


def test_pixels_are_rescaled_inside_the_model():
    model = build((8, 8, 1), 2, SMALL)
    assert type(model.layers[1]).__name__ == "Rescaling"
    assert np.asarray(model.layers[1](np.array([[255]], "uint8"))) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(7, 28, 1), (4, 4, 3), (4, 28, 28, 1)])
def test_too_small_an_image_names_the_key_and_the_size(shape):
    with pytest.raises(UserError, match=r"model\.filters: found 3 blocks.*fewer for inputs of \d+ × \d+"):
        build(shape, 2, Options())


def test_real_training_steps_lower_the_loss(batch):
    engine.start(seed=0)
    inputs, labels = batch
    model = build((28, 28, 1), 10, SMALL)
    model.compile("adam", "sparse_categorical_crossentropy")
    before = model.evaluate(inputs, labels, verbose=0)
    model.optimizer.learning_rate = 0.01
    for start in range(0, 60, 12):
        model.train_on_batch(inputs[start : start + 12], labels[start : start + 12])
    losses = [float(model.train_on_batch(inputs, labels)) for _ in range(5)]
    assert losses[-1] < losses[0] < before


def test_a_saved_and_loaded_model_predicts_the_same(batch, workspace):
    inputs, _ = batch
    model = build((28, 28, 1), 10, SMALL)
    engine.save(model, Path("models/model.keras"))
    loaded = engine.load(Path("models/model.keras"))
    assert np.array_equal(model.predict(inputs, verbose=0), loaded.predict(inputs, verbose=0))
    assert [path.name for path in Path("models").iterdir()] == ["model.keras"]


def test_the_same_weights_are_saved_as_the_same_bytes_whether_trained_or_not(workspace):
    model = build((28, 28, 1), 10, SMALL)
    engine.save(model, Path("first.keras"))
    model.compile("adam", "mse")
    engine.save(model, Path("second.keras"))
    assert sha256("second.keras") == sha256("first.keras")
    # Keras numbers shared objects by their addresses in memory, which change from process to process.
    with zipfile.ZipFile("first.keras") as archive:
        ids = re.findall(rb'"shared_object_id": (\d+)', archive.read("config.json"))
    assert set(ids) <= {b"1", b"2", b"3"}


def test_the_same_seed_gives_the_same_weights():
    def weights(seed: int) -> np.ndarray:
        engine.start(seed)
        return np.concatenate([w.ravel() for w in build((8, 8, 1), 2, SMALL).get_weights()])

    assert np.array_equal(weights(3), weights(3))
    assert not np.array_equal(weights(3), weights(4))


def test_a_full_disk_leaves_the_old_model_whole_and_nothing_else(workspace):
    model = build((28, 28, 1), 10, SMALL)
    path = Path("models/model.keras")
    engine.save(model, path)
    before = sha256(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, limits[1]))
    try:
        with pytest.raises(UserError, match=r"^models/model\.keras: cannot be written: File too large$"):
            engine.save(model, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sha256(path) == before
    assert list(Path("models").iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"not a model", None], ids=["empty", "text", "cut short"])
def test_a_file_that_is_no_model_is_one_sentence(workspace, content):
    path = Path("model.keras")
    if content is None:
        engine.save(build((8, 8, 1), 2, SMALL), path)
        content = path.read_bytes()[:-500]
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        engine.load(path)
    assert str(error.value).startswith("model.keras: expected a Keras model that loads in safe mode, found: ")
    assert "\n" not in str(error.value)


def test_a_missing_model_says_what_makes_it(workspace):
    with pytest.raises(UserError, match=r"^model\.keras: not found; run `dvc repro`, which makes it$"):
        engine.load(Path("model.keras"))


def test_a_model_that_carries_code_is_refused(workspace):
    import keras

    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save("model.keras")
    with pytest.raises(UserError, match="expected a Keras model that loads in safe mode"):
        engine.load(Path("model.keras"))

"""Transfer learning: the backbone is kept, takes what comes in, and learns only where it is let."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src import engine
from src.architectures import cnn, transfer
from src.architectures.transfer import Options
from src.conversion import convert
from src.errors import UserError
from src.evaluate.export import run
from src.files import sha256
from src.network import Frame, Input, Layers, Output
from src.tasks import image

ROOT = Path(__file__).parents[2]
BACKBONE = ROOT / "datasets/backbones/fashion-8.keras"
PIXELS: Layers = [{"Rescaling": {"scale": 1 / 255}}]

engine_started = pytest.fixture(scope="module", autouse=True)(lambda: engine.start())


def frame(shape: tuple[int, ...], units: int = 2, dtype: str = "uint8", layers: Layers = PIXELS) -> Frame:
    return Frame(Input(shape, dtype, layers), Output(units, "softmax"))


def build(shape: tuple[int, ...] = (28, 28, 1), **options: Any) -> Any:
    """A network on the backbone that comes along."""
    return transfer.build(frame(shape), Options(**{"backbone": str(BACKBONE), **options}))


@pytest.fixture(scope="module")
def images(fashion) -> np.ndarray:
    """Sixty real images, (60, 28, 28, 1) uint8."""
    encoder = image.Encoder(image.Options(size=[28, 28], channels=1))
    return np.stack([encoder.encode(row["image"]["bytes"]) for row in fashion])


@pytest.fixture(scope="module")
def shirts(fashion) -> np.ndarray:
    """Which of them is a shirt or a coat, (60,)."""
    return np.array([int(row["label"] in ("Shirt", "Coat")) for row in fashion])


@pytest.fixture(scope="module")
def colourful() -> np.ndarray:
    """Eight crops of a photograph, (8, 40, 48, 3) uint8."""
    from sklearn.datasets import load_sample_images

    flower = load_sample_images().images[1]
    return np.stack([flower[40 * row :][:40, 200:248] for row in range(8)])


def train(model: Any, inputs: np.ndarray, labels: np.ndarray, steps: int = 3) -> list[float]:
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.optimizer.learning_rate = 0.1
    return [float(model.train_on_batch(inputs, labels)) for _ in range(steps)]


def weights(model: Any) -> dict[str, np.ndarray]:
    return {each.path: np.asarray(each).copy() for each in model.get_layer("backbone").weights}


def changed(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str]:
    """The layers of a backbone that have other weights than before."""
    return {path.split("/")[-2] for path in before if not np.array_equal(before[path], after[path])}


# ── The backbone ───────────────────────────────────────────────────────────────────────────────────────


def test_only_the_new_head_learns_and_the_backbone_keeps_every_byte(images, shirts):
    model = build()
    assert [weight.path for weight in model.trainable_weights] == ["dense/kernel", "dense/bias"]
    before = weights(model)
    losses = train(model, images, shirts, 10)
    assert losses[-1] < losses[0]
    assert not changed(before, weights(model))


def test_the_backbone_gives_what_the_earlier_model_s_head_took(images):
    import keras

    earlier = engine.read(BACKBONE)
    assert earlier.output_shape == (None, 8)
    features = keras.Model(earlier.inputs[0], earlier.layers[-3].output)  # before dropout and the dense layer
    backbone = build().get_layer("backbone")
    assert np.array_equal(backbone.predict(images, verbose=0), features.predict(images, verbose=0))


@pytest.mark.parametrize("name", ["bundle", "bundle/model.keras", "other.keras"])
def test_a_backbone_is_a_file_or_a_folder_that_holds_one(workspace, name):
    Path("bundle").mkdir()
    shutil.copy(BACKBONE, "bundle/model.keras")
    shutil.copy(BACKBONE, "other.keras")
    assert transfer.build(frame((28, 28, 1)), Options(backbone=name)).output_shape == (None, 2)


def test_the_layer_whose_output_is_taken_can_be_chosen_and_is_pooled(images):
    deep, early = build(), build(cut="max_pooling2d_1", pooling="max")
    assert deep.layers[-1].kernel.shape == (128, 2)
    assert early.layers[-1].kernel.shape == (64, 2)
    assert [type(layer).__name__ for layer in early.layers[-3:]] == ["GlobalMaxPooling2D", "Dropout", "Dense"]


def test_the_seed_draws_the_head_though_a_model_is_loaded():
    def head(seed: int) -> np.ndarray:
        engine.start(seed)
        return np.asarray(build().layers[-1].kernel)

    assert np.array_equal(head(3), head(3))
    assert not np.array_equal(head(3), head(4))


def test_a_model_that_was_transferred_is_a_backbone_too(workspace, images, shirts):
    first = build((28, 28, 3))
    engine.save(first, Path("first.keras"))
    second = transfer.build(frame((28, 28, 1)), Options(backbone="first.keras"))
    train(second, images, shirts)
    transfer.unfreeze(second, "conv2d_2")
    before = weights(second)
    train(second, images, shirts)
    assert changed(before, weights(second)) == {"conv2d_2"}
    transfer.unfreeze(second)
    before = weights(second)
    train(second, images, shirts)
    assert changed(before, weights(second)) == {
        "conv2d",
        "conv2d_1",
        "conv2d_2",
    }  # not what makes grey of colours


def test_series_of_the_same_length_are_taken_by_a_backbone_that_masks_them(workspace):
    layers: Layers = [{"Masking": {"mask_value": -1e9}}, {"Rescaling": {"scale": 0.5}}]
    series = frame((16, 3), 4, "float32", layers)
    engine.save(cnn.build(series, cnn.Options(filters=[4, 8])), Path("series.keras"))
    model = transfer.build(frame((16, 3), 2, "float32", layers), Options(backbone="series.keras"))
    inputs = np.random.default_rng(0).normal(size=(4, 16, 3)).astype(np.float32)
    inputs[:, 10:] = -1e9
    engine.save(model, Path("model.keras"))
    expected = model.predict(inputs, verbose=0)
    assert np.array_equal(engine.load(Path("model.keras")).predict(inputs, verbose=0), expected)
    with pytest.raises(UserError, match=r"series\.keras takes inputs of 16 × 3 \(float32\), found 20 × 3"):
        transfer.build(frame((20, 3), 2, "float32", layers), Options(backbone="series.keras"))


# ── Sizes and channels ─────────────────────────────────────────────────────────────────────────────────


def test_grey_images_in_three_channels_are_seen_as_grey(images):
    grey, colour = build(), build((28, 28, 3))
    colour.layers[-1].set_weights(grey.layers[-1].get_weights())
    expected = grey.predict(images, verbose=0)
    found = colour.predict(np.repeat(images, 3, axis=3), verbose=0)
    assert found == pytest.approx(expected, abs=1e-5)


def test_colour_images_of_another_size_are_seen_grey_and_resized(colourful):
    import keras

    model = build((40, 48, 3))
    small = keras.ops.image.resize(colourful.astype(np.float32), (28, 28))
    grey = np.asarray(small) @ np.array([[0.299], [0.587], [0.114]], np.float32)
    seen = keras.Model(model.inputs[0], model.layers[-4].output)
    assert type(model.layers[-3]).__name__ == "Functional"
    assert seen.predict(colourful, verbose=0) == pytest.approx(grey, abs=1e-3)
    assert model.get_layer("backbone").inputs[0].dtype == "float32"  # fractions of a grey level are kept


def test_an_adapted_network_agrees_with_its_onnx_file(workspace, colourful):
    model = build((40, 48, 3))
    engine.save(model, Path("model.keras"))
    model = engine.load(Path("model.keras"))
    convert(model, Path("model.onnx"))
    expected = model.predict(colourful, verbose=0)
    assert np.ptp(expected) > 0.01
    assert run(Path("model.onnx"), colourful) == pytest.approx(expected, abs=1e-5)


# ── Fine-tuning ────────────────────────────────────────────────────────────────────────────────────────


def test_from_the_named_layer_on_the_backbone_learns_but_for_batch_normalization(images, shirts):
    model = build()
    order = [weight.path for weight in model.weights]
    train(model, images, shirts)
    transfer.unfreeze(model, "conv2d_1")
    before = weights(model)
    train(model, images, shirts)
    assert changed(before, weights(model)) == {"conv2d_1", "conv2d_2"}
    assert [weight.path for weight in model.weights] == order  # a checkpoint of either phase fits
    transfer.unfreeze(model)
    before = weights(model)
    train(model, images, shirts)
    assert changed(before, weights(model)) == {"conv2d", "conv2d_1", "conv2d_2"}


def test_what_learned_is_saved_and_what_was_frozen_stays_so_after_loading(workspace, images):
    model = build()
    transfer.unfreeze(model, "conv2d_2")
    engine.save(model, Path("model.keras"))
    loaded = engine.load(Path("model.keras"))
    assert [weight.path for weight in loaded.trainable_weights] == [
        weight.path for weight in model.trainable_weights
    ]
    assert np.array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))


def test_the_same_network_is_saved_as_the_same_bytes(workspace):
    for name in ("first.keras", "second.keras"):
        engine.start(5)
        engine.save(build((40, 40, 3)), Path(name))
    assert sha256("first.keras") == sha256("second.keras")


def test_a_layer_that_the_backbone_lacks_is_named_with_the_nearest(images):
    with pytest.raises(
        UserError, match=r"fit\.fine_tune\.start: .* no layer 'conv2d_9'.*did you mean 'conv2d"
    ):
        transfer.unfreeze(build(), "conv2d_9")


# ── Keras Applications ─────────────────────────────────────────────────────────────────────────────────


def test_pixels_are_preprocessed_as_each_application_of_keras_wants_it(colourful):
    import sys

    import keras

    names = [name for name in dir(keras.applications) if name[0].isupper()]
    assert len(names) > 30
    kinds = set()
    for name in names:
        preprocess = sys.modules[getattr(keras.applications, name).__module__].preprocess_input
        matrix, offset = transfer._colours(preprocess) or (np.eye(3), np.zeros(3))
        expected = preprocess(colourful.astype(np.float64))
        np.testing.assert_allclose(colourful @ matrix + offset, expected, atol=1e-9, err_msg=name)
        kinds.add((matrix.tobytes(), offset.tobytes()))
    assert len(kinds) == 4  # as it is, from -1 to 1, by ImageNet's mean and deviation, as Caffe did


def test_an_application_sees_images_as_its_own_preprocessing_makes_them(workspace, colourful):
    import keras

    network = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(40, 48, 3), pooling="avg"
    )
    network.save_weights("local.weights.h5")
    pixels = keras.applications.vgg16.preprocess_input(colourful.astype(np.float32))
    expected = network.predict(pixels, verbose=0)
    model = transfer.build(frame((40, 48, 3)), Options(backbone="VGG16", weights="local.weights.h5"))
    features = keras.Model(model.inputs[0], model.layers[-3].output).predict(colourful, verbose=0)
    assert expected.std() > 0
    np.testing.assert_allclose(features, expected, atol=1e-4 * expected.std())


def test_statistics_that_would_be_inputs_of_the_onnx_file_become_a_rescaling(images):
    import keras
    from keras import layers

    x = keras.Input((28, 28, 1))
    y = layers.Normalization(mean=[90.0], variance=[400.0])(x)
    known = keras.Model(x, layers.Conv2D(4, 3)(y), name="backbone")
    learned = layers.Normalization(axis=None)
    learned.adapt(images)
    for network in (known, keras.Model(x, layers.Conv2D(4, 3)(learned(x)))):
        renewed = transfer._without_normalization(network, "float32")
        kinds = [type(layer).__name__ for layer in renewed.layers]
        assert kinds == ["InputLayer", "Rescaling", "Conv2D"]
        assert renewed.name == network.name
        expected = network.predict(images, verbose=0)
        np.testing.assert_allclose(renewed.predict(images, verbose=0), expected, atol=1e-5)


# ── Bad input ──────────────────────────────────────────────────────────────────────────────────────────

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a misspelt name": (
        {"backbone": "EfficentNetB0"},
        r"^model\.backbone: Keras Applications have no 'EfficentNetB0'.*did you mean 'EfficientNetB0'\?$",
    ),
    "no file": (
        {"backbone": "there/is/none.keras"},
        r"^model\.backbone: there/is/none\.keras not found; expected a \.keras file or a folder",
    ),
    "a folder without a model": (
        {"backbone": "empty"},
        r"^model\.backbone: empty/model\.keras not found; expected a \.keras file or a folder",
    ),
    "no model": (
        {"backbone": "text.keras"},
        r"^model\.backbone: text\.keras: expected a Keras model that loads in safe mode, found: ",
    ),
    "the model that is being made": (
        {"backbone": "src/models"},
        r"^model\.backbone: found src/models/model\.keras, which this training replaces; expected a copy",
    ),
    "another size than the file's": (
        {"size": [32, 32]},
        r"^model\.size: found \[32, 32\], but .*fashion-8\.keras takes 28 × 28 pixels; expected null",
    ),
    "weights beside those of the file": (
        {"weights": "text.keras"},
        r"^model\.weights: found 'text\.keras', expected none: .*fashion-8\.keras has its own$",
    ),
    "no such layer": (
        {"cut": "max_pooling2d_7"},
        r"^model\.cut: .*fashion-8\.keras has no layer 'max_pooling2d_7'.*did you mean 'max_pooling2d",
    ),
    "too small for an application": (
        {"backbone": "MobileNet", "weights": None},
        r"^model\.size: MobileNet refuses images of 28 × 28 pixels \(.*at least 32x32.*expected larger ones",
    ),
    "missing weights": (
        {"backbone": "MobileNet", "weights": "none.weights.h5", "size": [32, 32]},
        r"^model\.weights: none\.weights\.h5 not found; expected imagenet, null or a file of weights$",
    ),
    "weights of another network": (
        {"backbone": "MobileNet", "weights": "other.weights.h5", "size": [32, 32]},
        r"^model\.weights: other\.weights\.h5: expected weights of MobileNet without its head, found: ",
    ),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_a_backbone_that_cannot_be_had_is_one_sentence(workspace, options, message):
    import keras

    Path("empty").mkdir()
    Path("src/models").mkdir(parents=True)
    Path("text.keras").write_text("no model")
    x = keras.Input((3,))
    keras.Model(x, keras.layers.Dense(2)(x)).save_weights("other.weights.h5")
    with pytest.raises(UserError, match=message) as error:
        build(**options)
    assert "\n" not in str(error.value)


def test_without_a_network_connection_one_sentence_says_what_would_do(workspace, monkeypatch):
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(workspace))  # an empty cache
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nothing listens
    with pytest.raises(
        UserError, match=r"^model\.weights: imagenet of MobileNet cannot be downloaded \("
    ) as error:
        build((128, 128, 3), backbone="MobileNet")
    assert str(error.value).endswith(
        "expected a connection to the internet, or the path of a local file of its weights"
    )


def test_inputs_that_no_backbone_of_images_takes_are_refused():
    volume = frame((16, 16, 16, 1))
    with pytest.raises(UserError, match=r"MobileNet takes images, found inputs of 16 × 16 × 16 × 1$"):
        transfer.build(volume, Options(backbone="MobileNet", weights=None))
    with pytest.raises(
        UserError, match=r"takes inputs of 28 × 28 × 1 \(uint8\), found 16 × 16 × 16 × 1 \(uint8\)"
    ):
        transfer.build(volume, Options(backbone=str(BACKBONE)))
    words = Frame(Input((8,), "int32", [], ["", "[UNK]", "a"]), Output(2, "softmax"))
    with pytest.raises(UserError, match="transfer takes no sentences"):
        transfer.build(words, Options(backbone=str(BACKBONE)))


def test_a_network_without_a_dense_layer_asks_where_to_cut(workspace):
    import keras

    x = keras.Input((28, 28, 1), dtype="uint8")
    y = keras.layers.Conv2D(4, 3, name="last")(keras.layers.Rescaling(1 / 255)(x))
    engine.save(keras.Model(x, keras.layers.GlobalAveragePooling2D()(y)), Path("headless.keras"))
    with pytest.raises(
        UserError, match=r"^model\.cut: headless\.keras has no dense layer to replace, .*last, "
    ):
        build(backbone="headless.keras")
    assert build(backbone="headless.keras", cut="last").layers[-1].kernel.shape == (4, 2)

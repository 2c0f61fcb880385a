"""Augmentation: it changes what it should, keeps padding, and is the same in each run of an epoch."""

import numpy as np
import pytest

from src import engine
from src.errors import UserError
from src.network import Input
from src.training.augmentation import Augmenter

engine_started = pytest.fixture(scope="module", autouse=True)(lambda: engine.start())

PADDING = -1e9
IMAGES = Input((28, 28, 1), "uint8")
COLOURS = Input((32, 32, 3), "uint8")
SENTENCES = Input((12,), "int32", [], ["[PAD]", "[UNK]", "good", "bad"])
SOUNDS = Input((800,), "int16")
SERIES = Input((20, 3), "float32", [{"Masking": {"mask_value": PADDING}}])
TABLE = Input((5,), "float32")
KINDS = {
    "flip": ({"RandomFlip": {"mode": "horizontal"}}, IMAGES),
    "translation": ({"RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1}}, IMAGES),
    "rotation": ({"RandomRotation": {"factor": 0.1}}, IMAGES),
    "a name in any case": ({"randomzoom": {"height_factor": 0.2}}, IMAGES),
    "mixed examples": ({"MixUp": {}}, IMAGES),
    "cut and mixed": ({"CutMix": {}}, IMAGES),
    "chains": ({"AugMix": {}}, COLOURS),
    "noise of images": ({"RandomNoise": {"factor": 0.2}}, IMAGES),
    "words": ({"WordDropout": {"rate": 0.3}}, SENTENCES),
    "shifted sound": ({"RandomShift": {"factor": 0.2}}, SOUNDS),
    "noise of sound": ({"RandomNoise": {"factor": 0.1}}, SOUNDS),
    "shifted series": ({"RandomShift": {"factor": 0.2}}, SERIES),
    "noise of series": ({"RandomNoise": {"factor": 0.1}}, SERIES),
    "noise of a table": ({"RandomNoise": {"factor": 0.1}}, TABLE),
}


def batch(given: Input, count: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Examples of a kind, a quarter of them padding where they can be padded, and labels of four classes."""
    draw = np.random.default_rng(0)
    inputs: np.ndarray
    shape = (count, *given.shape)
    if given.vocabulary:
        inputs = draw.integers(2, len(given.vocabulary), shape)
        inputs[:, 9:] = 0
    elif np.issubdtype(given.dtype, np.integer):
        inputs = draw.integers(0, 255, shape)
    else:
        inputs = draw.normal(5, 2, shape)
        if given.layers:
            inputs[:, 15:] = PADDING
    return inputs.astype(given.dtype), np.eye(4, dtype=np.float32)[np.arange(count) % 4]


@pytest.mark.parametrize(("layer", "given"), KINDS.values(), ids=KINDS)
def test_inputs_change_in_each_epoch_and_step_and_are_the_same_in_each_run(layer, given):
    inputs, labels = batch(given)
    augment = Augmenter([layer], given, seed=3)
    found, targets = augment(inputs, labels, 1, 2)
    assert (found.shape, found.dtype) == (inputs.shape, inputs.dtype)
    assert not np.array_equal(found, inputs)
    augment(inputs, labels, 0, 0)  # what was done before is of no matter
    again, same_targets = Augmenter([layer], given, seed=3)(inputs, labels, 1, 2)
    assert np.array_equal(found, again)
    assert np.array_equal(targets, same_targets)
    for seed, epoch, step in ((3, 2, 2), (3, 1, 3), (4, 1, 2)):
        assert not np.array_equal(Augmenter([layer], given, seed)(inputs, labels, epoch, step)[0], found)


def test_mixed_examples_have_mixed_labels_and_others_keep_theirs():
    inputs, labels = batch(IMAGES)
    for name, mixes in (("MixUp", True), ("CutMix", True), ("RandomFlip", False)):
        augment = Augmenter([{name: {}}], IMAGES, 0)
        targets = augment(inputs, labels, 0, 0)[1]
        assert augment.mixes is mixes
        assert np.array_equal(targets, labels) is not mixes
        assert targets.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_several_layers_follow_one_another():
    inputs, labels = batch(IMAGES)
    flip, noise = {"RandomFlip": {"mode": "horizontal"}}, {"RandomNoise": {"factor": 0.1}}
    both = Augmenter([flip, noise], IMAGES, 0)(inputs, labels, 0, 0)[0]
    flipped = Augmenter([flip], IMAGES, 0)(inputs, labels, 0, 0)[0]
    difference = np.abs(both.astype(int) - flipped)
    assert 0 < np.median(difference) < 30


def test_a_word_is_dropped_as_often_as_asked_and_padding_never():
    inputs, labels = batch(SENTENCES, 2000)
    found = Augmenter([{"WordDropout": {"rate": 0.25}}], SENTENCES, 0)(inputs, labels, 0, 0)[0]
    assert (found[:, 9:] == 0).all()
    assert (found[:, :9] == 1).mean() == pytest.approx(0.25, abs=0.01)
    assert np.array_equal(found[found > 1], inputs[found > 1])


def test_a_shift_moves_all_channels_and_fills_with_padding():
    inputs, labels = batch(SERIES)
    found = Augmenter([{"RandomShift": {"factor": 0.2}}], SERIES, 0)(inputs, labels, 0, 0)[0]
    moved = []
    for before, after in zip(inputs, found, strict=True):
        fits = [by for by in range(-4, 5) if np.array_equal(shift(before, by), after)]
        assert fits
        moved += fits
    assert min(moved) < 0 < max(moved)


def shift(example: np.ndarray, by: int) -> np.ndarray:
    rolled = np.roll(example, by, axis=0)
    rolled[slice(by, None) if by < 0 else slice(0, by)] = PADDING
    return rolled


def test_noise_is_as_large_as_asked_in_each_channel_and_leaves_padding_alone():
    inputs, labels = batch(SERIES, 500)
    inputs[:, :15, 0] *= 100
    found = Augmenter([{"RandomNoise": {"factor": 0.1}}], SERIES, 0)(inputs, labels, 0, 0)[0]
    assert np.array_equal(found[:, 15:], inputs[:, 15:])
    noise = (found - inputs)[:, :15].std(axis=(0, 1))
    deviation = np.sqrt(inputs[:, :15].var(axis=1).mean(axis=0))
    assert noise / deviation == pytest.approx(0.1, rel=0.05)


REFUSED = {
    "no such layer": ({"RandomFlop": {}}, IMAGES, "there is no 'RandomFlop', expected one of .*'randomflip'"),
    "another shape": ({"RandomCrop": {"height": 20, "width": 20}}, IMAGES, "there is no 'RandomCrop'"),
    "wrong argument": ({"RandomFlip": {"modus": "x"}}, IMAGES, "RandomFlip refuses its arguments"),
    "wrong value": ({"WordDropout": {"rate": 1.5}}, SENTENCES, "WordDropout: rate: Input should be less"),
    "images of sentences": ({"RandomFlip": {}}, SENTENCES, "RandomFlip changes images .* found inputs of 12"),
    "images of a table": ({"RandomFlip": {}}, TABLE, "RandomFlip changes images .* found inputs of 5"),
    "words of images": (
        {"WordDropout": {"rate": 0.1}},
        IMAGES,
        "WordDropout changes sentences",
    ),
    "time of a table": ({"RandomShift": {"factor": 0.1}}, TABLE, "RandomShift changes sounds and series"),
    "noise of words": ({"RandomNoise": {"factor": 0.1}}, SENTENCES, "RandomNoise changes numbers"),
}


@pytest.mark.parametrize(("layer", "given", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_one_sentence_that_names_the_key(layer, given, message):
    with pytest.raises(UserError, match=rf"^params\.yaml: fit\.augment: {message}") as error:
        Augmenter([layer], given, 0)
    assert "\n" not in str(error.value)

"""The drawing of a network: every layer is there, connected as it is, long models folded."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from src import diagram, engine
from src.diagram import Drawing, draw
from src.evaluate.score import describe_layer

engine_started = pytest.fixture(scope="module", autouse=True)(lambda: engine.start())
SVG = "{http://www.w3.org/2000/svg}"


def describe(model: Any) -> diagram.Layers:
    return [describe_layer(layer) for layer in model.layers]


def chain(*names: str, **changes: Any) -> diagram.Layers:
    """Layers one behind the other."""
    plain = {"type": "ReLU", "shape": [4], "parameters": 0, "trainable_parameters": 0}
    return [
        {"name": name, **plain, "inputs": [names[position - 1]] if position else [], **changes}
        for position, name in enumerate(names)
    ]


def boxes(layers: diagram.Layers) -> list[diagram.Box]:
    drawing = Drawing()
    drawing.add(layers, [])
    return drawing.boxes


def elements(svg: str, kind: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(svg).iter(SVG + kind))


@pytest.fixture(scope="module")
def branched() -> Any:
    """A network with a shortcut past a convolution, two branches, and an operation that is no layer."""
    import keras
    from keras import layers

    x = inputs = keras.Input((8, 8, 3), name="picture")
    x = layers.Conv2D(4, 3, padding="same", name="first")(x)
    y = layers.Conv2D(4, 3, padding="same", name="second")(layers.ReLU(name="relu")(x))
    x = layers.Add(name="sum")([x, y])
    left, right = layers.Conv2D(2, 1, name="left")(x), layers.Conv2D(2, 3, padding="same", name="right")(x)
    x = layers.Concatenate(name="both")([left, keras.ops.exp(right)])
    x = layers.Dense(2, name="end")(layers.GlobalAveragePooling2D(name="mean")(x))
    return keras.Model(inputs, x)


def test_each_layer_says_where_its_input_comes_from_even_through_a_bare_operation(branched):
    found = {layer["name"]: layer["inputs"] for layer in describe(branched)}
    assert found == {
        "picture": [],
        "first": ["picture"],
        "relu": ["first"],
        "second": ["relu"],
        "sum": ["first", "second"],
        "left": ["sum"],
        "right": ["sum"],
        "both": ["left", "right"],
        "mean": ["both"],
        "end": ["mean"],
    }


def test_every_layer_is_a_box_with_its_name_shape_and_parameters(branched):
    svg = draw(describe(branched))
    words = [text.text for text in elements(svg, "text")]
    assert words[::2] == [layer.name for layer in branched.layers]
    assert words[3] == "Conv2D · 8 × 8 × 4 · 112"
    assert words[-1] == "Dense · 2 · 10"


def test_every_connection_is_an_arrow_and_a_shortcut_goes_around_what_it_passes(branched):
    drawn = [path for path in elements(draw(describe(branched)), "path") if path.get("class") == "connection"]
    assert len(drawn) == sum(len(layer["inputs"]) for layer in describe(branched)) == 11
    around = [path.get("d", "") for path in drawn if "V" in path.get("d", "")]
    assert len(around) == 1
    assert float(re.findall(r"H(-?[\d.]+)q", around[0])[0]) > diagram.WIDTH / 2


def test_branches_stand_side_by_side_below_what_they_come_from(branched):
    placed = boxes(describe(branched))
    diagram._place(placed)
    by_name = {box.title: box for box in placed}
    left, right = by_name["left"], by_name["right"]
    assert left.row == right.row == by_name["sum"].row + 1 == by_name["both"].row - 1
    assert abs(left.x - right.x) >= diagram.WIDTH
    assert by_name["sum"].row == by_name["second"].row + 1


def test_shortcuts_that_overlap_have_lanes_of_their_own():
    layers = chain("a", "b", "c", "d", "e", "f")
    layers[3]["inputs"] = ["a", "c"]  # inside the next one
    layers[4]["inputs"] = ["a", "d"]
    layers[5]["inputs"] = ["d", "e"]  # one row: the next to it, no lane
    placed = boxes(layers)
    diagram._place(placed)
    lanes = diagram._lanes(placed)
    assert lanes[0, 3] != lanes[0, 4]
    assert set(lanes) == {(0, 3), (0, 4), (3, 5)}
    assert lanes[3, 5] == 1 or lanes[3, 5] not in (lanes[0, 3], lanes[0, 4])


def test_what_learns_what_is_frozen_and_what_has_nothing_to_learn_look_different():
    import keras
    from keras import layers

    inputs = keras.Input((4,))
    frozen = layers.Dense(3, trainable=False)(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Dropout(0.5)(frozen)))
    svg = draw(describe(model))
    kinds = [group.get("class") for group in elements(svg, "g")]
    assert kinds == ["plain", "frozen", "plain", "learns"]
    assert "Dense · 3 · 15 frozen" in svg


def test_a_model_inside_is_drawn_layer_by_layer_in_a_frame_of_its_own():
    import keras
    from keras import layers

    x = keras.Input((6,), name="inner_input")
    inner = keras.Model(x, layers.Dense(3, name="b")(layers.Dense(4, name="a")(x)), name="backbone")
    outer = keras.Input((6,), name="outer_input")
    model = keras.Model(outer, layers.Dense(2, name="head")(inner(outer)))
    described = describe(model)
    placed = boxes(described)
    assert [box.title for box in placed] == ["outer_input", "a", "b", "head"]
    assert [box.inputs for box in placed] == [[], [0], [1], [2]]
    assert [box.groups for box in placed] == [(), ("backbone",), ("backbone",), ()]
    (frame,) = [group for group in elements(draw(described), "g") if group.get("class") == "model"]
    assert next(frame.iter(SVG + "title")).text == "backbone"


def test_a_long_model_is_folded_at_each_step_down_in_resolution():
    import keras

    network = keras.applications.MobileNet(include_top=False, weights=None, input_shape=(64, 64, 3))
    layers = describe(network)
    folded = boxes(layers)
    assert len(layers) == 86
    assert 6 <= len(folded) <= 8
    assert [box.inputs for box in folded] == [[], *([number] for number in range(len(folded) - 1))]
    counts = [
        int(found[1].replace(",", "")) for box in folded if (found := re.search(r"· ([\d,]+)$", box.text))
    ]
    assert sum(counts) == network.count_params()


def test_a_fold_never_cuts_a_branch():
    names = [f"layer_{number}" for number in range(diagram.MOST + 10)]
    layers = chain(*names, shape=[8, 8, 2])
    for position in (20, 21, 22):  # the resolution falls while a shortcut is under way
        layers[position]["shape"] = [4, 4, 2]
    for layer in layers[23:]:
        layer["shape"] = [4, 4, 2]
    layers[25]["inputs"] = ["layer_18", "layer_24"]
    folds = diagram._fold(layers)
    assert [fold[0]["name"] for fold in folds] == ["layer_0", "layer_19"]
    assert "layer_25" in [layer["name"] for layer in folds[1]]


def test_names_that_mean_something_in_xml_are_text_and_long_ones_are_cut():
    (box,) = elements(draw(chain("<b>&amp;" + "x" * 60)), "g")
    title, name, _ = box.iter(SVG + "title"), *box.iter(SVG + "text")
    assert next(title).text == "<b>&amp;" + "x" * 60 + ": ReLU · 4"
    assert name.text is not None
    assert len(name.text) == diagram.LONGEST


def test_the_same_network_is_the_same_picture_and_none_at_all_is_one_too(branched):
    assert draw(describe(branched)) == draw(describe(branched))
    assert elements(draw([]), "g") == []

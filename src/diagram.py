"""Draws a network from the list of layers in inference.json, as SVG that takes the page's colours.

Keras' own `plot_model` draws the same, but needs Keras, pydot and graphviz, and its picture differs from one
machine to the next, while one commit must give the same report everywhere.
"""

import math
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape

MOST = 30  # layers of one model that are drawn one by one; more are folded
WIDTH, HEIGHT = 260, 40  # of a box, in pixels
GAP, SPACE = 20, 24  # between rows, between boxes of a row
LANE = 14  # from one connection that passes boxes by to the next
LONGEST = 32  # letters of a name

Layers = list[dict[str, Any]]


@dataclass
class Box:
    """One layer, or several that are folded.

    Args:
        title: What stands in its first line.
        text: What stands in its second line.
        kind: `learns`, `frozen`, or `plain` where there is nothing to learn.
        inputs: The numbers of the boxes that it takes its input from.
        hint: What is shown when it is pointed at.
        groups: The names of the models that it is a part of.
    """

    title: str
    text: str
    kind: str
    inputs: list[int]
    hint: str = ""
    groups: tuple[str, ...] = ()
    row: int = 0
    x: float = 0.0


@dataclass
class Drawing:
    """All boxes, in an order in which each follows its inputs."""

    boxes: list[Box] = field(default_factory=list)

    def add(self, layers: Layers, inputs: list[int], groups: tuple[str, ...] = ()) -> list[int]:
        """Adds a model's layers, those of models among them included.

        Args:
            layers: As inference.json has them.
            inputs: The boxes that the model takes its input from.
            groups: The names of the models that these layers are a part of.

        Returns:
            The boxes that give its output.
        """
        made: dict[str, list[int]] = {}
        used = {name for layer in layers for name in layer["inputs"]}
        for fold in _fold(layers):
            last = fold[-1]
            inside = {layer["name"] for layer in fold}
            sources = [name for layer in fold for name in layer["inputs"] if name not in inside]
            taken = [box for name in dict.fromkeys(sources) for box in made.get(name, [])] or inputs
            if len(fold) == 1 and "layers" in last:
                made[last["name"]] = self.add(last["layers"], taken, (*groups, last["name"]))
            elif groups and len(fold) == 1 and last["type"] == "InputLayer":
                made[last["name"]] = taken
            else:
                self.boxes.append(_box(fold, taken, groups))
                made |= {layer["name"]: [len(self.boxes) - 1] for layer in fold}
        ends = [name for name in made if name not in used]
        return [box for name in dict.fromkeys(ends) for box in made[name]][-1:]


def draw(layers: Layers) -> str:
    """Returns a network's picture.

    Args:
        layers: Of inference.json: `name`, `type`, `shape`, `parameters`, `trainable_parameters`, `inputs`
            (the names of those that it takes its input from), and `layers` where it is a model of its own.

    Returns:
        An `svg` element whose boxes have the classes learns, frozen and plain.
    """
    drawing = Drawing()
    drawing.add(layers, [])
    boxes = drawing.boxes
    _place(boxes)
    lanes = _lanes(boxes)
    left = min((box.x for box in boxes), default=0) - WIDTH / 2 - SPACE
    right = max((box.x for box in boxes), default=0) + WIDTH / 2 + SPACE
    right += LANE * max(lanes.values(), default=0)
    height = (max((box.row for box in boxes), default=0) + 1) * (HEIGHT + GAP) + GAP
    parts = [*_frames(boxes), *_connections(boxes, lanes), *map(_draw_box, boxes)]
    return (
        f'<svg class="diagram" role="img" aria-label="The network\'s layers and how they are connected" '
        f'xmlns="http://www.w3.org/2000/svg" width="{right - left:g}" height="{height}" '
        f'viewBox="{left:g} 0 {right - left:g} {height}">\n'
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z"/></marker></defs>\n'
        + "\n".join(parts)
        + "\n</svg>"
    )


# ── Folding ────────────────────────────────────────────────────────────────────────────────────────────


def _fold(layers: Layers) -> list[Layers]:
    """Folds the layers of a long model: those between two steps down in resolution become one.

    A fold ends only where a single output goes on, so that no connection leads into the middle of one.
    """
    if len(layers) <= MOST:
        return [[layer] for layer in layers]
    positions = {layer["name"]: position for position, layer in enumerate(layers)}
    last_use = [0] * len(layers)
    for position, layer in enumerate(layers):
        for name in layer["inputs"]:
            last_use[positions[name]] = position
    folds: list[Layers] = []
    section: Layers = []
    needed, lowest = 0, math.inf  # the last layer that takes one before this; the resolution of the fold
    for position, layer in enumerate(layers):
        section.append(layer)
        if needed <= position:
            resolution = math.prod(size or 1 for size in layer["shape"][:-1])
            alone = layer["type"] == "InputLayer" or "layers" in layer
            if alone or not folds or resolution < lowest:
                folds.append([])
            folds[-1] += section
            section, lowest = [], math.inf if alone else min(lowest, resolution)
        needed = max(needed, last_use[position])
    return folds


def _box(fold: Layers, inputs: list[int], groups: tuple[str, ...]) -> Box:
    parameters = sum(layer["parameters"] for layer in fold)
    learns = sum(layer["trainable_parameters"] for layer in fold)
    kind = "learns" if learns else "frozen" if parameters else "plain"
    names = fold[0]["name"] if len(fold) == 1 else f"{fold[0]['name']} … {fold[-1]['name']}"
    what = fold[0]["type"] if len(fold) == 1 else f"{len(fold)} layers"
    shape = " × ".join("any" if size is None else str(size) for size in fold[-1]["shape"])
    count = f"{parameters:,}" + (" frozen" if kind == "frozen" else "") if parameters else ""
    text = " · ".join(part for part in (what, shape, count) if part)
    title = names
    if len(names) > LONGEST:
        title = names[: LONGEST - 1] + "…"
        if len(fold) > 1:
            half = LONGEST // 2 - 2
            title = " … ".join(_short(layer["name"], half) for layer in (fold[0], fold[-1]))
    return Box(title, text, kind, inputs, f"{names}: {text}", groups)


def _short(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


# ── Layout ─────────────────────────────────────────────────────────────────────────────────────────────


def _place(boxes: list[Box]) -> None:
    """Puts each box below all of its inputs, and those of one row side by side, as their inputs stand."""
    for box in boxes:
        box.row = max((boxes[number].row + 1 for number in box.inputs), default=0)
    for row in range(max((box.row for box in boxes), default=-1) + 1):
        members = [box for box in boxes if box.row == row]
        sources = {id(box): [boxes[number].x for number in box.inputs] or [0.0] for box in members}
        members.sort(key=lambda box: sum(sources[id(box)]) / len(sources[id(box)]))
        for position, box in enumerate(members):
            box.x = (position - (len(members) - 1) / 2) * (WIDTH + SPACE)


def _lanes(boxes: list[Box]) -> dict[tuple[int, int], int]:
    """Gives each connection that passes rows by a lane of its own, to the right of all boxes."""
    long = [
        (source, target)
        for target, box in enumerate(boxes)
        for source in box.inputs
        if box.row - boxes[source].row > 1
    ]
    lanes: dict[tuple[int, int], int] = {}
    for source, target in sorted(long, key=lambda pair: boxes[pair[1]].row - boxes[pair[0]].row):
        taken = {
            lane
            for (start, end), lane in lanes.items()
            if boxes[start].row < boxes[target].row and boxes[source].row < boxes[end].row
        }
        lanes[source, target] = next(lane for lane in range(1, len(lanes) + 2) if lane not in taken)
    return lanes


def _edge(boxes: list[Box], first: int, last: int) -> float:
    """Returns where the boxes of some rows end, to the right."""
    return max(box.x for box in boxes if first <= box.row <= last) + WIDTH / 2


def _top(box: Box) -> float:
    return GAP + box.row * (HEIGHT + GAP)


def _connections(boxes: list[Box], lanes: dict[tuple[int, int], int]) -> list[str]:
    """Draws straight arrows between neighbouring rows, and others around the boxes between."""
    paths = []
    for target, box in enumerate(boxes):
        for source in box.inputs:
            start = boxes[source]
            if (source, target) in lanes:
                lane = _edge(boxes, start.row, box.row) + lanes[source, target] * LANE
                y, end = _top(start) + 0.7 * HEIGHT, _top(box) + 0.3 * HEIGHT
                path = (
                    f"M{start.x + WIDTH / 2:g} {y:g}H{lane - 6:g}q6 0 6 6V{end - 6:g}q0 6 -6 6"
                    f"H{box.x + WIDTH / 2:g}"
                )
            else:
                path = f"M{start.x:g} {_top(start) + HEIGHT:g}L{box.x:g} {_top(box):g}"
            paths.append(f'<path class="connection" marker-end="url(#tip)" d="{path}"/>')
    return paths


def _frames(boxes: list[Box]) -> list[str]:
    """Draws a frame around the boxes of each model inside the model."""
    groups = dict.fromkeys(box.groups[: depth + 1] for box in boxes for depth in range(len(box.groups)))
    frames = []
    for group in groups:
        inside = [box for box in boxes if box.groups[: len(group)] == group]
        margin = 14 - 4 * len(group)
        left = min(box.x for box in inside) - WIDTH / 2 - margin
        width = max(box.x for box in inside) + WIDTH / 2 + margin - left
        top = min(map(_top, inside)) - 9
        height = max(map(_top, inside)) + HEIGHT + 9 - top
        frames.append(
            f'<g class="model"><title>{escape(group[-1])}</title><rect x="{left:g}" y="{top:g}" '
            f'width="{width:g}" height="{height:g}" rx="9"/></g>'
        )
    return frames


def _draw_box(box: Box) -> str:
    left, top = box.x - WIDTH / 2, _top(box)
    return (
        f'<g class="{box.kind}"><title>{escape(box.hint)}</title>'
        f'<rect x="{left:g}" y="{top:g}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{box.x:g}" y="{top + 16:g}">{escape(box.title)}</text>'
        f'<text class="soft" x="{box.x:g}" y="{top + 31:g}">{escape(box.text)}</text></g>'
    )

"""Pictures that the report and the gate both draw."""

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 6.0  # inches of a row of examples
TITLE = 0.3  # inches above each of them
GREY = "#718096"  # what is written beside examples: to be read on white as well as on black
COLOURS = {"training": "#2b6cb0", "validation": "#dd6b20"}


def draw_curves(history: pd.DataFrame) -> "Figure":
    """Draws loss and metrics of training and validation over the epochs, the best epoch marked."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    names = [name.removeprefix("val_") for name in history if str(name).startswith("val_")]
    names.sort(key=lambda name: name != "loss")
    figure = Figure(figsize=(5 * len(names), 3.6), layout="constrained")
    best = history["epoch"][history["val_loss"].idxmin()]
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for column, (label, colour) in zip((name, f"val_{name}"), COLOURS.items(), strict=True):
            axes.plot(history["epoch"], history[column], marker=".", color=colour, label=label)
        axes.axvline(best, color="#999", linewidth=1, linestyle=":", label="epoch kept")
        axes.set(xlabel="epoch", title=name.replace("_", " "))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.legend(frameon=False)
        axes.grid(alpha=0.2)
    return figure


def draw_layers(records: list[dict[str, Any]]) -> "Figure":
    """Draws what the doctor saw in each layer over the epochs, the first one dark, the last one light.

    Args:
        records: As src/training/diagnosis.py has them.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    titles = {"gradient": "gradient, relative to the weights", "dead": "units that are always 0"}
    names = {what: [name for name, layer in records[0]["layers"].items() if what in layer] for what in titles}
    shown = [what for what in titles if names[what]]
    most = max(map(len, names.values()))
    size = (5 * len(shown), 3.6 + 0.17 * math.ceil(most / 2))
    figure = Figure(figsize=size, layout="constrained")
    epochs = [record["epoch"] for record in records]
    for axes, what in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.75, len(names[what])))
        for name, colour in zip(names[what], colours, strict=True):
            values = [record["layers"].get(name, {}).get(what) for record in records]
            known = [math.nan if value is None else value for value in values]
            axes.plot(epochs, known, marker=".", color=colour, label=name)
        axes.set(xlabel="epoch", title=titles[what])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.2)
        axes.legend(frameon=False, fontsize=7, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
        if what == "gradient":
            axes.set_yscale("log", nonpositive="mask")
        else:
            axes.set_ylim(-0.03, 1.03)
            axes.yaxis.set_major_formatter(PercentFormatter(1))
    return figure


def draw_examples(
    encoder: Any, cell: tuple[float, float], inputs: np.ndarray, shown: pd.DataFrame
) -> "Figure":
    """Draws test examples in a grid that is about as wide as a page.

    Args:
        encoder: The task's encoder.
        cell: Width and height of one example, in inches.
        inputs: The encoded test inputs.
        shown: `title` of each example to show, indexed by its position in `inputs`.
    """
    from matplotlib.figure import Figure

    width, height = cell
    columns = max(1, min(round(WIDTH / width), math.ceil(math.sqrt(len(shown)))))
    rows = max(1, math.ceil(len(shown) / columns))
    figure = Figure(figsize=(width * columns, (height + TITLE) * rows), facecolor="none")
    if shown.empty:
        figure.text(0.5, 0.5, "there is none", ha="center", va="center", color=GREY)
        return figure
    grid = figure.subplots(rows, columns, squeeze=False)
    # In parts of a cell: a title above each, a little air between.
    share = TITLE / (height + TITLE)
    figure.subplots_adjust(0.01, 0.01, 0.99, 1 - 0.8 * share / rows, 0.05, share / (1 - share))
    for axes, (position, title) in zip(grid.flat, shown["title"].items(), strict=False):
        encoder.draw(axes, inputs[position])
        axes.set_title(title, fontsize=7, pad=2, color=GREY)
    for axes in figure.axes:
        axes.set_axis_off()
    return figure


def encode_png(figure: "Figure") -> bytes:
    """Returns a figure as a PNG file without a date or a version in it."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()

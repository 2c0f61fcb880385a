"""Makes one self-contained page that shows the model, its training, its mistakes and its data.

in:   params.yaml (report), build/prepared/, src/models/{history,metrics,inference}.json,
      src/models/predictions.parquet
out:  src/models/report/index.html and its pictures as files: accuracy.png, confusion_matrix.png,
      correct_predictions.png, incorrect_predictions.png

python -m src.evaluate.report
"""

import base64
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pandas as pd

from src import command, params, prepared
from src.files import read_json, replacing
from src.pictures import draw_curves, draw_examples, encode_png
from src.plugin import pick

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODELS = Path("src/models")
REPORT = MODELS / "report"
TEMPLATE = Path(__file__).with_suffix(".html")
SAMPLES = 8  # of each class

Pictures = dict[str, tuple[str, "Figure"]]


def main() -> None:
    """Runs the stage."""
    settings = params.load()
    task = pick("tasks", settings.task)
    data = read_json(prepared.FOLDER / "data.json")
    objective = pick("objectives", data["objective"])
    predictions = pd.read_parquet(MODELS / "predictions.parquet")
    history = pd.DataFrame(read_json(MODELS / "history.json"))
    test = prepared.Split.open("test")

    pictures: Pictures = {"accuracy": ("", draw_curves(history))}
    pictures |= objective.pictures(predictions, data["names"])
    for name, shown in objective.showcase(predictions, settings.report.examples**2).items():
        pictures[name] = (shown.attrs["caption"], draw_examples(task, test.inputs, shown))
    if data["names"]:
        pictures["samples"] = ("", draw_samples(task, prepared.Split.open("train"), data["names"]))
    images = {name: (caption, encode_png(figure)) for name, (caption, figure) in pictures.items()}

    for name in ("accuracy", "confusion_matrix", "correct_predictions", "incorrect_predictions"):
        if name in images:
            with replacing(REPORT / f"{name}.png") as temporary:
                temporary.write_bytes(images[name][1])
    with replacing(REPORT / "index.html") as temporary:
        temporary.write_text(render(settings, data, images, history))
    print(f"{REPORT / 'index.html'}: open it in a browser")


def draw_samples(task: ModuleType, train: prepared.Split, classes: list[str]) -> "Figure":
    """Draws the first training examples of each class, a row for each of up to 30 classes."""
    from matplotlib.figure import Figure

    classes = classes[:30]
    figure = Figure(figsize=(SAMPLES + 1, len(classes) * 0.95))
    figure.subplots_adjust(1.2 / (SAMPLES + 1), 0.01, 0.99, 0.99, wspace=0.05, hspace=0.05)
    grid = figure.subplots(len(classes), SAMPLES, squeeze=False)
    for row, name in zip(grid, classes, strict=True):
        positions = np.flatnonzero(train.table["label"].astype(str) == name)[:SAMPLES]
        for axes, position in zip(row, positions, strict=False):
            task.draw(axes, train.inputs[position])
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.set_frame_on(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    return figure


def render(
    settings: params.Params, data: dict[str, Any], images: dict[str, tuple[str, bytes]], history: pd.DataFrame
) -> str:
    """Fills the page's template; the pictures stand in it as data URIs, so that it needs no other file."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text()).render(
        title=settings.report.title,
        data=data,
        metrics=read_json(MODELS / "metrics.json"),
        inference=read_json(MODELS / "inference.json"),
        images={
            name: (caption, "data:image/png;base64," + base64.b64encode(png).decode())
            for name, (caption, png) in images.items()
        },
        epochs=len(history),
        best=int(history["epoch"][history["val_loss"].idxmin()]),
    )


if __name__ == "__main__":
    command.stage(__doc__, main)

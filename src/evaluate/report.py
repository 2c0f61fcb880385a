"""Makes one self-contained page that shows the model, its training, its mistakes and its data.

in:   params.yaml (report), build/prepared/, build/augmented.npz, src/models/predictions.parquet,
      src/models/{history,diagnosis,metrics,inference}.json
out:  src/models/report/index.html and its pictures as files: curves.png, predictions.png (the confusion
      matrix, or predicted against true), correct_predictions.png, incorrect_predictions.png

python -m src.evaluate.report
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pandas as pd

from src import command, diagram, params, prepared
from src.files import read_json, replacing
from src.pictures import GREY, WIDTH, draw_curves, draw_examples, draw_layers, encode_png
from src.plugin import pick

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MODELS = Path("src/models")
REPORT = MODELS / "report"
AUGMENTED = Path("build/augmented.npz")
TEMPLATE = Path(__file__).with_suffix(".html")
SAMPLES = 8  # of each class
MOST_CLASSES = 30  # whose samples are shown

Pictures = dict[str, tuple[str, "Figure"]]


@dataclass
class Rows:
    """Examples that are read rather than looked at, as a table.

    Args:
        caption: what the examples have in common.
        columns: the names of the columns; the first one is the examples' title.
        rows: the cells.
    """

    caption: str
    columns: list[str]
    rows: list[list[str]]


def main() -> None:
    """Runs the stage."""
    settings = params.load()
    task = pick("tasks", settings.task)
    encoder = task.Encoder.load(prepared.FOLDER)
    data = read_json(prepared.FOLDER / "data.json")
    objective = pick("objectives", data["objective"])
    predictions = pd.read_parquet(MODELS / "predictions.parquet")
    history = pd.DataFrame(read_json(MODELS / "history.json"))
    test, train = prepared.Split.open("test"), prepared.Split.open("train")

    pictures: Pictures = {"curves": ("", draw_curves(history))}
    diagnosis = read_json(MODELS / "diagnosis.json")
    pictures |= objective.pictures(predictions, data["names"])
    files = {"curves": "curves", "predictions": list(pictures)[1]}
    pictures["layers"] = ("", draw_layers(diagnosis["records"]))
    tables: dict[str, Rows] = {}
    headings: dict[str, str] = {}
    for name, shown in objective.showcase(predictions, settings.report.examples**2).items():
        pictures[name] = (shown.attrs["caption"], draw_examples(encoder, task.CELL, test.inputs, shown))
        files[name] = name
        headings[name] = shown.attrs["heading"]
        tables |= tabulate(name, encoder, test.inputs, shown)
    if data["names"] is None:
        samples = choose_numbers(train.table["label"])
    else:
        samples = choose_samples(objective.groups(train.labels, data["names"]))
    draw = draw_examples if data["names"] is None else draw_samples
    pictures["samples"] = (samples.attrs["caption"], draw(encoder, task.CELL, train.inputs, samples))
    tables |= tabulate("samples", encoder, train.inputs, samples)
    changed, augmented = open_augmented()
    if len(changed):
        pictures["augmented"] = (
            augmented.attrs["caption"],
            draw_samples(encoder, task.CELL, changed, augmented),
        )
        tables |= tabulate("augmented", encoder, changed, augmented)
    images = {name: (caption, encode_png(figure)) for name, (caption, figure) in pictures.items()}

    for file, name in files.items():
        with replacing(REPORT / f"{file}.png") as temporary:
            temporary.write_bytes(images[name][1])
    with replacing(REPORT / "index.html") as temporary:
        temporary.write_text(render(settings, data, images, tables, headings, history, diagnosis["verdicts"]))
    print(f"{REPORT / 'index.html'}: open it in a browser")


def tabulate(name: str, encoder: Any, inputs: np.ndarray, shown: pd.DataFrame) -> dict[str, Rows]:
    """Puts examples into a table under their name; nothing for those that are looked at."""
    described = [encoder.describe(inputs[position]) for position in shown.index]
    if not any(described):
        return {}
    columns = list(dict.fromkeys(column for words in described for column in words))
    rows = [
        [title, *(words.get(column, "") for column in columns)]
        for title, words in zip(shown["title"], described, strict=True)
    ]
    return {name: Rows(shown.attrs["caption"], ["", *columns], rows)}


def choose_samples(groups: dict[str, np.ndarray]) -> pd.DataFrame:
    """Chooses the first training examples of each class.

    Returns:
        `title` of each, its class, indexed by its position, the caption in `attrs`.
    """
    chosen = {name: groups[name][:SAMPLES] for name in list(groups)[:MOST_CLASSES]}
    titles = [name for name, positions in chosen.items() for _ in positions]
    samples = pd.DataFrame({"title": titles}, np.concatenate(list(chosen.values())))
    samples.attrs["caption"] = ""
    return samples


def choose_numbers(labels: pd.Series) -> pd.DataFrame:
    """Chooses training examples from the smallest number to the largest, as `choose_samples` does."""
    count = min(len(labels), SAMPLES**2 // 2)
    ranks = np.linspace(0, len(labels) - 1, count).astype(int)
    samples = labels.sort_values(kind="stable").iloc[ranks].map("{:g}".format).to_frame("title")
    samples.attrs["caption"] = "From the smallest to the largest"
    return samples


def open_augmented() -> tuple[np.ndarray, pd.DataFrame]:
    """Returns training examples, each as it is and as the network saw it, and a title for each."""
    with np.load(AUGMENTED, allow_pickle=False) as arrays:
        inputs = arrays["inputs"]
    count, versions = inputs.shape[:2]
    titles = [f"example {number}" for number in range(1, count + 1) for _ in range(versions)]
    samples = pd.DataFrame({"title": titles})
    samples.attrs["caption"] = f"As it is, and in the first {versions - 1} epochs"
    return inputs.reshape(-1, *inputs.shape[2:]), samples


def draw_samples(
    encoder: Any, cell: tuple[float, float], inputs: np.ndarray, samples: pd.DataFrame
) -> "Figure":
    """Draws training examples, a row for each class.

    Args:
        encoder: The task's encoder.
        cell: Width and height of one example, in inches.
        inputs: The encoded training inputs.
        samples: `title`, the class, indexed by position in `inputs`.
    """
    from matplotlib.figure import Figure

    columns = min(SAMPLES, max(1, round(1.6 * WIDTH / cell[0])))
    groups = samples.groupby("title")
    left = 1.2
    figure = Figure(figsize=(left + cell[0] * columns, cell[1] * len(groups)), facecolor="none")
    figure.subplots_adjust(left / (left + cell[0] * columns), 0.01, 0.99, 0.99, 0.05, 0.05)
    grid = figure.subplots(len(groups), columns, squeeze=False)
    for row, (name, group) in zip(grid, groups, strict=True):
        for axes, position in zip(row, group.index, strict=False):
            encoder.draw(axes, inputs[position])
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.set_frame_on(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8, color=GREY)
    return figure


def render(
    settings: params.Params,
    data: dict[str, Any],
    images: dict[str, tuple[str, bytes]],
    tables: dict[str, Rows],
    headings: dict[str, str],
    history: pd.DataFrame,
    verdicts: list[dict[str, Any]],
) -> str:
    """Fills the page's template; the pictures stand in it as data URIs, so that it needs no other file."""
    inference = read_json(MODELS / "inference.json")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text()).render(
        title=settings.report.title,
        data=data,
        metrics=read_json(MODELS / "metrics.json"),
        inference=inference,
        diagram=diagram.draw(inference["layers"]),
        images={
            name: (caption, "data:image/png;base64," + base64.b64encode(png).decode())
            for name, (caption, png) in images.items()
        },
        tables=tables,
        headings=headings,
        verdicts=verdicts,
        epochs=len(history),
        best=int(history["epoch"][history["val_loss"].idxmin()]),
    )


if __name__ == "__main__":
    command.stage(__doc__, main)

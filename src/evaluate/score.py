"""Scores the model on the test split and describes it.

in:   src/models/model.keras, build/prepared/, params.yaml
out:  src/models/metrics.json, src/models/predictions.parquet (a row for each test example),
      src/models/inference.json (what an application needs to use the model), and
      src/models/tokenizer.json where inputs are sentences

python -m src.evaluate.score
"""

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src import command, engine, params, prepared
from src.files import read_json, replacing, write_json
from src.network import Frame
from src.plugin import pick
from src.scoring import predict

if TYPE_CHECKING:
    import keras

MODELS = Path("src/models")
FORMAT = 1  # of inference.json


def main() -> None:
    """Runs the stage."""
    settings = params.load()
    test = prepared.Split.open("test")
    data = read_json(prepared.FOLDER / "data.json")
    objective = pick("objectives", data["objective"])

    model = engine.load(MODELS / "model.keras")
    outputs = predict(model, test, MODELS / "model.keras")
    metrics = objective.score(test.labels, outputs, data["names"])
    predictions = test.table[["id", "label"]].join(objective.predict(outputs, data["names"]))

    write_json(MODELS / "metrics.json", metrics)
    with replacing(MODELS / "predictions.parquet") as temporary:
        predictions.to_parquet(temporary)
    copy_tokenizer()
    write_json(MODELS / "inference.json", describe(model, settings, data, metrics))
    headline = next(iter(metrics))
    print(f"{MODELS / 'metrics.json'}: {headline} {metrics[headline]:.4f} on {len(test):,} test examples")


def copy_tokenizer() -> None:
    """Puts the encoder's tokenizer beside the model, or removes that of another task.

    It is small and kept in git; DVC cannot know it, since its stages always write the same files.
    """
    tokenizer = prepared.FOLDER / prepared.TOKENIZER
    if tokenizer.exists():
        with replacing(MODELS / prepared.TOKENIZER) as temporary:
            shutil.copyfile(tokenizer, temporary)
    else:
        (MODELS / prepared.TOKENIZER).unlink(missing_ok=True)


def describe(
    model: "keras.Model", settings: params.Params, data: dict[str, Any], metrics: dict[str, Any]
) -> dict[str, Any]:
    """Returns inference.json: nothing in it differs between two runs of one commit."""
    headline = next(iter(metrics))
    encoder = read_json(prepared.FOLDER / "encoder.json")
    architecture = pick("architectures", settings.architecture)
    frame = Frame.from_json(data["network"])
    own: dict[str, Any] = {}
    if hasattr(architecture, "describe"):
        own["model_parameters"] = architecture.describe(frame, settings.model)
    if (prepared.FOLDER / prepared.TOKENIZER).exists():
        own["tokenizer_path"] = prepared.TOKENIZER
    return {
        "format": FORMAT,
        "task_type": settings.task,
        "objective": data["objective"],
        "classes": data["names"],
        headline: metrics[headline],
        "architecture": {"name": settings.architecture, **settings.model.model_dump()},
        **own,
        "input": {"shape": model.input_shape[1:], "dtype": model.inputs[0].dtype},
        "output": {"units": frame.output.units, "activation": frame.output.activation},
        "encoder": encoder,
        "model_path": "model.keras",
        "plot_path": "report/curves.png",
        "correct_prediction": "report/correct_predictions.png",
        "incorrect_prediction": "report/incorrect_predictions.png",
        "data": {
            **settings.data.model_dump(),
            **{key: data[key] for key in ("hash", "test_hash", "examples")},
        },
        "fit": settings.fit.model_dump(),
        "parameters": model.count_params(),
        "layers": [describe_layer(layer) for layer in model.layers],
    }


def describe_layer(layer: "keras.Layer") -> dict[str, Any]:
    """Returns a layer's name, class, output shape (without the batch), parameters, and the layers before it.

    One that is a model of its own, such as a backbone, has `layers` too.
    """
    import keras

    described = {
        "name": layer.name,
        "type": type(layer).__name__,
        "shape": list(layer.output.shape[1:]),
        "parameters": layer.count_params(),
        "trainable_parameters": sum(math.prod(weight.shape) for weight in layer.trainable_weights),
        "inputs": list(dict.fromkeys(name_sources(layer))),
    }
    if isinstance(layer, keras.Model):
        described["layers"] = [describe_layer(inner) for inner in layer.layers]
    return described


def name_sources(operation: "keras.Operation") -> Iterator[str]:
    """Yields the layers that one takes its input from, straight or through bare operations, by name."""
    import keras

    # `operation.input` would be the inner one where the layer is a model.
    for tensor in operation._inbound_nodes[0].input_tensors:
        source = tensor._keras_history.operation
        if isinstance(source, keras.Layer):
            yield source.name
        else:
            yield from name_sources(source)


if __name__ == "__main__":
    command.stage(__doc__, main)

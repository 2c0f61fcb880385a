"""Writes the model as ONNX, which runs without Keras, and checks that it predicts the same.

in:   src/models/model.keras, build/prepared/
out:  src/models/model.onnx, the same bytes for the same model, and
      src/models/golden.json: a few raw test examples with the model's outputs (src/golden.py)

python -m src.evaluate.export
"""

from pathlib import Path

import numpy as np

from src import command, engine, golden, prepared
from src.conversion import convert
from src.errors import UserError
from src.files import read_json, replacing, write_json
from src.golden import TOLERANCE
from src.plugin import pick
from src.scoring import BATCH, predict

KERAS = Path("src/models/model.keras")
ONNX = Path("src/models/model.onnx")
GOLDEN = Path("src/models/golden.json")


def main() -> None:
    """Runs the stage."""
    test = prepared.Split.open("test")
    data = read_json(prepared.FOLDER / "data.json")
    model = engine.load(KERAS)

    for old in (ONNX, GOLDEN):
        old.unlink(missing_ok=True)
    with replacing(ONNX) as temporary:
        convert(model, temporary, KERAS)
        expected = predict(model, test, KERAS)
        found = run(temporary, test.inputs)
        difference = compare(expected, found, test, pick("objectives", data["objective"]), data["names"])
    write_golden(expected, test, data["names"])
    print(f"{ONNX}: differs from Keras by {difference:.1e} at most on {len(test):,} test examples")


def write_golden(outputs: np.ndarray, test: prepared.Split, names: list[str] | None) -> None:
    """Writes the golden examples of `prepare` with Keras' outputs for them.

    Args:
        outputs: For the test split, (examples, units).
        test: The split.
        names: The classes, or None where labels are numbers.
    """
    rows = {name: row for row, name in enumerate(test.table["id"])}
    examples = read_json(prepared.FOLDER / "test" / golden.NAME)
    for example in examples:
        example["output"] = [float(str(value)) for value in outputs[rows[example["id"]]]]
    write_json(GOLDEN, {"unit": _unit(outputs, names), "examples": examples})


def _unit(outputs: np.ndarray, names: list[str] | None) -> float:
    """Returns what differences are in proportion to: 1 for probabilities, else the spread of the numbers."""
    return 1.0 if names else float(outputs.std()) or 1.0


def run(path: Path, inputs: np.ndarray) -> np.ndarray:
    """Returns what ONNX Runtime computes on the CPU, (examples, units) float32."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    starts = range(0, len(inputs), BATCH)
    return np.concatenate([session.run(None, {name: inputs[start : start + BATCH]})[0] for start in starts])


def compare(
    expected: np.ndarray,
    found: np.ndarray,
    test: prepared.Split,
    objective: object,
    names: list[str] | None,
) -> float:
    """Checks that two runtimes agree on every example, in the outputs and in the predicted class.

    Args:
        expected: Keras' outputs, (examples, units).
        found: ONNX Runtime's outputs.
        test: The examples.
        objective: A file of src/objectives.
        names: The classes, or None where labels are numbers.

    Returns:
        The largest difference: that of probabilities, or of numbers in proportion to the number, or to the
        standard deviation of all of them where that is larger.

    Raises:
        UserError: If they do not agree; the message names the example.
    """
    if found.shape != expected.shape:
        raise UserError(f"{ONNX}: not written: expected outputs {expected.shape}, found {found.shape}")
    difference = golden.difference(expected, found, _unit(expected, names))
    worst = difference.reshape(len(difference), -1).max(axis=1)
    if worst.max() > TOLERANCE:
        example = test.table["id"].iloc[int(worst.argmax())]
        raise UserError(
            f"{ONNX}: not written: for {example} ONNX Runtime's output differs from Keras' by "
            f"{worst.max():.2g}, expected {TOLERANCE} at most"
        )
    if names:
        predicted = [objective.predict(outputs, names)["prediction"] for outputs in (expected, found)]  # type: ignore[attr-defined]
        rows = np.flatnonzero(predicted[0].to_numpy() != predicted[1].to_numpy())
        if len(rows):
            row = int(rows[0])
            raise UserError(
                f"{ONNX}: not written: {test.table['id'].iloc[row]} is {predicted[0].iloc[row]} to Keras and "
                f"{predicted[1].iloc[row]} to ONNX Runtime"
            )
    return float(worst.max())


if __name__ == "__main__":
    command.stage(__doc__, main)

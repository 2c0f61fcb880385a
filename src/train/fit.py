"""Builds the network, trains it on the prepared data, and keeps the epoch with the best validation loss.

in:   params.yaml (architecture, model, fit), build/prepared/
out:  src/models/model.keras, src/models/history.json (a record for each epoch)

python -m src.train.fit
"""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src import command, engine, params, prepared
from src.errors import UserError
from src.files import read_json, write_json
from src.network import Frame, make
from src.plugin import pick

if TYPE_CHECKING:
    import keras

MODEL = Path("src/models/model.keras")
HISTORY = Path("src/models/history.json")
FEW = 10  # steps of an epoch


def main() -> None:
    """Runs the stage."""
    settings = params.load()
    train, validation = prepared.Split.open("train"), prepared.Split.open("validation")
    data = read_json(prepared.FOLDER / "data.json")
    objective = pick("objectives", data["objective"])

    engine.start(settings.fit.seed, settings.fit.deterministic)
    frame = Frame.from_json(data["network"])
    model = pick("architectures", settings.architecture).build(frame, settings.model)
    batches = prepared.Batches(train, settings.fit.batch_size, settings.fit.seed)
    compile_model(model, objective, settings.fit, len(batches))
    if len(batches) < FEW:
        print(
            f"warning: {len(train):,} training examples are {len(batches)} steps in each epoch, few to learn "
            f"from; a smaller fit.batch_size than {settings.fit.batch_size} makes more of them"
        )

    history = train_model(model, batches, validation, settings.fit)
    engine.save(model, MODEL)
    write_json(HISTORY, history)
    best = min(history, key=lambda epoch: epoch["val_loss"])
    print(f"{MODEL}: epoch {best['epoch']} of {len(history)}, validation loss {best['val_loss']:.4f}")


def compile_model(model: "keras.Model", objective: Any, fit: params.Fit, steps: int) -> None:
    """Compiles the model with the objective's loss and metrics.

    Args:
        model: The network.
        objective: A file of src/objectives.
        fit: The `fit:` section.
        steps: Steps of one epoch.
    """
    model.compile(
        optimizer=make_optimizer(fit.optimizer, steps * fit.epochs),
        loss=objective.LOSS,
        metrics=objective.METRICS,
        jit_compile=fit.jit_compile,
        steps_per_execution=min(fit.steps_per_execution, steps),
    )


def make_optimizer(chosen: params.Optimizer, steps: int) -> "keras.Optimizer":
    """Makes a Keras optimizer, and its learning-rate schedule, by name and arguments.

    Args:
        chosen: The `fit.optimizer:` section. In a schedule, an argument that ends in `steps` may be a
            fraction: that share of the whole training.
        steps: Steps of the whole training.

    Raises:
        UserError: If Keras has no such optimizer or schedule, or it does not take the arguments.
    """
    import keras

    config = chosen.model_dump(exclude={"name"})
    if isinstance(config["learning_rate"], dict):
        schedule: dict[str, Any] = {
            key: math.ceil(value * steps) if key.endswith("steps") and isinstance(value, float) else value
            for key, value in config["learning_rate"].items()
        }
        name = schedule.pop("name")
        key = "fit.optimizer.learning_rate"
        config["learning_rate"] = make(keras.optimizers.schedules, name, schedule, key)
    return make(keras.optimizers, chosen.name, config, "fit.optimizer")


def train_model(
    model: "keras.Model", batches: prepared.Batches, validation: prepared.Split, fit: params.Fit
) -> list[dict[str, Any]]:
    """Trains, and leaves the model with the weights of the epoch whose validation loss was best.

    Returns:
        A record for each epoch: `epoch` from 1 on, losses, metrics and the learning rate at its end.

    Raises:
        UserError: If the loss is not a number from the start.
    """
    import keras

    class Epoch(keras.callbacks.Callback):
        """Tells the batches which epoch it is, logs the learning rate, and keeps the best weights.

        They are kept in memory: `ModelCheckpoint` writes HDF5, which crashes the process on a full disk.
        """

        best_loss = math.inf
        best_weights: list[np.ndarray] | None = None

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            batches.epoch = epoch

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)
            if logs["val_loss"] < self.best_loss:
                self.best_loss = logs["val_loss"]
                self.best_weights = self.model.get_weights()

    epochs = Epoch()
    callbacks = [epochs, keras.callbacks.TerminateOnNaN()]
    if fit.early_stopping:
        patience = fit.early_stopping.patience
        callbacks.append(keras.callbacks.EarlyStopping(monitor="val_loss", patience=patience))
    result = model.fit(
        batches.stream(),
        validation_data=validation.batches(fit.batch_size),
        epochs=fit.epochs,
        callbacks=callbacks,
        shuffle=False,  # the batches shuffle themselves
        verbose=1 if sys.stdout.isatty() else 2,
    )
    if epochs.best_weights is None:
        raise UserError(
            "params.yaml: fit.optimizer.learning_rate: the loss became infinite or no number in the first "
            "epoch; expected a rate low enough to learn"
        )
    model.set_weights(epochs.best_weights)
    columns = {key: [float(value) for value in values] for key, values in result.history.items()}
    return [
        {"epoch": number, **dict(zip(columns, values, strict=True))}
        for number, values in enumerate(zip(*columns.values(), strict=True), 1)
        if all(map(math.isfinite, values))  # an epoch that ended the training is none to plot
    ]


if __name__ == "__main__":
    command.stage(__doc__, main)

"""Builds the network, trains it on the prepared data, and keeps the epoch with the best validation loss.

in:   params.yaml (architecture, model, fit), build/prepared/
out:  src/models/model.keras, src/models/history.json (a record for each epoch, written as it ends: `dvc plots
      show` draws a training that runs), src/models/diagnosis.json (src/train/doctor.py);
      build/checkpoint.npz while it runs: what was killed goes on there

python -m src.train.fit
"""

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src import checkpoint, command, engine, params, prepared
from src.errors import UserError
from src.files import read_json, write_json
from src.network import Frame, make
from src.plugin import pick
from src.train.doctor import Doctor, finding

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

    keeper = checkpoint.Keeper(model, settings.fit, checkpoint.owner(settings))

    physician = Doctor(model, train, settings.fit)

    def watch(progress: checkpoint.Progress) -> None:
        write_json(HISTORY, progress.history)
        physician.watch(progress)

    history = train_model(model, batches, validation, settings.fit, keeper, watch)
    engine.save(model, MODEL)
    write_json(HISTORY, history)
    physician.write(keeper.progress)
    checkpoint.PATH.unlink(missing_ok=True)
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
    model: "keras.Model",
    batches: prepared.Batches,
    validation: prepared.Split,
    fit: params.Fit,
    keeper: checkpoint.Keeper,
    watch: Callable[[checkpoint.Progress], None] = lambda progress: None,
) -> list[dict[str, Any]]:
    """Trains, and leaves the model with the weights of the epoch whose validation loss was best.

    Args:
        model: The compiled network.
        batches: Of the training split.
        validation: The validation split.
        fit: The `fit:` section.
        keeper: Writes checkpoints, and has the one to go on from.
        watch: Called at the end of each epoch, before its checkpoint is written.

    Returns:
        A record for each epoch: `epoch` from 1 on, losses, metrics and the learning rate at its end.

    Raises:
        UserError: If the loss is not a number from the start.
    """
    import keras

    # Builds what a checkpoint holds: Keras makes the variables of optimizer and metrics when they are used.
    model.optimizer.build(model.trainable_variables)
    model.test_on_batch(*next(iter(batches)))
    progress = keeper.begin()

    class Watch(keras.callbacks.Callback):
        """Keeps history, checkpoints and the best weights, and stops when they get no better.

        The best weights stay in memory: `ModelCheckpoint` writes HDF5, which crashes on a full disk.
        """

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            batches.epoch = epoch
            if progress.step:  # the metrics of an epoch that has begun: Keras has just reset them
                for variable, value in zip(model.metrics_variables, begun, strict=True):
                    variable.assign(value)

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            progress.step = batches.first + batch + 1
            if progress.step < len(batches) and keeper.due(progress):
                keeper.write(progress)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            rate = float(model.optimizer.learning_rate)
            record = {name: float(value) for name, value in logs.items()} | {"learning_rate": rate}
            if all(map(math.isfinite, record.values())):  # an epoch that ended the training is none to plot
                progress.history.append({"epoch": epoch + 1, **record})
            progress.waited += 1
            if record["val_loss"] < (math.inf if progress.best_loss is None else progress.best_loss):
                progress.best_loss, progress.waited = record["val_loss"], 0
                progress.best_weights = model.get_weights()
            model.stop_training |= is_over(progress, fit)
            progress.epoch = epoch + 1
            watch(progress)  # which sees how far the epoch came
            progress.step = 0
            if keeper.due(progress):
                keeper.write(progress)

    begun = [np.asarray(variable) for variable in model.metrics_variables]
    batches.first = progress.step
    # A training that was killed within an epoch ends that epoch first.
    for end in [progress.epoch + 1, fit.epochs] if progress.step else [fit.epochs]:
        if progress.epoch < end and not is_over(progress, fit):
            model.fit(
                batches.stream(),
                validation_data=validation.batches(fit.batch_size),
                initial_epoch=progress.epoch,
                epochs=end,
                callbacks=[Watch(), keras.callbacks.TerminateOnNaN()],
                shuffle=False,  # the batches shuffle themselves
                verbose=1 if sys.stdout.isatty() else 2,
            )
        batches.first = 0
    if not progress.best_weights:
        raise UserError(
            "params.yaml: fit.optimizer.learning_rate: the loss became infinite or no number in the first "
            f"epoch; expected a rate low enough to learn{finding(progress)}"
        )
    model.set_weights(progress.best_weights)
    return progress.history


def is_over(progress: checkpoint.Progress, fit: params.Fit) -> bool:
    """Whether validation loss has not improved for as long as `fit.early_stopping` waits."""
    return fit.early_stopping is not None and progress.waited >= fit.early_stopping.patience


if __name__ == "__main__":
    command.stage(__doc__, main)

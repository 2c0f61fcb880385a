"""Builds the network, trains it on the prepared data, and keeps the epoch with the best validation loss.

in:   params.yaml (architecture, model, fit), build/prepared/
out:  src/models/model.keras, src/models/history.json (a record for each epoch, written as it ends: `dvc plots
      show` draws a training that runs), src/models/diagnosis.json (src/train/doctor.py),
      build/augmented.npz (what the network saw of some examples);
      build/checkpoint.npz while it runs: what was killed goes on there; SIGTERM, as from systemd or a machine
      that is taken away, ends it with exit status 143 once it has written one more

python -m src.train.fit
"""

import math
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src import command, engine, params, prepared
from src.errors import UserError
from src.files import alone, read_json, replacing, write_json
from src.network import Input
from src.plugin import pick
from src.train import batch_size, compiling
from src.train.doctor import Doctor, finding
from src.training import augmentation, checkpoint, watching

if TYPE_CHECKING:
    import keras

MODEL = Path("src/models/model.keras")
HISTORY = Path("src/models/history.json")
AUGMENTED = Path("build/augmented.npz")
LOCK = Path("build/fit.lock")  # a training that outlives a `dvc repro` that was killed is not alone
FEW = 10  # steps of an epoch
SHOWN, VERSIONS = 6, 5  # examples whose augmentation the report shows, in so many epochs


def main() -> None:
    """Runs the stage."""
    with alone(LOCK, MODEL, HISTORY, AUGMENTED, checkpoint.PATH):
        run()


def run() -> None:
    """Trains as params.yaml says."""
    settings = params.load()
    fit = settings.fit
    train, validation = prepared.Split.open("train"), prepared.Split.open("validation")
    data = read_json(prepared.FOLDER / "data.json")
    objective = pick("objectives", data["objective"])
    size = fit.batch_size
    if size == "auto":  # measured before anything is on a GPU, whose memory both would not fit
        size = checkpoint.saved_batch_size(checkpoint.owner(settings)) or batch_size.measure()

    engine.start(fit.seed, fit.deterministic)
    augment = augmentation.Augmenter(fit.augment, Input.from_json(data["network"]["input"]), fit.seed)
    classes = compiling.classes(objective, fit, data, augment.mixes)
    batches = prepared.Batches(
        train, size, fit.seed, classes=classes, change=augment if fit.augment else None
    )
    checks = prepared.Batches(validation, size, classes=classes)
    if len(batches) < FEW:
        print(
            f"warning: {len(train):,} training examples are {len(batches)} steps in each epoch, few to learn "
            f"from; a smaller fit.batch_size than {size} makes more of them"
        )

    def watch(progress: checkpoint.Progress) -> None:
        if looked is not model:
            looked.set_weights(model.get_weights())
        if progress.history:
            write_json(HISTORY, progress.history)
            monitors.epoch(progress.history)
        physician.watch(progress)

    def enter(phase: int) -> None:
        compiling.fine_tune(model, settings, objective, len(batches), augment.mixes)

    strategy = engine.place(fit.device)
    engine.compute_in(fit.precision)
    with strategy.scope():
        model = compiling.build(settings, data)
        compiling.compile_model(model, objective, fit, len(batches), augment.mixes)
    looked = model  # by doctor and monitors: a copy on one device, where several train
    if strategy.num_replicas_in_sync > 1:
        looked = engine.copy(model)
        compiling.compile_model(looked, objective, fit, len(batches), augment.mixes)
    keeper = checkpoint.Keeper(model, fit, checkpoint.owner(settings), enter)
    weights = compiling.class_weights(fit.class_weight, train.labels, data["names"], objective)
    physician = Doctor(looked, batches, fit)
    monitors = watching.start(settings, looked, objective, checks, data["names"])
    with monitors, strategy.scope(), leaving(keeper):
        history = train_model(model, batches, checks, fit, keeper, watch, weights)
    if fit.precision != "float32":  # what is saved computes in 32 bits, whoever runs it
        trained = model.get_weights()
        engine.start(fit.seed, fit.deterministic)
        model = compiling.build(settings, data)
        model.set_weights(trained)
    engine.save(model, MODEL)
    write_json(HISTORY, history)
    write_augmented(batches)
    physician.write(keeper.progress)
    checkpoint.PATH.unlink(missing_ok=True)
    best = min(history, key=lambda epoch: epoch["val_loss"])
    print(f"{MODEL}: epoch {best['epoch']} of {len(history)}, validation loss {best['val_loss']:.4f}")


@contextmanager
def leaving(keeper: checkpoint.Keeper) -> Iterator[None]:
    """Has SIGTERM write a checkpoint and leave at the end of the step or epoch; another one changes nothing.

    Whoever ends a process with all its children may well send it twice.
    """

    def leave(*_: Any) -> None:
        keeper.leaving = True

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def train_model(
    model: "keras.Model",
    batches: prepared.Batches,
    validation: prepared.Batches,
    fit: params.Fit,
    keeper: checkpoint.Keeper,
    watch: Callable[[checkpoint.Progress], None] = lambda progress: None,
    class_weight: dict[int, float] | None = None,
) -> list[dict[str, Any]]:
    """Trains, and leaves the model with the weights of the epoch whose validation loss was best.

    Args:
        model: The compiled network.
        batches: Of the training split.
        validation: Of the validation split.
        fit: The `fit:` section.
        keeper: Writes checkpoints, and has the one to go on from.
        watch: Called at the end of each epoch, before its checkpoint is written.
        class_weight: Of each class in the loss.

    Returns:
        A record for each epoch: `epoch` from 1 on, losses, metrics and the learning rate at its end.

    Raises:
        UserError: If the loss is not a number from the start.
    """
    import keras

    def measure() -> None:
        """Makes what a checkpoint holds: Keras makes the variables of optimizer and metrics when used."""
        model.optimizer.build(model.trainable_variables)
        model.test_on_batch(*next(iter(batches)))

    progress = keeper.begin(measure)
    if not progress.history and not progress.step:
        progress.batch_size = batches.size

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
            finite = all(map(math.isfinite, record.values()))
            if finite:  # an epoch that ended the training is none to plot
                progress.history.append({"epoch": epoch + 1, **record})
            progress.waited += 1
            if record["val_loss"] < (math.inf if progress.best_loss is None else progress.best_loss):
                progress.best_loss, progress.waited = record["val_loss"], 0
                progress.best_weights = model.get_weights()
            progress.epoch = epoch + 1
            patience = fit.early_stopping.patience if fit.early_stopping else math.inf
            over = progress.waited >= patience or progress.epoch >= fit.epochs
            if fit.fine_tune and not progress.phase and (over or progress.epoch >= fit.fine_tune.after):
                over = progress.epoch >= fit.epochs
                progress.thaw, progress.waited = not over, 0
            progress.ended = over or not finite
            model.stop_training |= progress.ended or progress.thaw
            watch(progress)  # which sees how far the epoch came
            progress.step = 0
            if keeper.due(progress):
                keeper.write(progress)

    begun = [np.asarray(variable) for variable in model.metrics_variables]
    batches.first = progress.step
    while not progress.ended:
        if progress.thaw:  # the backbone is trained too, from where the network was best
            progress.thaw, progress.phase = False, 1
            model.set_weights(progress.best_weights)
            keeper.enter(progress.phase)
            measure()
        end = fit.epochs
        if batches.first:  # a training that was killed within an epoch ends that epoch first
            end = progress.epoch + 1
        elif fit.fine_tune and not progress.phase:
            end = min(end, fit.fine_tune.after)
        model.fit(
            batches.stream(),
            validation_data=validation.stream(),
            initial_epoch=progress.epoch,
            epochs=end,
            callbacks=[Watch(), keras.callbacks.TerminateOnNaN()],
            class_weight=class_weight,
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


def write_augmented(batches: prepared.Batches) -> None:
    """Writes some training examples as they are, and as the network saw them in the first epochs.

    `inputs` in AUGMENTED: (examples, 1 + epochs, …); no example where there is no augmentation.
    """
    count, change = SHOWN if batches.change else 0, batches.change
    inputs, labels = batches.split.inputs[:count], batches.encode(batches.split.labels[:count])
    seen = [change(inputs, labels, epoch, 0)[0] for epoch in range(VERSIONS)] if change else []
    with replacing(AUGMENTED) as temporary, open(temporary, "wb") as file:
        np.savez(file, inputs=np.stack([inputs, *seen], axis=1))


if __name__ == "__main__":
    command.stage(__doc__, main)

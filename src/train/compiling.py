"""What `fit:` of params.yaml says, as Keras objects: optimizer, loss, metrics, class weights."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from src import params
from src.errors import UserError, nearest
from src.network import Frame, make
from src.plugin import pick

if TYPE_CHECKING:
    import keras

SPARSE = "sparse"  # losses and metrics of this name take positions of classes, all others probabilities


def build(settings: params.Params, data: dict[str, Any]) -> "keras.Model":
    """Builds the network for the prepared data, as the current precision has it."""
    frame = Frame.from_json(data["network"])
    model: keras.Model = pick("architectures", settings.architecture).build(frame, settings.model)
    return model


def classes(objective: Any, fit: params.Fit, data: dict[str, Any], mixes: bool = False) -> int | None:
    """Returns how many classes labels are probabilities of; None where they are given as they are."""
    return len(data["names"]) if one_hot(objective, fit, mixes) else None


def compile_model(
    model: "keras.Model", objective: Any, fit: params.Fit, steps: int, mixes: bool = False
) -> None:
    """Compiles the model with what objective and parameters say.

    Args:
        model: The network.
        objective: A file of src/objectives.
        fit: The `fit:` section.
        steps: Steps of one epoch.
        mixes: Whether the labels of classes become probabilities, by augmentation.

    Raises:
        UserError: If Keras has no such optimizer, schedule, loss or metric, or it refuses its arguments.
    """
    import keras
    import tensorflow as tf

    several = tf.distribute.get_strategy().num_replicas_in_sync > 1  # which take no loops of steps
    loss: Any = objective.LOSS
    if one_hot(objective, fit, mixes):
        loss = loss.removeprefix(f"{SPARSE}_")
    if fit.loss is not None:
        loss = make(keras.losses, *fit.loss.split(), "fit.loss")
    metrics = [make(keras.metrics, *metric.split(), "fit.metrics") for metric in fit.metrics]
    model.compile(
        optimizer=make_optimizer(fit.optimizer, steps * fit.epochs),
        loss=loss,
        metrics=[*objective.METRICS, *metrics],
        jit_compile=fit.jit_compile,
        steps_per_execution=1 if several else min(fit.steps_per_execution, steps),
    )


def fine_tune(
    model: "keras.Model", settings: params.Params, objective: Any, steps: int, mixes: bool = False
) -> None:
    """Begins the second phase of `fit.fine_tune`: unfreezes the backbone, compiles with the lower rate.

    Raises:
        UserError: If the architecture has nothing to unfreeze, or no layer of that name.
    """
    tune = settings.fit.fine_tune
    architecture = pick("architectures", settings.architecture)
    if tune is None or not hasattr(architecture, "unfreeze"):
        raise UserError(
            f"params.yaml: fit.fine_tune: architecture {settings.architecture} has nothing frozen to train "
            "later; expected transfer"
        )
    architecture.unfreeze(model, tune.start)
    optimizer = settings.fit.optimizer.model_copy(update={"learning_rate": tune.learning_rate})
    compile_model(model, objective, settings.fit.model_copy(update={"optimizer": optimizer}), steps, mixes)


def one_hot(objective: Any, fit: params.Fit, mixes: bool = False) -> bool:
    """Whether classes are given to the network as probabilities rather than as positions.

    Raises:
        UserError: If the loss, the metrics and the augmentation ask for both.
    """
    if not objective.LOSS.startswith(SPARSE):
        return False
    named = [each.name for each in (fit.loss, *fit.metrics) if each is not None]
    sparse = [name for name in named if name.lower().startswith(SPARSE)]
    others = [name for name in named if not name.lower().startswith(SPARSE)]
    if sparse and (others or mixes):
        other = f"{others[0]} takes" if others else "mixed examples have"
        raise UserError(
            f"params.yaml: fit: {sparse[0]} takes the position of a class, but {other} a probability for "
            "each; expected one kind"
        )
    return bool(others) or mixes


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


def class_weights(
    chosen: Any, labels: np.ndarray, classes: list[str] | None, objective: Any
) -> dict[int, float] | None:
    """Returns the weight of each class in the loss, as Keras takes it.

    Args:
        chosen: `fit.class_weight`: `balanced` weighs a class by the inverse of how many examples it has, so
            that all count alike (scikit-learn's formula); else a weight by class name, 1 where none is given.
        labels: (examples,) positions of the classes, of the training split.
        classes: Their names.
        objective: A file of src/objectives.

    Raises:
        UserError: If examples have no one class each, or there is no such class.
    """
    if chosen is None:
        return None
    if classes is None or labels.ndim != 1:
        name = objective.__name__.rpartition(".")[2]
        raise UserError(f"params.yaml: fit.class_weight: found objective {name}, expected classification")
    if chosen == "balanced":
        counts = np.maximum(np.bincount(labels, minlength=len(classes)), 1)
        return dict(enumerate((len(labels) / (len(classes) * counts)).tolist()))
    unknown = [name for name in chosen if name not in classes]
    if unknown:
        raise UserError(
            f"params.yaml: fit.class_weight: there is no class {unknown[0]!r}{nearest(unknown[0], classes)}"
        )
    return {position: chosen.get(name, 1.0) for position, name in enumerate(classes)}

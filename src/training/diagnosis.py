"""What is wrong with a training: verdicts from its losses and from what was seen in its layers. Numbers only.

    history     a record for each epoch, as in src/models/history.json
    records     what the doctor saw in the network before the first step, and again after epochs: `epoch`,
                `loss` of the probe, `broken` where a number is none any more, and `layers`, name →
                    gradient     its norm, relative to that of the weights
                    weights      their norm
                    moved        how far they are from where they began, relative to their norm then
                    mean, deviation  of the outputs
                    dead         share of the units that are 0 throughout the probe
                    saturated    share of the outputs at an end of sigmoid or tanh
    facts       prior        the loss of always saying how frequent each class is, or the mean
                simple       that of kernel ridge regression on `sampled` examples, leaving one out
                informative  whether it does better than with labels in another order
                constant, finite  the inputs
                examples, epochs, steps  of the training
                kinds        name → class of each layer

All losses are judged in units of the prior's, so that a rule holds for any objective.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

History = list[dict[str, Any]]
Verdict = dict[str, Any]

# In units of the prior's loss, if not said otherwise. Chosen on seeds from 10 up (benchmark/doctor.py).
DIVERGED = 1.5  # a training loss as high as that, and higher than at the beginning
BLOWN = 10.0  # times that: no need to wait for a third epoch
FLUNG = 30.0  # times their first size that weights have moved
STUCK = 0.9  # a training loss above it has learned next to nothing
EXPLODED = 100.0  # gradient, relative to the weights
VANISHED = 1e-3  # gradient of the first layers, as a share of that of the last one
DEAD = 0.5  # share of a layer's units
STILL = 0.03  # times their first size: weights that have hardly moved
WORSE = 0.15  # so much worse than kernel ridge regression on examples that it has not seen
RISE = 0.08  # of validation loss since its best
FALL = 0.7  # times the training loss at that epoch
ENOUGH = 100  # examples, to tell labels from shuffled ones
USELESS = 0.98  # a validation loss above it is no better than the prior's


def diagnose(
    history: History, records: Sequence[dict[str, Any]], facts: dict[str, Any], over: bool = True
) -> list[Verdict]:
    """Judges a training by what is known so far.

    Args:
        history: A record for each finished epoch.
        records: As the module says; the first one is from before the first step.
        facts: As the module says.
        over: Whether the training has ended. Before, what only time can tell is left open for half of its
            epochs.

    Returns:
        The verdicts, the gravest first, each with `name`, `epoch` where it began (0: before the first step),
        `evidence` and `advice`. What follows from another one is left out. Empty: healthy.
    """
    data = [*_inputs(facts)]
    if data:
        return data
    settled = over or len(history) >= max(3, facts["epochs"] / 2)
    found = [*_nan(records), *_exploding(records, facts), *_too_high(history, records, facts, over)]
    if not found:
        found = [*_dead(records, facts)] or [*_vanishing(history, records, facts)]
    if found or not history:
        return found
    labels = [*_labels(history, facts)]
    if settled:
        found = labels or [*_too_low(history, records, facts)]
    if not found and not labels:
        found = [*_overfitting(history, facts)]
    if not found and settled:
        found = [*_underfitting(history, facts)]
    return found


def _verdict(name: str, epoch: int, evidence: str, advice: str) -> Verdict:
    return {"name": name, "epoch": epoch, "evidence": evidence, "advice": advice}


# ── The data ───────────────────────────────────────────────────────────────────────────────────────────


def _inputs(facts: dict[str, Any]) -> Iterator[Verdict]:
    if not facts["finite"]:
        yield _verdict(
            "broken_inputs",
            0,
            "some inputs are infinite or no number where the first layer that learns takes them",
            "mend the examples at data.path, or how encode makes numbers of them",
        )
    elif facts["constant"]:
        yield _verdict(
            "constant_inputs",
            0,
            f"all of {facts['sampled']} training inputs that were looked at are the same",
            "look at what lies at data.path, and at what encode makes of it",
        )


def _labels(history: History, facts: dict[str, Any]) -> Iterator[Verdict]:
    best = min(record["val_loss"] for record in history) / facts["prior"]
    if not facts["informative"] and best > USELESS and facts["sampled"] >= ENOUGH:
        yield _verdict(
            "shuffled_labels",
            1,
            f"validation loss never got below {best:.2f} times that of a constant guess, and kernel ridge "
            f"regression on {facts['sampled']} examples finds no more in their labels than in shuffled ones",
            "check that the labels at data.path, and data.label, belong to the inputs beside them",
        )


# ── The optimizer ──────────────────────────────────────────────────────────────────────────────────────


def _nan(records: Sequence[dict[str, Any]]) -> Iterator[Verdict]:
    for record in records:
        if "broken" in record:
            yield _verdict(
                "nan",
                record["epoch"],
                broken_sentence(record),
                "lower fit.optimizer.learning_rate, or set fit.optimizer.clipnorm: 1.0; if it stays, look "
                "for huge numbers in the inputs at data.path; fit.steps_per_execution: 1 finds the very step",
            )
            return


def broken_sentence(record: dict[str, Any]) -> str:
    """Says where and when a number was first none.

    Args:
        record: One with `broken`: `layer`, `what`, and `steps`, the first and the last in question.
    """
    broken = record["broken"]
    first, last = broken["steps"]
    when = f"step {last}" if first == last else f"steps {first} to {last}"
    where = f"first in the {broken['what']} of layer {broken['layer']}" if broken["layer"] else "in the loss"
    return f"infinite or no number in {when} of epoch {record['epoch']}, {where}"


def _too_high(
    history: History, records: Sequence[dict[str, Any]], facts: dict[str, Any], over: bool
) -> Iterator[Verdict]:
    prior, start = facts["prior"], _first_loss(records, facts)
    rate = "lower fit.optimizer.learning_rate, tenfold to begin with"
    high = [record for record in history if record["loss"] > DIVERGED * max(prior, start)]
    last = history[-1]["loss"] if history else 0.0
    settled = over or len(history) >= 3 or last > BLOWN * max(prior, start)
    if high and settled and last > STUCK * prior:  # not where it recovered
        yield _verdict(
            "learning_rate_too_high",
            high[0]["epoch"],
            f"training loss of epoch {high[0]['epoch']} is {high[0]['loss']:.3g}, after {start:.3g} before "
            f"the first step; a constant guess has {prior:.3g}",
            rate,
        )
        return
    losses = {record["epoch"]: record["loss"] for record in history}
    for record in records[1:]:
        name, moved = _extreme(record, "moved")
        loss = losses.get(record["epoch"])
        if loss is not None and loss > STUCK * prior and moved > FLUNG:
            yield _verdict(
                "learning_rate_too_high",
                record["epoch"],
                f"by epoch {record['epoch']} the weights of layer {name} moved {moved:.3g} times their size, "
                f"and training loss is {loss:.3g}; a constant guess has {prior:.3g}",
                rate,
            )
            return


def _too_low(history: History, records: Sequence[dict[str, Any]], facts: dict[str, Any]) -> Iterator[Verdict]:
    name, moved = _extreme(records[-1], "moved")
    last, start = history[-1]["loss"], _first_loss(records, facts)
    if len(records) > 1 and moved < STILL and last > STUCK * min(start, facts["prior"]):
        yield _verdict(
            "learning_rate_too_low",
            1,
            f"after {records[-1]['epoch']} epochs no layer's weights moved more than {moved:.2g} times their "
            f"size ({name}), and training loss is {last:.3g} after {start:.3g} before the first step",
            "raise fit.optimizer.learning_rate tenfold, or give it more fit.epochs",
        )


# ── The layers ─────────────────────────────────────────────────────────────────────────────────────────


def _exploding(records: Sequence[dict[str, Any]], facts: dict[str, Any]) -> Iterator[Verdict]:
    """Gradients explode that are huge before the rate could have done it."""
    for record in records[:1]:
        name, gradient = _extreme(record, "gradient")
        if gradient > EXPLODED * facts["prior"]:
            yield _verdict(
                "exploding_gradient",
                record["epoch"],
                f"before the first step, the gradient of layer {name} is {gradient:.3g} times its weights, "
                f"with a loss of {_first_loss(records, facts):.3g}; a constant guess has "
                f"{facts['prior']:.3g}",
                "set model.batch_normalization: true and fit.optimizer.clipnorm: 1.0, or fewer layers in "
                "model",
            )


def _vanishing(
    history: History, records: Sequence[dict[str, Any]], facts: dict[str, Any]
) -> Iterator[Verdict]:
    if not history or history[-1]["loss"] < STUCK * facts["prior"]:
        return
    shares = []
    for record in records:
        gradients = [
            layer["gradient"]
            for name, layer in record["layers"].items()
            if layer.get("gradient") is not None and facts["kinds"][name] not in NO_DEPTH
        ]
        if len(gradients) >= 3 and gradients[-1] > 0:
            shares.append(max(gradients[: len(gradients) // 3]) / gradients[-1])
    if shares and max(shares[:3]) < VANISHED:
        yield _verdict(
            "vanishing_gradient",
            records[0]["epoch"],
            f"relative to their weights, the first layers' gradient is {max(shares[:3]):.1g} times that of "
            f"the last one, and training loss is {history[-1]['loss']:.3g}; a constant guess has "
            f"{facts['prior']:.3g}",
            "fewer layers in model, model.batch_normalization: true, or model.activation: relu",
        )


NO_DEPTH = ("Embedding", "BatchNormalization")  # a few rows have a gradient; a gradient of another size


def _dead(records: Sequence[dict[str, Any]], facts: dict[str, Any]) -> Iterator[Verdict]:
    """Units are dead that were so in both of the last two records; those of frozen layers need not live."""
    names = list(records[-1]["layers"])
    learning = [name for name in names if records[-1]["layers"][name].get("gradient") is not None]
    for name in names[names.index(learning[0]) :] if learning else []:
        shares = [record["layers"].get(name, {}).get("dead") or 0.0 for record in records[-2:]]
        if min(shares) >= DEAD:
            since = len(records)
            while since and (records[since - 1]["layers"].get(name, {}).get("dead") or 0.0) >= DEAD:
                since -= 1
            yield _verdict(
                "dead_units",
                records[since]["epoch"],
                f"{shares[-1]:.0%} of the units of layer {name} are 0 for every example of the probe",
                "lower fit.optimizer.learning_rate, or set model.batch_normalization: true",
            )
            return


# ── Fitting ────────────────────────────────────────────────────────────────────────────────────────────


def _overfitting(history: History, facts: dict[str, Any]) -> Iterator[Verdict]:
    """Validation loss rose, for two epochs at least, while training loss fell."""
    best = min(history, key=lambda record: record["val_loss"])
    last = history[-1]
    rise = min(record["val_loss"] for record in history[-2:]) - best["val_loss"]
    if rise > RISE * facts["prior"] and last["loss"] < FALL * best["loss"]:
        yield _verdict(
            "overfitting",
            best["epoch"],
            f"since epoch {best['epoch']} validation loss rose from {best['val_loss']:.3g} to "
            f"{last['val_loss']:.3g} while training loss fell from {best['loss']:.3g} to {last['loss']:.3g}",
            "more data at data.path (data.sample: 1.0), fit.augment, a higher model.dropout, or a smaller "
            "network in model",
        )


def _underfitting(history: History, facts: dict[str, Any]) -> Iterator[Verdict]:
    reached = max(min(record["loss"] for record in history), min(record["val_loss"] for record in history))
    least = min(record["loss"] for record in history)
    if least > facts["simple"] + WORSE * facts["prior"]:
        yield _verdict(
            "underfitting",
            history[-1]["epoch"],
            f"training loss never got below {least:.3g}, validation loss not below {reached:.3g}; a constant "
            f"guess has {facts['prior']:.3g}, kernel ridge regression on {facts['sampled']} examples "
            f"{facts['simple']:.3g}",
            "a larger network in model, a lower model.dropout, or more fit.epochs",
        )


def _first_loss(records: Sequence[dict[str, Any]], facts: dict[str, Any]) -> float:
    loss = records[0]["loss"]
    return float(facts["prior"] if loss is None else loss)


def _extreme(record: dict[str, Any], what: str) -> tuple[str, float]:
    """Returns the layer with the largest number of a kind, and that number."""
    values = {name: layer.get(what) for name, layer in record["layers"].items()}
    known = {name: value for name, value in values.items() if value is not None}
    name = max(known, key=lambda name: known[name], default="")
    return name, known.get(name, 0.0)


# ── What the data lets one expect ──────────────────────────────────────────────────────────────────────

PENALTIES = (0.01, 0.1, 1.0, 10.0)
SHUFFLES = 20


def kernel_ridge(features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, bool]:
    """Predicts each example from all others by kernel ridge regression, in closed form.

    With H = K (K + λI)⁻¹ the prediction for example i without it is ((HY)ᵢ - Hᵢᵢ Yᵢ) / (1 - Hᵢᵢ): Hastie,
    Tibshirani and Friedman, The Elements of Statistical Learning, section 7.10.1. A linear and a Gaussian
    kernel are tried, with several λ; the best is chosen with the labels in order, and again for each shuffle.

    Args:
        features: (examples, features) float32.
        targets: (examples, outputs) float.

    Returns:
        (examples, outputs) the predictions, and whether their error is by more than four standard
        deviations smaller than with shuffled labels.
    """
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    linear = (scaled @ scaled.T).astype(np.float64) / max(1, np.count_nonzero(spread))
    distances = np.maximum(np.diag(linear)[:, None] + np.diag(linear) - 2 * linear, 0)
    gaussian = np.exp(-distances / max(float(np.median(distances)), 1e-12))

    mean = targets.mean(axis=0)
    centred = targets - mean
    draw = np.random.default_rng(0)
    orders = [np.arange(len(targets)), *(draw.permutation(len(targets)) for _ in range(SHUFFLES))]
    together = np.concatenate([centred[order] for order in orders], axis=1)
    least = np.full(len(orders), np.inf)
    predictions = np.zeros_like(centred)
    for kernel in (linear, gaussian):
        values, vectors = np.linalg.eigh(kernel)
        values = np.maximum(values, 0)
        turned = vectors.T @ together
        for penalty in PENALTIES:
            kept = values / (values + penalty)
            own = np.minimum(vectors**2 @ kept, 1 - 1e-6)[:, None]
            left_out = (vectors @ (kept[:, None] * turned) - own * together) / (1 - own)
            errors = ((left_out - together) ** 2).reshape(len(targets), len(orders), -1).mean(axis=(0, 2))
            if errors[0] < least[0]:
                predictions = left_out[:, : centred.shape[1]]
            least = np.minimum(least, errors)
    chance = least[1:]
    return predictions + mean, bool(least[0] < chance.mean() - 4 * max(chance.std(), 1e-9))

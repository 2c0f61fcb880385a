"""Checkpoints: a training that ended at any step goes on exactly, or starts afresh and says why."""

import resource
from typing import Any

import numpy as np
import pandas as pd
import pytest

from src import engine, params, prepared
from src.objectives import classification
from src.train import compiling, fit
from src.training import checkpoint

EPOCHS = 4
STEPS = 5


class KilledError(Exception):
    """Ends a training as a signal would."""


@pytest.fixture
def split() -> prepared.Split:
    """Forty examples of three numbers, of two classes that overlap a little: five steps of eight."""
    labels = np.arange(40, dtype=np.int32) % 2
    inputs = np.random.default_rng(0).normal(size=(40, 3)) + labels[:, None]
    return prepared.Split(inputs.astype(np.float32), labels, pd.DataFrame({"id": labels.astype(str)}))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Any:
    """What a training that nobody disturbs ends with, computed once."""
    kept: list[Any] = []

    def run(train: Any) -> Any:
        if not kept:
            kept.append(train())
            checkpoint.PATH.unlink()
        return kept[0]

    return run


@pytest.fixture
def train(workspace, split):
    """Trains a network with dropout and normalisation; `kill_at` steps in, it ends as if killed.

    Checkpoints are written at every step, or as `every` says.
    """
    import keras

    def run(kill_at: int | None = None, belongs: Any = None, **settings: Any) -> tuple[Any, list[np.ndarray]]:
        engine.start(0)
        every = settings.pop("every", {"minutes": 1e-9})
        chosen = params.Fit.model_validate(
            {
                "epochs": EPOCHS,
                "batch_size": 8,
                "steps_per_execution": 1,
                "checkpoint_every": every,
                **settings,
            }
        )
        layers = [
            keras.layers.Dense(8),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(2, activation="softmax"),
        ]
        model = keras.Sequential([keras.Input((3,)), *layers])
        batches = prepared.Batches(split, 8, 0)
        compiling.compile_model(model, classification, chosen, len(batches))
        keeper = checkpoint.Keeper(model, chosen, belongs or {})
        due, steps = keeper.due, iter(range(1, 1000))

        def killed(progress: checkpoint.Progress) -> bool:
            if next(steps) == kill_at:
                raise KilledError
            return due(progress)

        keeper.due = killed  # type: ignore[method-assign]
        history = fit.train_model(model, batches, prepared.Batches(split, 8), chosen, keeper)
        return history, [np.asarray(variable) for variable in model.variables]

    return run


def same(one: tuple[Any, list[np.ndarray]], other: tuple[Any, list[np.ndarray]]) -> bool:
    """Whether two trainings ended with the same history and the same bytes in every variable."""
    pairs = zip(one[1], other[1], strict=True)
    return one[0] == other[0] and all(a.tobytes() == b.tobytes() for a, b in pairs)


@pytest.mark.parametrize(
    "step", [pytest.param(2, marks=pytest.mark.slow), 5, pytest.param(EPOCHS * STEPS, marks=pytest.mark.slow)]
)
def test_a_training_that_is_killed_at_a_step_ends_as_if_it_never_had_been(train, whole, step):
    expected = whole(train)
    with pytest.raises(KilledError):
        train(kill_at=step)
    assert same(train(), expected)


@pytest.mark.slow
def test_killed_again_and_again_it_still_gets_there(train, whole):
    expected = whole(train)
    for _ in range(2):
        with pytest.raises(KilledError):
            train(kill_at=7)
    assert same(train(), expected)


def test_checkpoints_of_whole_epochs_do(train, whole, capsys):
    expected = whole(train)
    with pytest.raises(KilledError):
        train(every={"epochs": 2}, kill_at=3 * STEPS - 1)
    assert same(train(every={"epochs": 2}), expected)
    assert "goes on after epoch 2, step 0" in capsys.readouterr().out


def test_early_stopping_remembers_how_long_it_has_waited(train):
    settings = {
        "epochs": 30,
        "optimizer": {"name": "sgd", "learning_rate": 2.0},
        "early_stopping": {"patience": 3},
    }
    whole = train(**settings)
    assert len(whole[0]) < 30
    checkpoint.PATH.unlink()
    with pytest.raises(KilledError):
        train(**settings, kill_at=STEPS * len(whole[0]) - 2)
    assert same(train(**settings), whole)
    assert same(train(**settings), whole)  # the last checkpoint is that of the end


@pytest.mark.parametrize(
    ("now", "said"),
    [
        ({"parameters": {"fit": {"epochs": 5}}}, "whose fit.epochs is 4 and not 5"),
        ({"code": "b"}, "of other code"),
        ({"data": "b"}, "of other data"),
        ({"versions": {"keras": "9"}}, "whose keras is '3' and not '9'"),
    ],
)
def test_a_checkpoint_of_another_training_is_left_alone_and_it_is_said_why(train, capsys, now, said):
    was = {"parameters": {"fit": {"epochs": 4}}, "code": "a", "data": "a", "versions": {"keras": "3"}}
    with pytest.raises(KilledError):
        train(kill_at=3, belongs=was)
    capsys.readouterr()
    with pytest.raises(KilledError):
        train(kill_at=1, belongs={**was, **now})
    assert f"belongs to another training, {said}; this one starts afresh" in capsys.readouterr().out


def test_what_starts_afresh_ends_as_if_there_had_been_no_checkpoint(train, whole):
    expected = whole(train)
    with pytest.raises(KilledError):
        train(kill_at=3, belongs={"code": "a"})
    assert same(train(belongs={"code": "b"}), expected)


@pytest.mark.parametrize("keep", [0, 1000])
def test_a_checkpoint_that_is_cut_short_is_left_alone_and_it_is_said(train, whole, capsys, keep):
    expected = whole(train)
    with pytest.raises(KilledError):
        train(kill_at=3)
    checkpoint.PATH.write_bytes(checkpoint.PATH.read_bytes()[:keep])
    capsys.readouterr()
    assert same(train(), expected)
    assert "cannot be read" in capsys.readouterr().out


def test_a_full_disk_ends_no_training(train, whole, capsys):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    expected = whole(train)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        assert same(train(), expected)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "warning: no checkpoint: build/checkpoint.npz: cannot be written" in capsys.readouterr().out
    assert not checkpoint.PATH.exists()

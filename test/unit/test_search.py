"""The search: what may be tried, whose a trial is, what goes on after a kill."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from src import params
from src.errors import UserError
from src.search import page, space
from src.search import study as studies
from src.search.training import Training, kept
from src.train import search

ROOT = Path(__file__).parents[2]
RAW: dict[str, Any] = {
    "task": "tabular",
    "architecture": "mlp",
    "data": {"path": "table.csv"},
    "model": {"hidden": [8], "dropout": 0.1},
    "fit": {"epochs": 9, "optimizer": {"name": "adam", "learning_rate": 0.001}},
}
EPOCHS = (1, 3, 9)  # where pruners look
LISTS = {"model.hidden": [[8], [16], [8, 8]], "model.dropout": [0.0, 0.25, 0.5]}
RANGES = {
    "model.hidden": [[8], [16]],
    "fit.optimizer.learning_rate": {"low": 1e-4, "high": 0.1, "log": True},
    "model.dropout": {"low": 0.0, "high": 0.9},
}


def section(parameters: dict[str, Any], **keys: Any) -> params.Search:
    return params.Search(parameters=parameters, **keys)


def read(parameters: dict[str, Any], **keys: Any) -> space.Space:
    return space.read(RAW, section(parameters, **keys))


def open_study(parameters: dict[str, Any], name: str = "main", folder: str = "here", **keys: Any):
    chosen = section(parameters, **keys)
    settings = space.check_values(RAW, {})
    over = {"parameters": parameters, "direction": studies.direction(chosen)}
    return studies.open_study(name, space.read(RAW, chosen), chosen, settings, over, Path(folder))


def loss(values: dict[str, Any], epoch: int) -> float:
    """A training whose loss falls, to where its parameters let it."""
    return abs(values["model.dropout"] - 0.3) + len(values["model.hidden"]) / 10 + 1 / epoch


def take(study: studies.Study) -> tuple[Any, bool]:
    taken = study.next()
    assert taken is not None
    return taken


def train(study: studies.Study, most: int = 1000) -> list[tuple[int, dict[str, Any]]]:
    """Runs trials as the search does, with a formula in place of a training; returns what they tried."""
    tried: list[tuple[int, dict[str, Any]]] = []
    while len(tried) < most and (taken := study.next()):
        trial = taken[0]
        values = study.space.draw(trial)
        tried.append((trial.number, values))
        for epoch in EPOCHS:
            trial.report(loss(values, epoch), epoch)
            if trial.should_prune():
                study.study.tell(trial.number, None, TrialState.PRUNED)
                break
        else:
            study.study.tell(trial.number, loss(values, EPOCHS[-1]))
    return tried


# ── What may be tried ──────────────────────────────────────────────────────────────────────────────────

REFUSED = [
    ({"model.dropot": [0.1]}, "model.dropot: unknown key; did you mean 'dropout'?"),
    (
        {"fit.early_stopping.patiense": [1]},
        "fit.early_stopping.patiense: unknown key; did you mean 'patience'?",
    ),
    ({"fitt.epochs": [1]}, "fitt: unknown key; did you mean 'fit'?"),
    ({"fit.epochs": [3, "ten"]}, "fit.epochs: found 'ten', expected a valid integer"),
    ({"model.dropout": {"low": 0.0, "high": 1.5}}, "model.dropout: found 1.5, expected less than"),
    (
        {"fit.batch_size": {"low": 0, "high": 64}},
        "fit.batch_size: found 0, expected a number of examples from 1 up, or auto",
    ),
    (
        {"fit.optimizer.learning_rate.name": ["x"]},
        "found fit.optimizer.learning_rate: 0.001, expected a section",
    ),
    ({"encode.columns": [["a"]]}, "encode.columns: changes the prepared data"),
    ({"data.sample": [0.5]}, "`dvc exp run --queue -S 'data.sample=...'`"),
    ({"task": ["image"]}, "task: changes the prepared data"),
    ({"gates.minimum.limit": [0.5]}, "gates.minimum.limit: changes no training"),
    ({"model.dropout": []}, "model.dropout: found [], expected a list of values or a range"),
    ({"model.dropout": 0.3}, "model.dropout: found 0.3, expected a list of values or a range"),
    ({"model.dropout": {"low": 0.1}}, "model.dropout: found {'low': 0.1}, expected a list"),
    ({"model.dropout": {"low": 0.1, "high": 0.2, "logg": True}}, "expected a list of values or a range"),
    ({"model.dropout": {"low": 0.5, "high": 0.1}}, "which is no range"),
    ({"model.dropout": {"low": 0.0, "high": 0.1, "log": True}}, "which is no range"),
    ({"model.dropout": [0.1, 0.2, 0.1]}, "model.dropout: lists 0.1 twice"),
]


@pytest.mark.parametrize(("parameters", "sentence"), REFUSED, ids=[sentence[:40] for _, sentence in REFUSED])
def test_what_cannot_be_tried_is_said_before_anything_is_trained(parameters, sentence):
    with pytest.raises(UserError) as error:
        read(parameters)
    assert str(error.value).startswith("params.yaml: search.parameters: ")
    assert sentence in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(UserError) as error:
        read({"model.dropot": [0.1], "model.dropout": [0.1], "fit.epoch": [1]})
    assert len(str(error.value).splitlines()) == 2


def test_a_grid_of_a_range_is_refused():
    with pytest.raises(UserError, match="learning_rate: found a range, expected a list of values"):
        read(RANGES, sampler="grid")


def test_a_grid_that_nobody_can_train_is_refused():
    huge = {"fit.epochs": list(range(1, 50)), "fit.batch_size": list(range(1, 50))}
    with pytest.raises(UserError, match=r"found a grid of 2,401 combinations, expected 1,000 at most"):
        read(huge)
    assert read(huge, sampler="tpe").finite


def test_a_range_is_of_whole_numbers_only_where_the_parameter_is():
    found = read(
        {"fit.batch_size": {"low": 8, "high": 64, "step": 8}, "model.dropout": {"low": 0, "high": 0}}
    )
    kinds = [type(each.distribution).__name__ for each in found.parameters]
    assert kinds == ["IntDistribution", "FloatDistribution"]


def test_a_number_that_is_drawn_is_short_and_within_its_range():
    rate = read({"fit.optimizer.learning_rate": {"low": 0.00012345648, "high": 0.1}}).parameters[0]
    assert rate.value(0.0271828182845) == 0.0271828
    assert rate.value(0.00012345649) == 0.00012345648


# ── The study ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_grid_tries_every_combination_once_however_often_it_is_ended(workspace):
    tried: list[Any] = []
    for count in (2, 20, 20):
        tried += train(open_study(LISTS), most=count)
    found = [json.dumps(values) for _, values in tried]
    assert len(found) == len(set(found)) == 9


def test_a_part_of_a_grid_grows_to_the_whole(workspace):
    assert len(train(open_study(LISTS, trials=4))) == 4
    assert len(train(open_study(LISTS))) == 5


@pytest.mark.parametrize(
    ("sampler", "pruner", "trials"),
    [("random", "none", 4), ("tpe", "successive_halving", 12), ("tpe", "hyperband", 6)],  # 10 begin TPE
)
def test_an_interrupted_search_tries_what_an_uninterrupted_one_does(workspace, sampler, pruner, trials):
    keys: dict[str, Any] = {"trials": trials, "sampler": sampler, "pruner": pruner}
    whole = train(open_study(RANGES, storage="sqlite:///whole.db", **keys))
    parts: list[Any] = []
    for count in (3, 20):
        parts += train(open_study(RANGES, storage="sqlite:///parts.db", **keys), most=count)
    assert len(whole) == trials
    assert parts == whole
    assert len({json.dumps(values) for _, values in whole}) > trials - 3


@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband", "median"])
def test_pruners_end_what_is_behind(workspace, pruner):
    study = open_study(RANGES, trials=9, pruner=pruner)
    train(study)
    states = [trial.state for trial in study.finished()]
    assert states.count(TrialState.PRUNED) >= 2
    assert states.count(TrialState.COMPLETE) >= 1


def test_a_trial_that_was_running_is_taken_up_under_its_number_with_its_values(workspace):
    study = open_study(RANGES, trials=5)
    train(study, most=2)
    values = study.space.draw(take(study)[0])
    again = open_study(RANGES, trials=5)
    trial, resumed = take(again)
    assert (trial.number, resumed, again.space.draw(trial)) == (2, True, values)
    assert take(again)[1] is False


def test_in_a_shared_storage_a_worker_takes_up_only_what_is_its_own(workspace):
    storage = "sqlite:///shared.db"
    one = open_study(RANGES, trials=5, storage=storage, folder="one")
    one.space.draw(take(one)[0])
    other = take(open_study(RANGES, trials=5, storage=storage, folder="other"))
    assert (other[0].number, other[1]) == (1, False)
    back = take(open_study(RANGES, trials=5, storage=storage, folder="one"))
    assert (back[0].number, back[1]) == (0, True)


def test_workers_that_share_a_grid_repeat_nothing(workspace):
    workers = [open_study(LISTS, storage="sqlite:///shared.db", folder=name) for name in ("one", "other")]
    tried: list[Any] = []
    for _ in range(9):
        for worker in workers:
            tried += train(worker, most=1)
    found = [json.dumps(values) for _, values in tried]
    assert len(found) == len(set(found)) == 9


def test_the_trial_of_a_worker_that_is_gone_is_begun_anew_by_another(workspace, monkeypatch):
    monkeypatch.setattr(studies, "GRACE", 1)
    keys: dict[str, Any] = {"trials": 2, "storage": "sqlite:///shared.db"}
    gone = open_study(LISTS, folder="gone", **keys)
    trial = take(gone)[0]
    lost = gone.space.draw(trial)
    gone.alive(trial)
    time.sleep(2.1)
    other = open_study(LISTS, folder="other", **keys)
    tried = train(other)
    assert lost in [values for _, values in tried]
    assert len(tried) == len(other.trials()) == 2


def test_a_storage_that_another_search_uses_is_refused_with_the_way_on(workspace):
    open_study(LISTS)
    with pytest.raises(UserError) as error:
        open_study({**LISTS, "model.dropout": [0.0]})
    assert str(error.value) == (
        "sqlite:///build/search/study.db: its study 'main' is of another search, where "
        "parameters.model.dropout is [0.0, 0.25, 0.5] and not [0.0]; `--name NAME` begins one of its own "
        "beside it, `search.storage` one elsewhere"
    )
    open_study({**LISTS, "model.dropout": [0.0]}, name="second")


def test_a_study_that_somebody_else_made_is_refused(workspace):
    study = optuna.create_study(storage="sqlite:///theirs.db", study_name="main")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(UserError, match="its study 'main' is of another search, not one of Sluice"):
        open_study(LISTS, storage="sqlite:///theirs.db")


STORAGES = [
    ("study.db", "search.storage: found 'study.db', expected a URL such as sqlite:///"),
    ("nosuch://host/db", "search.storage: found 'nosuch://host/db', expected a URL such as sqlite:///"),
    ("postgresql://ada:secret@host/db", "postgresql://ada:***@host/db needs a driver that is not installed"),
    ("sqlite:///text.db", "search.storage: sqlite:///text.db cannot be used: file is not a database"),
]


@pytest.mark.parametrize(("url", "sentence"), STORAGES, ids=[url for url, _ in STORAGES])
def test_a_storage_that_cannot_be_used_is_said_without_its_password(workspace, url, sentence):
    Path("text.db").write_text("This is no database. " * 50)
    with pytest.raises(UserError) as error:
        open_study(LISTS, storage=url)
    assert sentence in str(error.value)
    assert "secret" not in str(error.value)


def test_losses_and_errors_go_down_and_the_rest_up_unless_said():
    def way(metric: str, **keys: Any) -> str:
        return studies.direction(section(LISTS, metric=metric, **keys))

    assert [way("val_loss"), way("val_mean_absolute_error")] == ["minimize", "minimize"]
    assert [way("val_accuracy"), way("val_binary_accuracy")] == ["maximize", "maximize"]
    assert way("val_accuracy", direction="minimize") == "minimize"


def test_a_trial_counts_as_the_model_that_its_training_keeps():
    history = [{"val_loss": 0.5, "val_accuracy": 0.8}, {"val_loss": 0.6, "val_accuracy": 0.9}]
    assert kept(history, "val_accuracy") == 0.8


def test_a_training_whose_end_a_kill_kept_from_the_study_is_not_repeated(workspace):
    train(open_study(LISTS, trials=1))
    trial = take(open_study(LISTS, trials=2))[0]
    folder = workspace / str(trial.number)
    (folder / "src/models").mkdir(parents=True)
    (folder / "src/models/model.keras").write_text("the weights")
    history = [{"epoch": 1, "val_loss": 0.5}, {"epoch": 2, "val_loss": 0.4}, {"epoch": 3, "val_loss": 0.6}]
    (folder / "src/models/history.json").write_text(json.dumps(history))
    study = open_study(LISTS, trials=2)
    trial, again = take(study)
    training = Training(study, trial, "val_loss", workspace, 0, again)
    assert training.process is None
    assert training.look()
    assert study.finished()[1].value == 0.4


def test_a_twin_is_given_the_same_result_without_a_training(workspace):
    study = open_study({"model.hidden": [[8]], "model.dropout": [0.1]}, sampler="random", trials=2)
    train(study, most=1)
    training = Training(study, take(study)[0], "val_loss", workspace, 0, False)
    assert training.process is None
    assert training.look()
    first, second = study.finished()
    assert (second.value, second.intermediate_values) == (first.value, first.intermediate_values)


# ── What it shows ──────────────────────────────────────────────────────────────────────────────────────


def test_the_leaderboard_has_the_best_first_and_what_failed_last(workspace):
    study = open_study(RANGES, trials=8)
    trial = take(study)[0]
    study.space.draw(trial)
    trial.set_user_attr("error", "the loss became infinite")
    study.study.tell(trial.number, None, TrialState.FAIL)
    train(study)
    board = page.leaderboard(study, "val_loss")
    trained = board[board["state"] == "trained"]["val_loss"].tolist()
    assert trained == sorted(trained)
    assert board["trial"].iloc[0] == study.best().number
    assert board["state"].iloc[-1] == "failed"
    assert board["error"].iloc[-1] == "the loss became infinite"
    assert set(board["trial"]) == set(range(8))


@pytest.mark.parametrize(("trials", "plots"), [(1, 3), (4, 5)])
def test_the_page_is_one_file_that_needs_no_network(workspace, trials, plots):
    study = open_study(RANGES, trials=trials, pruner="none")
    train(study)
    page.write(study, "val_loss", "Search: masses & more", Path("out"))
    text = Path("out/index.html").read_text()
    assert "Search: masses &amp; more" in text
    assert text.count("plotly.js v") == 1
    assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=", text)
    assert text.count("Plotly.newPlot(") == plots


# ── The command ────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def command(workspace, fails, monkeypatch):
    """Writes params.yaml with a search, what prepare would say, and runs the command with arguments."""

    def run(*arguments: str, data: bool = True, **keys: Any) -> tuple[int, str]:
        content = {**RAW, "search": {"parameters": LISTS, **keys}} if keys != {"search": None} else RAW
        Path("params.yaml").write_text(json.dumps(content, indent=2))
        if data:
            Path("build/prepared").mkdir(parents=True, exist_ok=True)
            Path("build/prepared/data.json").write_text('{"objective": "classification"}')
        monkeypatch.setattr(sys, "argv", ["search", *arguments])
        return fails(search.main)

    return run


def test_without_a_search_section_it_says_so(command):
    assert command(search=None)[1].startswith("error: params.yaml: search: missing")


def test_a_wrong_key_of_the_section_is_said(command):
    assert (
        "search.pruner: found 'hyperbrand', expected 'successive_halving'" in command(pruner="hyperbrand")[1]
    )


def test_without_prepared_data_it_says_what_to_run(command):
    code, said = command(data=False)
    assert code == 1
    assert "build/prepared/data.json: not found; run `dvc repro`" in said


@pytest.mark.parametrize("metric", ["loss", "val_acuracy", "test_accuracy"])
def test_only_metrics_of_the_validation_split_select(command, metric):
    said = command(metric=metric)[1]
    assert f"search.metric: found '{metric}', expected one of val_loss, val_accuracy" in said


def test_nothing_trained_is_nothing_to_apply(command):
    before = Path("params.yaml")
    assert command("--apply") == (
        1,
        "error: the search has trained nothing yet; run `python -m src.train.search`",
    )
    assert json.loads(before.read_text())["model"] == RAW["model"]


@pytest.mark.parametrize("arguments", [["--name", "../x"], ["--trials", "0"], ["--jobs", "many"]])
def test_wrong_usage_is_exit_code_2(command, arguments, capsys):
    assert command(*arguments)[0] == 2
    assert "error: " in capsys.readouterr().err


def test_the_search_itself_starts_without_keras():
    code = "import src.train.search, sys; sys.exit(bool({'keras', 'tensorflow'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0

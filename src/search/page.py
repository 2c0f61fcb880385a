"""What a search has found: the leaderboard as a table and CSV, and a page of Optuna's plots."""

import json
import warnings
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState

from src.files import replacing
from src.search.study import Study

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

TEMPLATE = Path(__file__).with_suffix(".html")
STATES = {TrialState.COMPLETE: "trained", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


def leaderboard(study: Study, metric: str) -> pd.DataFrame:
    """Returns the trials that have ended: trained ones from the best to the worst, pruned ones, failed ones.

    Returns:
        `trial`, `state`, the metric, `epochs` trained, `seconds` from start to end (none where a kill was
        between), a column for each parameter, and why it failed.
    """
    sign = 1 if study.study.direction == optuna.study.StudyDirection.MINIMIZE else -1

    def rank(trial: FrozenTrial) -> tuple[int, float, int]:
        value = trial.value if trial.value is not None else 0.0
        return list(STATES).index(trial.state), sign * value, trial.number

    rows = [
        {
            "trial": trial.number,
            "state": STATES[trial.state],
            metric: trial.value,
            "epochs": trial.last_step or 0,
            "seconds": None if "resumed" in trial.user_attrs else _seconds(trial.duration),
            **study.space.values(trial.params),
            "error": trial.user_attrs.get("error", ""),
        }
        for trial in sorted(study.finished(), key=rank)
    ]
    keys = [each.key for each in study.space.parameters]
    columns = ["trial", "state", metric, "epochs", "seconds", *keys, "error"]
    return pd.DataFrame(rows, columns=pd.Index(columns))


def write(study: Study, metric: str, title: str, folder: Path) -> None:
    """Writes index.html: one file that needs no other and no network."""
    import plotly.io

    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    figures: dict[str, str] = {}
    for heading, figure in _figures(study.study, metric):
        figure.update_layout(title=None, template="plotly_white", margin={"t": 20, "r": 20, "b": 20})
        figure.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)")
        script = not figures  # plotly.js once
        figures[heading] = plotly.io.to_html(
            figure,
            full_html=False,
            include_plotlyjs=script,
            config={"displayModeBar": False, "responsive": True},
        )
    board = leaderboard(study, metric).replace("", None).dropna(axis="columns", how="all")
    with replacing(folder / "index.html") as temporary:
        temporary.write_text(
            page.from_string(TEMPLATE.read_text()).render(
                title=title,
                metric=metric,
                sampler=study.sampler,
                columns=list(board.columns),
                rows=[[_show(value) for value in row] for row in board.itertuples(index=False)],
                counts=board["state"].value_counts().to_dict(),
                best=_show(board[metric].iloc[0]) if (board["state"] == "trained").any() else None,
                figures=figures,
            )
        )


def _figures(study: optuna.Study, metric: str) -> "list[tuple[str, Figure]]":
    """Draws what there are trials enough for."""
    from optuna import visualization as draw

    trained = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    varied = any(trial.params != trained[0].params for trial in trained)
    epochs = draw.plot_intermediate_values(study).update_layout(xaxis_title="epoch", yaxis_title=metric)
    figures = [("Epoch by epoch", epochs)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if trained:
            history = draw.plot_optimization_history(study, target_name=metric)
            figures = [("Trial by trial", history), *figures]
            slices = draw.plot_slice(study, target_name=metric)
            figures.append(("Value by value", slices))
        if varied:
            together = draw.plot_parallel_coordinate(study, target_name=metric)
            figures.append(("All together", together))
            figures.append(("How much each parameter matters", draw.plot_param_importances(study)))
    return figures


def _seconds(duration: timedelta | None) -> float | None:
    return None if duration is None else round(duration.total_seconds(), 1)


def _show(value: Any) -> str:
    """Returns a cell as text."""
    if value is None or value is pd.NA or (isinstance(value, float) and pd.isna(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value)

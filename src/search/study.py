"""The study: a search's trials in Optuna's storage, whoever runs them, and which trial comes next.

A trial belongs to the folder that runs it, its worker. One that was running when its search was killed is
taken up again by that folder; where a storage is shared, a worker that shows no sign of life for
`GRACE` seconds loses its trial to the others, which begin it anew.
"""

import json
import platform
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from src import params
from src.errors import UserError, differences, said
from src.search.space import Space

DEFAULT = "sqlite:///build/search/study.db"
TRIALS = 24
BEAT = 30  # seconds between two signs of life, in a storage that others may share
GRACE = 180  # seconds without one, after which a trial is another's to try
REDUCTION = 3  # of the trials that get so far, a rung lets one in so many go on
SAMPLERS = {"random": optuna.samplers.RandomSampler, "tpe": optuna.samplers.TPESampler}


class Study:
    """A study that is opened: hands out trials, and knows those that are finished.

    Args:
        study: Optuna's.
        space: What is tried.
        search: The `search:` section.
        seed: Of the sampler.
        worker: Who runs the trials handed out; None if nobody else can use the storage.
    """

    def __init__(
        self, study: optuna.Study, space: Space, search: params.Search, seed: int, worker: str | None
    ) -> None:
        self.study, self.space, self.seed, self.worker = study, space, seed, worker
        self.sampler = search.sampler or ("grid" if space.finite else "tpe")
        self.wanted = search.trials or TRIALS
        if self.sampler == "grid":
            points = space.grid(seed)[: search.trials]
            self.wanted = len(points)
            there = [trial.system_attrs.get("fixed_params") for trial in study.get_trials(deepcopy=False)]
            for point in points:
                if point not in there:
                    study.enqueue_trial(point)
        self.left = self._left()
        # Hyperband must know its brackets before it is asked which of them a trial belongs to.
        study.pruner.prune(study, optuna.trial.create_trial(state=TrialState.RUNNING))

    def _left(self) -> list[int]:
        """Returns the ids of this worker's trials that were running when it was last ended."""
        waited = datetime.now() - timedelta(seconds=GRACE)

        def ours(trial: FrozenTrial) -> bool:
            owner = trial.user_attrs.get("worker")
            late = trial.datetime_start is not None and trial.datetime_start < waited
            return self.worker in (None, owner) or (owner is None and late)

        return [trial._trial_id for trial in self._trials(TrialState.RUNNING) if ours(trial)]

    def next(self) -> tuple[Trial, bool] | None:
        """Returns the next trial, and whether it was begun before; None if there are as many as wanted."""
        if self.left:
            return self._own(self.left.pop(0)), True
        if self.worker is not None:
            with _quiet():
                optuna.storages.fail_stale_trials(self.study)
        # Those that wait are handed out one by one, also to workers that ask in the same moment.
        waiting = self.study._pop_waiting_trial_id()
        if waiting is not None:
            return self._own(waiting), False
        if self.sampler == "grid" or len(self.trials()) >= self.wanted:
            return None
        with _quiet():
            return self._own(self.study.ask()._trial_id), False

    def _own(self, trial_id: int) -> Trial:
        """Makes a trial this worker's; what it draws follows from seed, number and finished trials alone."""
        trial = Trial(self.study, trial_id)
        trial.set_user_attr("worker", self.worker or "")
        if self.sampler != "grid":
            seed = np.random.SeedSequence([self.seed, trial.number]).generate_state(1)[0]
            self.study.sampler = SAMPLERS[self.sampler](seed=int(seed))
        return trial

    def alive(self, trial: Trial) -> None:
        """Gives a sign of life."""
        if self.worker is not None:
            self.study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]

    def trials(self) -> list[FrozenTrial]:
        """Returns all trials, in the order of their numbers, without those that were begun anew."""
        trials = self.study.get_trials(deepcopy=False)
        again = {number for trial in trials for number in trial.system_attrs.get("retry_history", [])}
        return [trial for trial in trials if trial.number not in again]

    def _trials(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states)

    def finished(self) -> list[FrozenTrial]:
        """Returns the trials that have ended: completed, pruned or failed."""
        return [trial for trial in self.trials() if trial.state.is_finished()]

    def twin(self, trial: Trial) -> FrozenTrial | None:
        """Returns a trial with the same parameters that has ended: training it again gives the same."""
        ended = self._trials(TrialState.COMPLETE, TrialState.PRUNED)
        return next((other for other in ended if other.params == trial.params), None)

    def best(self) -> FrozenTrial | None:
        """Returns the best of the trials that were trained to their end."""
        return self.study.best_trial if self._trials(TrialState.COMPLETE) else None


def open_study(
    name: str,
    space: Space,
    search: params.Search,
    settings: params.Params,
    over: dict[str, Any],
    folder: Path,
) -> Study:
    """Opens a study, or makes it.

    Args:
        name: Of the study.
        space: What is tried.
        search: The `search:` section.
        settings: All parameters, for the seed and the number of epochs.
        over: What the study is over, as JSON; one over anything else is refused.
        folder: Where this worker keeps its trials.

    Raises:
        UserError: If the storage cannot be used, or its study of that name is over something else.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    url = search.storage or DEFAULT
    shared = search.storage is not None
    with saying(url):
        storage = _storage(url, shared)
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            direction=direction(search),
            pruner=make_pruner(search.pruner, settings.fit.epochs),
            load_if_exists=True,
        )
        content = json.loads(json.dumps(over))
        theirs = study.user_attrs.get("over")
        if theirs is None and not study.get_trials(deepcopy=False):
            study.set_user_attr("over", content)
        elif theirs != content:
            other = _difference(theirs, content) if theirs else "not one of Sluice"
            raise UserError(
                f"{_shown(url)}: its study {name!r} is of another search, {other}; "
                "`--name NAME` begins one of its own beside it, `search.storage` one elsewhere"
            )
        worker = f"{platform.node()}:{folder.resolve()}" if shared else None
        return Study(study, space, search, settings.fit.seed, worker)


@contextmanager
def saying(url: str) -> Iterator[None]:
    """Says what goes wrong with a storage in a sentence, without the password that its URL may have."""
    try:
        yield
    except ArgumentError:
        raise UserError(
            f"search.storage: found {url!r}, expected a URL such as {DEFAULT} or postgresql://..."
        ) from None
    except ImportError as error:
        raise UserError(
            f"search.storage: {_shown(url)} needs a driver that is not installed: {error}"
        ) from None
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        cause = error.__cause__ or error
        reason = " ".join(str(getattr(cause, "orig", None) or cause).split())
        raise UserError(f"search.storage: {_shown(url)} cannot be used: {reason}") from None


def direction(search: params.Search) -> Literal["minimize", "maximize"]:
    """Returns whether less or more of the metric is better."""
    down = any(word in search.metric for word in ("loss", "error", "entropy", "divergence"))
    return search.direction or ("minimize" if down else "maximize")


def make_pruner(name: str, epochs: int) -> BasePruner:
    """Returns Optuna's pruner: the first look after a ninth of the epochs, the next after a third."""
    first = -(-epochs // REDUCTION**2)
    if name == "successive_halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=REDUCTION)
    if name == "hyperband":
        most = max(epochs, first)
        return optuna.pruners.HyperbandPruner(
            min_resource=first, max_resource=most, reduction_factor=REDUCTION
        )
    if name == "median":
        return optuna.pruners.MedianPruner(n_warmup_steps=first)
    return optuna.pruners.NopPruner()


def _storage(url: str, shared: bool) -> RDBStorage:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    if not shared:
        return RDBStorage(url)
    with _quiet():
        return RDBStorage(
            url,
            heartbeat_interval=BEAT,
            grace_period=GRACE,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Heartbeats are Optuna's experiment still, and meant for its own loop; this one gives them itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _shown(url: str) -> str:
    return make_url(url).render_as_string(hide_password=True)


def _difference(theirs: Any, ours: Any) -> str:
    """Says the first thing in which two searches differ; empty if there is none."""
    found = next(differences(ours, theirs), None)
    if found is None:
        return ""
    key, our, their = found
    return "over other data" if key == "data" else f"where {key} is {said(their)} and not {said(our)}"

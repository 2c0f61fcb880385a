"""Weights & Biases: curves and parameters, on its server or in files of build/monitors/wandb.

WANDB_API_KEY or `wandb login` says who. Without either nothing is sent and nobody is asked: the run is
written to files, which `wandb sync` sends later; so it is with WANDB_MODE=offline.
"""

import netrc
import os
from typing import Any
from urllib.parse import urlsplit

from src.errors import UserError
from src.params import Section
from src.training.watching import FOLDER, Run

QUIET = {"WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
PATIENCE = 4.0  # seconds that a server may take to answer, at the beginning and at the end


class Options(Section):
    """`monitors: [{wandb: {…}}]`: where a training is found."""

    project: str = "sluice"
    entity: str | None = None  # the user or team; None: the key's own
    name: str | None = None  # of the run; None: when the training began


def looks(options: Options) -> bool:
    """No: its own page draws curves and parameters."""
    return False


def start(options: Options, run: Run) -> "WeightsAndBiases":
    """Makes the run, or goes on with the one there.

    Raises:
        UserError: If the package is not installed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import wandb
    except ImportError:
        raise UserError("its package is not installed; `pip install wandb` does it") from None
    return WeightsAndBiases(wandb, options, run)


class WeightsAndBiases:
    """One run of a project."""

    def __init__(self, wandb: Any, options: Options, run: Run) -> None:
        self.wandb = wandb
        mode = os.environ.get("WANDB_MODE")
        if not mode and not is_known():
            mode = "offline"
            print(f"monitor wandb: no WANDB_API_KEY; the run is written to {FOLDER / 'wandb'} alone")
        FOLDER.mkdir(parents=True, exist_ok=True)  # of its own accord it would write to a temporary folder
        settings = wandb.Settings(
            console="off",
            init_timeout=PATIENCE,
            finish_timeout=PATIENCE,
            finish_timeout_raises=True,
        )
        try:
            self.run = wandb.init(
                project=options.project,
                entity=options.entity,
                name=options.name or run.name,
                id=run.previous,
                resume="allow" if run.previous else None,
                mode=mode or "online",
                dir=FOLDER,
                config={
                    **run.parameters,
                    "network.weights": run.weights,
                    "network.classes": run.classes,
                    "commit": run.commit,
                },
                settings=settings,
            )
            self.run.define_metric("*", step_metric="epoch")
        except BaseException:
            wandb.teardown(1)
            raise
        self.id = self.run.id

    def log(self, record: dict[str, Any]) -> None:
        """Adds a point to each curve."""
        self.run.log(record)

    def end(self, status: str) -> None:
        """Says that the run has ended, and ends the process that sends it."""
        code = 0 if status == "finished" else 1
        try:
            self.run.finish(code)
        finally:
            self.wandb.teardown(code)


def is_known() -> bool:
    """Whether there is a key to sign in with, in the environment or where `wandb login` puts it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host or "") is not None
    except (OSError, netrc.NetrcParseError):
        return False

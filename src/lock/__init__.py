"""dvc.lock: what each stage ran with and what it made. `python -m src.lock` checks it and merges it."""

import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from src.errors import UserError

PATH = "dvc.lock"
MODEL = "src/models/model.keras"
MD5 = re.compile(r"[0-9a-f]{32}(\.dir)?")  # of a folder it ends in .dir


def read(text: str, name: str = PATH) -> dict[str, dict[str, Any]]:
    """Returns the stages of a dvc.lock by their names.

    Args:
        text: What is in it.
        name: What to call it in an error.

    Raises:
        UserError: If it is not the dvc.lock that DVC writes.
    """
    try:
        content = YAML(typ="safe").load(text)
    except YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: expected the YAML that DVC writes, found: {reason}") from None
    stages = content.get("stages") if isinstance(content, dict) else None
    if not isinstance(stages, dict) or not all(_well_formed(stage) for stage in stages.values()):
        raise UserError(f"{name}: expected the stages that DVC writes, found something else; run `dvc repro`")
    return stages


def _well_formed(stage: Any) -> bool:
    """Whether a stage has its command, and dependencies and outputs that name a path and an md5."""
    return (
        isinstance(stage, dict)
        and "cmd" in stage
        and isinstance(stage.get("params", {}), dict)
        and all(
            isinstance(stage.get(part, []), list)
            and all(
                isinstance(entry, dict)
                and isinstance(entry.get("path"), str)
                and isinstance(entry.get("md5"), str)
                and MD5.fullmatch(entry["md5"])
                for entry in stage.get(part, [])
            )
            for part in ("deps", "outs")
        )
    )


def outputs(stages: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Returns the md5 of every output by its path; of a folder it ends in `.dir`."""
    return {entry["path"]: entry["md5"] for stage in stages.values() for entry in stage.get("outs", [])}

"""Merges two branches' dvc.lock stage by stage: the work of git's merge driver.

A stage that only one branch changed is taken from it. A stage that both changed in different ways, or whose
inputs the other branch changed, is taken from neither: it is left out, so that `dvc repro` runs it again.
"""

from typing import Any

Lock = dict[str, Any]


def merge(base: Lock, ours: Lock, theirs: Lock) -> tuple[Lock, dict[str, str]]:
    """Merges the stages of three dvc.lock.

    Args:
        base: The stages of the common ancestor; empty if it has no dvc.lock.
        ours: The stages of the branch that is merged into.
        theirs: The stages of the other branch.

    Returns:
        The stages that hold in both, in our order, and each stage left out with the reason.
    """
    merged: Lock = {}
    left_out: dict[str, str] = {}
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        old, our, their = base.get(name), ours.get(name), theirs.get(name)
        if our == their or their == old:
            choice = our
        elif our == old:
            choice = their
        else:
            choice = None
            gone = our is None or their is None
            left_out[name] = (
                "one branch changed it, the other took it away" if gone else "both branches changed it"
            )
        if choice is not None:
            merged[name] = choice
    while wrong := _unsupported(merged, left_out, ours, theirs):
        for name in wrong:
            del merged[name]
        left_out |= wrong
    return merged, left_out


def _unsupported(merged: Lock, left_out: dict[str, str], ours: Lock, theirs: Lock) -> dict[str, str]:
    """Returns the stages whose inputs are not what the merged stages make, with the reason."""
    records = [
        *merged.items(),
        *((name, side[name]) for name in left_out for side in (ours, theirs) if name in side),
    ]
    makers = {entry["path"]: (name, entry) for name, stage in records for entry in stage.get("outs", [])}
    wrong = {}
    for name, stage in merged.items():
        for dep in stage.get("deps", []):
            for path, (maker, made) in makers.items():
                if maker == name or not _overlap(dep["path"], path):
                    continue
                if maker in left_out:
                    wrong[name] = f"it uses {path} of {maker}"
                elif dep["path"] == path and dep.get("md5") != made.get("md5"):
                    wrong[name] = f"the other branch changed {path}, which it uses"
                elif dep["path"] != path and ours.get(maker) != theirs.get(maker):
                    wrong[name] = f"one branch changed {path}, of which it uses a part"
    return wrong


def _overlap(one: str, other: str) -> bool:
    """Whether two paths are the same, or one is in the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")

"""Does dvc.lock match dvc.yaml, params.yaml, the code and the data, as far as they are here?

Neither data nor remote is needed: what is not here is compared by the md5s that name it, where another stage
or a .dvc file names it too, and else said to be unchecked.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src import lock
from src.errors import UserError, differences, said
from src.lock.objects import unreachable

REPRO = "run `dvc repro`"


@dataclass
class Findings:
    """What is wrong, sentence by sentence with the stages it concerns, and what could not be looked at."""

    wrong: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)
    unchecked: list[str] = field(default_factory=list)
    stages: int = 0

    def add(self, stage: str, file: str, found: str, remedy: str = REPRO) -> None:
        """Notes that `file` is not as `stage` expects; the same fault of several stages is one."""
        self.wrong.setdefault((file, found, remedy), []).append(stage)

    def sentences(self) -> list[str]:
        """Returns a sentence for each fault."""
        return [
            f"{file}: {found} ({'stage' if len(stages) == 1 else 'stages'} {', '.join(stages)}); {remedy}"
            for (file, found, remedy), stages in self.wrong.items()
        ]


def verify() -> Findings:
    """Compares dvc.lock with what is in the current folder.

    Raises:
        UserError: If there is no pipeline here, or dvc.yaml, params.yaml or dvc.lock cannot be read.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    locked = _read()
    findings = Findings()
    try:
        with Repo() as repo:
            named = [stage for stage in repo.index.stages if getattr(stage, "name", None)]
            pipeline = [stage for stage in named if Path(stage.path) == Path.cwd() / "dvc.yaml"]
            tracked = [out for stage in repo.index.stages if stage not in named for out in stage.outs]
            findings.stages = len(pipeline)
            for out in tracked:
                _check_tracked(out, findings)
            for stage in pipeline:
                if stage.name in locked:
                    _check_stage(stage, locked, tracked, findings)
                else:
                    findings.add(stage.name, lock.PATH, "has no record of a stage in dvc.yaml")
    except DvcException as error:
        raise UserError(f"dvc: {' '.join(str(error).split())}") from None
    for name in sorted(set(locked) - {stage.name for stage in pipeline}):
        remedy = "take its lines out of dvc.lock, or put it back into dvc.yaml"
        findings.add(name, lock.PATH, "has a stage that dvc.yaml has not", remedy)
    return findings


def _read() -> dict[str, dict[str, Any]]:
    """Reads dvc.lock; what is no md5 in it is found here, for DVC itself breaks on it."""
    path = Path(lock.PATH)
    if not path.exists():
        raise UserError(f"{lock.PATH}: not found; {REPRO} and commit it")
    return lock.read(path.read_text(errors="replace"))


def _check_tracked(out: Any, findings: Findings) -> None:
    """Compares data with the .dvc file that tracks it."""
    if not out.exists:
        findings.unchecked.append(f"{out} (not pulled; compared by its .dvc file)")
    elif out.workspace_status():
        remedy = f"run `dvc add {out}` if that is meant, else `dvc checkout`"
        findings.add(out.stage.relpath, str(out), "is not what its .dvc file names", remedy)


def _check_stage(stage: Any, locked: dict[str, Any], tracked: list[Any], findings: Findings) -> None:
    """Compares one stage of dvc.yaml with its record."""
    record = locked[stage.name]
    if record["cmd"] != stage.cmd:
        findings.add(stage.name, "dvc.yaml", f"the command is {stage.cmd!r}, it ran {record['cmd']!r}")
    parameters = [dep for dep in stage.deps if dep.hash_name == "params"]
    for dep in parameters:
        _check_parameters(stage, dep, record, findings)
    _check_list(stage, record, "deps", [dep for dep in stage.deps if dep not in parameters], findings)
    _check_list(stage, record, "outs", stage.outs, findings)
    for dep in stage.deps:
        if dep not in parameters and dep.hash_info:
            _check_dependency(stage, dep, locked, tracked, findings)
    for out in stage.outs:
        if out.hash_info:
            _check_output(stage, out, findings)


def _check_list(
    stage: Any, record: dict[str, Any], part: str, entries: list[Any], findings: Findings
) -> None:
    """Compares which dependencies or outputs a stage has; `dvc status` misses one that was taken away."""
    kind = {"deps": "dependency", "outs": "output"}[part]
    known = {entry["path"] for entry in record.get(part, [])}
    listed = {entry.def_path for entry in entries}
    for path in sorted(listed - known):
        findings.add(stage.name, "dvc.yaml", f"lists the {kind} {path}, which dvc.lock has not")
    for path in sorted(known - listed):
        remedy = f"put it back, or run `dvc repro --force {stage.name}`"
        findings.add(stage.name, "dvc.yaml", f"no longer lists the {kind} {path}, which dvc.lock has", remedy)


def _check_parameters(stage: Any, dep: Any, record: dict[str, Any], findings: Findings) -> None:
    """Compares a stage's parameters, key by key."""
    if not dep.exists:
        findings.add(stage.name, dep.def_path, "not found", "put it back")
        return
    actual = dep.read_params()
    known = record.get("params", {}).get(dep.def_path, {})
    for key, now, then in differences(actual, known):
        findings.add(stage.name, dep.def_path, f"{key} is {said(now)}, dvc.lock has {said(then)}")


def _check_dependency(
    stage: Any, dep: Any, locked: dict[str, Any], tracked: list[Any], findings: Findings
) -> None:
    """Compares a dependency with its file and with whoever else names its md5."""
    path, md5 = dep.def_path, dep.hash_info.value
    makers = {
        entry["path"]: (name, entry["md5"])
        for name, record in locked.items()
        if name != stage.name
        for entry in record.get("outs", [])
    }
    if path in makers:
        maker, made = makers[path]
        if made != md5:
            findings.add(
                stage.name,
                lock.PATH,
                f"it used {path} with md5 {_short(md5)}, but {maker} made {_short(made)}",
            )
        return  # the file itself is looked at as an output
    owner = next((out for out in tracked if out.fs_path == dep.fs_path), None)
    if owner is not None:
        if owner.hash_info.value != md5:
            found = f"its .dvc file names md5 {_short(owner.hash_info.value)}, dvc.lock {_short(md5)}"
            findings.add(stage.name, path, found)
    elif dep.exists:
        if dep.workspace_status():
            findings.add(stage.name, path, f"was edited after the stage ran: {_md5s(dep)}")
    elif _inside_outputs(dep, tracked, stage):
        findings.unchecked.append(f"{path} (a part of data that is not here)")
    else:
        findings.add(stage.name, path, "not found, and it is a dependency", f"put it back, or {REPRO}")


def _md5s(entry: Any) -> str:
    return f"md5 {_short(entry.get_hash().value)}, dvc.lock has {_short(entry.hash_info.value)}"


def _short(md5: str) -> str:
    return md5[:8]


def _inside_outputs(dep: Any, tracked: list[Any], stage: Any) -> bool:
    """Whether a dependency is a part of an output or tracked folder, or holds one."""
    outs = [*tracked, *(out for other in stage.repo.index.stages for out in other.outs)]
    both = ((dep.fs_path, out.fs_path) for out in outs)
    return any(dep.fs.isin(one, other) or dep.fs.isin(other, one) for one, other in both)


def _check_output(stage: Any, out: Any, findings: Findings) -> None:
    """Compares an output with its file; one that git has must be here."""
    path = out.def_path
    if out.exists:
        if out.workspace_status():
            findings.add(stage.name, path, f"is not what the stage wrote: {_md5s(out)}")
    elif out.use_cache:
        findings.unchecked.append(f"{path} (not pulled)")
    else:
        findings.add(stage.name, path, "not found, and it is kept in git", f"{REPRO} and commit it")


# ── The remote ─────────────────────────────────────────────────────────────────────────────────────────


def missing_from_remote() -> list[str]:
    """Returns a sentence for each output and tracked file that the default remote does not hold.

    Raises:
        UserError: If no remote is configured or it cannot be asked.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    _read()
    try:
        with Repo() as repo:
            name = repo.config["core"].get("remote")
            if not name:
                raise UserError(".dvc/config: no default remote; run `dvc remote add --default NAME URL`")
            outs = [out for out in repo.index.outs if out.use_cache and out.can_push and out.hash_info]
            absent = _absent_objects(repo.cloud.get_remote_odb(name), outs)
    except UserError:
        raise
    except (DvcException, OSError) as error:
        raise UserError(unreachable(error)) from None
    except Exception as error:  # every kind of storage has a library of its own with errors of its own
        raise UserError(unreachable(error)) from error
    return [f"{path}: the DVC remote {name!r} lacks {md5}; run `dvc push`" for path, md5 in absent]


def _absent_objects(odb: Any, outs: list[Any]) -> list[tuple[str, str]]:
    """Returns path and md5 of each object that a remote lacks, those that its folders list included.

    `dvc status --cloud` trusts a local index of what it once pushed; the remote itself is asked here.
    """
    from dvc_data.hashfile.tree import Tree

    wanted = [(str(out), out.hash_info) for out in outs]
    there = set(odb.list_oids_exists([info.value for _, info in wanted]))
    absent = [(path, info.value) for path, info in wanted if info.value not in there]
    parts = [
        (f"{path}/{'/'.join(key)}", info.value)
        for path, folder in wanted
        if folder.isdir and folder.value in there
        for key, _, info in Tree.load(odb, folder)
    ]
    there = set(odb.list_oids_exists([md5 for _, md5 in parts]))
    return absent + [(path, md5) for path, md5 in parts if md5 not in there]

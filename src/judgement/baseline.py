"""The baseline: the model that a candidate is compared with, and its files.

It is that of the merge base with the target branch, else of the target branch, else the last published one,
else none. On the default branch it is that of the commit before. The model is fetched by the md5 that the
dvc.lock of that commit names, from DVC's cache or its remote, and is never run here.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from src import git, lock
from src.checksums import SUMS, check
from src.errors import UserError
from src.files import replacing
from src.lock.objects import AbsentError, fetch, md5
from src.signature import PUBLIC, verify_bundle

PUBLISHED = "PUBLISH_FOLDER"  # the environment's name of the folder store, where `latest` is the last model
NEEDED = (lock.MODEL, "src/models/inference.json")
SHOWN = ("src/models/metrics.json", "src/models/history.json")  # a baseline without them is still one
LOCAL_NAMES = ("main", "master")

Source = Literal["merge base", "target branch", "published", "none"]


@dataclass(frozen=True)
class Baseline:
    """Which model the candidate is compared with.

    Attributes:
        source: Where it is from.
        revision: Its commit; None for a published one, or none.
        folder: Holds model.keras, inference.json and, as far as they are there, metrics.json and
            history.json. None if there is no baseline.
        reason: A sentence: why this one, and why not the ones before it.
    """

    source: Source
    revision: str | None
    folder: Path | None
    reason: str


# ── Which one ──────────────────────────────────────────────────────────────────────────────────────────


def find(scratch: Path, target: str | None = None, published: Path | None = None) -> Baseline:
    """Finds the baseline and fetches its files.

    Args:
        scratch: A folder for the files; those of a commit go to a folder of its name.
        target: The target branch; None: `target_branch()`.
        published: The folder of the last published model; None: the latest in $PUBLISH_FOLDER.

    Returns:
        The baseline. Without any remote, a commit whose model is not in the local cache is passed over.

    Raises:
        UserError: If the clone is shallow, the target branch is not in it, a dvc.lock cannot be read, or a
            file that must be there cannot be fetched or is another one than dvc.lock names.
    """
    passed: list[str] = []
    if git.inside():
        for source, revision, name in _commits(target, passed):
            try:
                folder = _fetch(revision, scratch, passed)
            except AbsentError as error:
                passed.append(f"{name} {error}")
            else:
                return Baseline(source, revision, folder, _sentence(name, passed))
    else:
        passed.append("this folder is not in git")
    last = _published(published)
    if last:
        return Baseline("published", None, last, _sentence(f"the published model in {last}", passed))
    passed.append("no published model is given")
    return Baseline("none", None, None, _sentence("none", passed))


def _sentence(chosen: str, passed: list[str]) -> str:
    return f"{chosen}: {'; '.join(passed)}" if passed else chosen


def _commits(target: str | None, passed: list[str]) -> Iterator[tuple[Source, str, str]]:
    """Yields the commits to take the baseline from, best first, and notes why others are not among them."""
    git.need_whole_history()
    target = target or target_branch()
    if target is None:
        first = "HEAD is the first commit" if git.commit("HEAD") else "there is no commit yet"
        passed.append(first if not git.commit("HEAD^") else "no target branch is known")
        return
    tip = resolve(target)
    if tip is None:
        raise UserError(
            f"git: the target branch {target!r} is not in this clone; run `git fetch origin`, or say another"
        )
    base = git.merge_base("HEAD", tip)
    if base is None:
        passed.append(f"HEAD has no commit in common with {_short(target)}")
    elif tip == target:
        yield "merge base", base, f"{base[:8]}, the commit of the target branch that this one follows"
    else:
        yield "merge base", base, f"{base[:8]}, the merge base with {_short(target)}"
    if tip != base:
        yield "target branch", tip, f"{tip[:8]}, the tip of {_short(target)}"


def target_branch() -> str | None:
    """Returns the branch to compare with, None if none is known or this folder is not in git.

    It is the target of the merge request in GitLab CI, else the default branch. Where HEAD is in the
    default branch already, it is the commit before: what the branch was before the push
    (CI_COMMIT_BEFORE_SHA) or the first parent, or HEAD itself while dvc.lock has changes not committed.

    Raises:
        UserError: If GitLab names a target branch and this clone has neither it nor the merge base.
    """
    if not git.inside() or git.commit("HEAD") is None:
        return None
    branch = _merge_request_target() or _default_branch()
    if branch is None:
        return None
    if git.merge_base("HEAD", branch) != git.commit("HEAD"):
        return branch
    if "CI" not in os.environ and git.run("diff", "--quiet", "HEAD", "--", lock.PATH) is None:
        return git.commit("HEAD")
    before = os.environ.get("CI_COMMIT_BEFORE_SHA", "")
    if git.commit(before) not in (None, git.commit("HEAD")) and git.merge_base("HEAD", before) == before:
        return before
    return git.commit("HEAD^")


def _merge_request_target() -> str | None:
    """Returns the target branch of GitLab's merge request, None outside of one."""
    name = os.environ.get("CI_MERGE_REQUEST_TARGET_BRANCH_NAME")
    base = os.environ.get("CI_MERGE_REQUEST_DIFF_BASE_SHA")
    if not name and not base:
        return None
    # A fork's pipeline has the fork as origin, whose branches its owner moves at will.
    home = os.environ.get("CI_PROJECT_ID")
    fork = os.environ.get("CI_MERGE_REQUEST_PROJECT_ID", home) != home
    for candidate in (base, name) if fork else (name, base):
        found = _name(candidate) if candidate else None
        if found:
            return found
    raise UserError(
        f"git: the target branch {name or base!r} of the merge request is not in this clone; set "
        "`GIT_DEPTH: 0` in the CI job, so that GitLab fetches every branch"
    )


def _default_branch() -> str | None:
    """Returns the default branch: GitLab's, the remote's, or a local one by its usual names."""
    default = os.environ.get("CI_DEFAULT_BRANCH")
    head = git.run("symbolic-ref", "--quiet", "refs/remotes/origin/HEAD")
    names = [name for name in (default, head and head.decode().strip(), *LOCAL_NAMES) if name]
    return next((found for found in map(_name, names) if found), None)


def _name(branch: str) -> str | None:
    """Returns a branch by its full name in this clone, the remote's first; a commit's name stays as it is.

    By its full name alone: whoever may push can make a tag or a branch called `origin/main`, too.
    """
    full = branch.startswith("refs/") or re.fullmatch("[0-9a-f]{40}", branch)
    names = (branch,) if full else (f"refs/remotes/origin/{branch}", f"refs/heads/{branch}")
    return next((name for name in names if git.commit(name)), None)


def resolve(branch: str) -> str | None:
    """Returns the commit of a branch, None if this clone has no such branch."""
    found = _name(branch)
    return git.commit(found) if found else None


def _short(ref: str) -> str:
    return ref.removeprefix("refs/").removeprefix("remotes/").removeprefix("heads/")


def show(revision: str, path: str) -> str | None:
    """Returns a text file as it is at a revision, None if it is not there.

    Raises:
        UserError: If it is not UTF-8.
    """
    content = git.blob(revision, path)
    try:
        return None if content is None else content.decode()
    except UnicodeDecodeError:
        raise UserError(f"{revision[:12]}:{path}: expected text in UTF-8, found other bytes") from None


# ── Its files ──────────────────────────────────────────────────────────────────────────────────────────


def _fetch(revision: str, scratch: Path, passed: list[str]) -> Path:
    """Fetches the files of a commit's model into a folder of their own, and checks them."""
    text = show(revision, lock.PATH)
    if text is None:
        raise AbsentError("has no dvc.lock")
    outputs = lock.outputs(lock.read(text, f"{revision[:8]}:{lock.PATH}"))
    missing = [path for path in NEEDED if path not in outputs]
    if missing:
        raise AbsentError(f"has no {missing[0]} in its dvc.lock")
    folder = scratch / revision
    with replacing(folder) as temporary:
        temporary.mkdir()
        for path in (*NEEDED, *SHOWN):
            content = git.blob(revision, path)
            copy = temporary / Path(path).name
            if content is not None:
                copy.write_bytes(content)
            elif path in outputs:
                fetch(revision, path, outputs[path], copy)
            found = md5(copy) if copy.exists() else outputs.get(path)
            if found != outputs.get(path):
                if path in NEEDED:
                    raise UserError(
                        f"{revision[:8]}:{path}: found md5 {found}, expected {outputs[path]}, which the "
                        "dvc.lock of this commit names; run `dvc repro` there and commit what it writes"
                    )
                copy.unlink()
                passed.append(f"its {path} is left out, for it is not what its dvc.lock names")
    return folder


def _published(folder: Path | None) -> Path | None:
    """Returns the folder of the last published model if one is given, its sums checked."""
    latest = Path(os.environ[PUBLISHED], "latest") if os.environ.get(PUBLISHED) else None
    given = folder or (latest if latest and latest.exists() else None)
    if given is None:
        return None
    for path in NEEDED:
        if not (given / Path(path).name).is_file():
            raise UserError(f"{given}: has no {Path(path).name}, expected the folder of a published model")
    if (given / SUMS).exists():
        check(given)
    if folder is None and PUBLIC.exists():
        verify_bundle(given, PUBLIC)
    return given

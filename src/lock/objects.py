"""What dvc.lock names, by its md5: fetched from DVC's cache or remote, and checked.

`dvc get` and DVCFileSystem do neither: they take the bytes of cache and remote unchecked, and an unreachable
remote is to them the same as an absent file.
"""

import hashlib
import shutil
from pathlib import Path

from src.errors import UserError


class AbsentError(Exception):
    """Something is not here, which is no fault of anyone; the message says why."""


def md5(path: Path) -> str:
    """Returns the md5 of a file's bytes, as DVC names it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def fetch(revision: str, path: str, name: str, copy: Path) -> None:
    """Copies an output of a commit from DVC's cache or, if it is not there whole, from the remote.

    Args:
        revision: The commit whose dvc.lock names the output.
        path: The output's path.
        name: Its md5.
        copy: Where to write it; what is there after an error is not to be used.

    Raises:
        AbsentError: If it is not in the cache, and neither here nor in that commit a remote is configured.
        UserError: If the remote lacks it, holds other bytes or cannot be asked.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    where = f"{revision[:8]}:{path}"
    try:
        with Repo() as repo:
            cached = Path(repo.cache.local.oid_to_path(name))
            if cached.exists() and md5(cached) == name:
                shutil.copyfile(cached, copy)
                return
            remote = repo.config["core"].get("remote")
            if remote:
                store = repo.cloud.get_remote_odb(remote)
                store.fs.get_file(store.oid_to_path(name), str(copy))
        if not remote:
            _say_why_there_is_no_remote(revision, where, name)
    except (UserError, AbsentError):
        raise
    except FileNotFoundError:
        raise UserError(
            f"{where}: the DVC remote {remote!r} has no object {name}; run `dvc push` where that commit was "
            "trained"
        ) from None
    except (DvcException, OSError) as error:
        raise UserError(f"{where}: {unreachable(error)}") from None
    except Exception as error:  # every kind of storage has a library of its own with errors of its own
        raise UserError(f"{where}: {unreachable(error)}") from error
    found = md5(copy)
    if found != name:
        raise UserError(
            f"{where}: the DVC remote {remote!r} holds other bytes under its name, md5 {found}, expected "
            f"{name}; remove them there and run `dvc push` again"
        )


def unreachable(error: Exception) -> str:
    """Returns what a remote's library said, in one line."""
    return f"the DVC remote cannot be asked: {' '.join(str(error).split()) or type(error).__name__}"


def _say_why_there_is_no_remote(revision: str, where: str, name: str) -> None:
    """Raises `AbsentError`; or `UserError` if the commit had a remote, for a branch may not take it away."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo(rev=revision) as repo:
            gone = repo.config["core"].get("remote")
    except NotDvcRepoError:
        gone = None
    if gone:
        raise UserError(
            f".dvc/config: no remote is configured, and {where} is on the remote {gone!r} that its commit "
            "has; put the remote back"
        )
    raise AbsentError(f"has a model that is not in the local DVC cache ({name}), and no remote is configured")

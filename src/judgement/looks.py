"""How many models a test split has judged: each one that was scored on it is a look at it.

Counted from git: every commit that changed dvc.lock or src/models/inference.json names a model and the test
split that it was scored on. What was never committed, or was squashed away, is not seen.
"""

import json
import re
from contextlib import suppress
from pathlib import Path

from src import git, lock
from src.errors import UserError
from src.judgement import baseline

INFERENCE = "src/models/inference.json"
# An entry as DVC writes it. Reading YAML takes 30 ms for each dvc.lock, and there may be thousands.
ENTRY = re.compile(
    rf"^ +- path: {re.escape(lock.MODEL)}\n(?: +hash: md5\n)? +md5: ([0-9a-f]+)$", re.MULTILINE
)


def count(test_hash: str, model_md5: str | None = None) -> int:
    """Returns how many different models this test split has judged, the present one among them.

    Args:
        test_hash: `test_hash` of build/prepared/data.json: the contents and labels of the test split.
        model_md5: The md5 of the present model; None: the one that dvc.lock names.

    Returns:
        The number of models in the history of HEAD and of the target branch that were scored on this
        split, and the present one if it is not one of them; 1 outside git.

    Raises:
        UserError: If the clone is shallow, or the present dvc.lock cannot be read.
    """
    present = model_md5 or _present()
    models = judged(test_hash) if git.inside() else set()
    return len(models) + (present is None or present not in models)


def judged(test_hash: str) -> set[str]:
    """Returns the md5 of every model in the history that was scored on a test split.

    Raises:
        UserError: If the clone is shallow.
    """
    git.need_whole_history()
    tips = [tip for tip in ("HEAD", baseline.target_branch()) if tip and git.commit(tip)]
    if not tips:
        return set()
    # Without --full-history git leaves out the side of a merge whose dvc.lock did not win.
    found = git.run("rev-list", "--full-history", *tips, "--", lock.PATH, INFERENCE) or b""
    commits = found.decode().split()
    names = git.names_of(f"{commit}:./{path}" for commit in commits for path in (lock.PATH, INFERENCE))
    pairs = {(one, other) for one, other in zip(names[::2], names[1::2], strict=True) if one and other}
    descriptions = sorted({other for _, other in pairs})
    scored = {
        name
        for name, content in zip(descriptions, git.blobs(descriptions), strict=True)
        if _test_hash(content) == test_hash
    }
    locks = sorted({one for one, other in pairs if other in scored})
    models = set()
    for content in git.blobs(locks):
        with suppress(UserError):  # a dvc.lock that no one could read never led to a verdict
            models.add(_model(content or b""))
    return {model for model in models if model}


def _present() -> str | None:
    path = Path(lock.PATH)
    return _model(path.read_bytes()) if path.exists() else None


def _model(content: bytes) -> str | None:
    """Returns the md5 of the model that a dvc.lock names."""
    text = content.decode(errors="replace")
    found = ENTRY.findall(text)
    if found and len(set(found)) == 1 and text.count(lock.MODEL) == len(found):
        return str(found[0])
    return lock.outputs(lock.read(text)).get(lock.MODEL) if lock.MODEL in text else None


def _test_hash(content: bytes | None) -> str | None:
    """Returns the test split that an inference.json names, None if it names none."""
    try:
        return str(json.loads(content or b"")["data"]["test_hash"])
    except (ValueError, KeyError, TypeError):
        return None

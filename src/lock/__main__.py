"""Checks dvc.lock, and merges it.

    python -m src.lock verify                    does it match dvc.yaml, params.yaml, code and data?
    python -m src.lock verify --remote           and does the DVC remote hold what it names?
    python -m src.lock merge BASE OURS THEIRS    git's merge driver: writes the merged dvc.lock to OURS

`verify` needs neither data nor remote. It exits with 1 if something does not match.

`merge` exits with 0 when every stage could be merged. Else it leaves out the stages in doubt, says which on
stderr, and exits with 1, on which git stops before the merge is committed: then `dvc repro`, `git add` and
`git commit` end it. `make merge-driver` installs it.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from src import command, lock
from src.errors import UserError
from src.files import replacing
from src.lock.merge import merge
from src.lock.verify import missing_from_remote, verify


def main() -> None:
    """Reads the command line and does what it says."""
    parser = command.parser(__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("verify", help="does dvc.lock match code, parameters and data?")
    check.add_argument(
        "--remote", action="store_true", help="ask the DVC remote for what dvc.lock names, too"
    )
    driver = commands.add_parser("merge", help="the merge driver that git calls")
    for name in ("base", "ours", "theirs"):
        driver.add_argument(name, type=Path)
    arguments = parser.parse_args()
    {"verify": _verify, "merge": _merge}[arguments.command](arguments)


def _verify(arguments: argparse.Namespace) -> None:
    findings = verify()
    wrong = findings.sentences() + (missing_from_remote() if arguments.remote else [])
    if wrong:
        raise UserError("\n  ".join(["dvc.lock does not match:", *wrong]))
    print(f"dvc.lock matches dvc.yaml, params.yaml, code and data: {findings.stages} stages")
    for line in findings.unchecked:
        print(f"  unchecked: {line}")
    if arguments.remote:
        print("  the DVC remote holds everything that dvc.lock names")


def _merge(arguments: argparse.Namespace) -> None:
    stages = [
        _read(path, name)
        for path, name in ((arguments.base, "base"), (arguments.ours, "ours"), (arguments.theirs, "theirs"))
    ]
    merged, left_out = merge(*stages)
    _write(arguments.ours, merged)
    for name, reason in left_out.items():
        print(f"dvc.lock: the stage {name!r} is left out: {reason}", file=sys.stderr)
    if left_out:
        raise UserError(
            f"dvc.lock: run `dvc repro`, which runs {', '.join(left_out)} again; then `git add dvc.lock` and "
            "`git commit`"
        )


def _read(path: Path, side: str) -> dict[str, Any]:
    """Reads one side's stages; git gives an empty file for a side that has no dvc.lock."""
    text = path.read_text()
    return lock.read(text, f"dvc.lock ({side})") if text.strip() else {}


def _write(path: Path, stages: dict[str, Any]) -> None:
    """Writes a dvc.lock as DVC does, so that DVC's next write changes no line but those of what it ran."""
    yaml = YAML()
    yaml.default_flow_style = False
    with replacing(path) as temporary, open(temporary, "w") as file:
        yaml.dump({"schema": "2.0", "stages": stages}, file)


if __name__ == "__main__":
    command.run(main)

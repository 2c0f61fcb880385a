"""Brings a published model here, whole and verified against its signature and SHA256SUMS, or nothing.

What is fetched: `latest`, the highest version that is no pre-release; a version such as 1.2.0; or an id, of a
GitLab job with --store gitlab (its artifact), of a job's entry in inference.json with --store s3.

Without --store it comes from the store that the environment names: GITLAB_TOKEN with CI_API_V4_URL and
CI_PROJECT_ID, PUBLISH_S3, or PUBLISH_FOLDER.

Where the repository has a public key, sluice.pub, or --key names one, only what its owner has signed is
fetched; --unsigned takes anything.

python -m src.publish.fetch
python -m src.publish.fetch 1.2.0 --store s3:s3://team/models --to build/fetched
python -m src.publish.fetch 5417 --store gitlab
"""

import argparse
import os
import re
from pathlib import Path

from src import command, stores
from src.checksums import SUMS, checksums
from src.errors import UserError
from src.plugin import names
from src.signature import PUBLIC, check_public

LATEST = "latest"
FETCHED = Path("build/fetched")


def main() -> None:
    """Runs the command."""
    arguments = parse()
    store = choose(arguments.store)
    version = find(arguments.version, store)
    check_target(arguments.to)
    key = find_key(arguments.key, arguments.unsigned)
    stores.get(store.module, version, arguments.to, store.options, key)
    signed = f", signed by {key}" if key else ""
    count = len(checksums(arguments.to))
    print(f"{arguments.to}: {version}, {count:,} files, exactly as its {SUMS} says{signed}")


def parse() -> argparse.Namespace:
    """Parses the command line."""
    parser = command.parser(__doc__)
    parser.add_argument("version", nargs="?", default=LATEST, metavar="latest | VERSION | ID")
    parser.add_argument("--store", metavar="NAME[:WHERE]", help=f"one of {', '.join(names('stores'))}")
    parser.add_argument("--to", type=Path, default=FETCHED, metavar="FOLDER", help=f"instead of {FETCHED}")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--key", type=Path, metavar="FILE", help=f"the public key (default: {PUBLIC}, if there)"
    )
    which.add_argument("--unsigned", action="store_true", help="whoever has signed it, or nobody")
    return parser.parse_args()


def find_key(given: Path | None, unsigned: bool) -> Path | None:
    """Returns the public key that what is fetched must be signed by, None if it need not be.

    Raises:
        UserError: If it is none.
    """
    key = given or (PUBLIC if PUBLIC.exists() and not unsigned else None)
    if key:
        check_public(key)
    return key


def choose(wanted: str | None) -> stores.Store:
    """Returns the store to fetch from.

    Raises:
        UserError: If it is not said which one.
    """
    found = stores.choose([wanted] if wanted else [], os.environ)
    if len(found) != 1:
        known = " and ".join(store.module.__name__.rpartition(".")[2] for store in found) or "none"
        raise UserError(f"--store: not given, and the environment names {known}; expected one store")
    return found[0]


def find(wanted: str, store: stores.Store) -> str:
    """Returns the version or id to fetch.

    Raises:
        UserError: If it is no name of one, or nothing is published.
    """
    if wanted != LATEST:
        if not re.fullmatch(r"\w[\w.+-]*", wanted, re.ASCII):
            raise UserError(
                f"found {wanted!r}, expected {LATEST}, a version such as 1.2.0, or the id of a job"
            )
        return wanted
    newest = stores.newest(store.module.versions(store.options))
    if newest is None:
        raise UserError(f"{LATEST}: nothing is published there but, at most, pre-releases")
    return newest


def check_target(folder: Path) -> None:
    """Checks that nothing is lost where the model is to be.

    Raises:
        UserError: If something else than an earlier fetch is there.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SUMS).exists():
        raise UserError(f"--to: {folder} holds something else; expected nothing there, or an earlier fetch")


if __name__ == "__main__":
    command.run(main)

"""Sends build/bundle to stores, each of which shows it whole or not at all. Twice is as good as once.

The version is that of the tag vX.Y.Z, else the patch behind the newest one. Without --store it goes to every
store that the environment names: GITLAB_TOKEN in GitLab CI, PUBLISH_S3 and PUBLISH_FOLDER anywhere.

python -m src.publish.publish
python -m src.publish.publish --store folder:PATH --store gitlab --version 1.2.0
"""

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from src import command, stores
from src.errors import UserError
from src.plugin import names
from src.stores import Store

BUNDLE = Path("build/bundle")


def main() -> None:
    """Runs the command."""
    arguments = parse()
    stores.check(BUNDLE)
    chosen = stores.choose(arguments.store, os.environ)
    if not chosen:
        print(
            f"{BUNDLE}: no store to publish to: none of GITLAB_TOKEN, PUBLISH_S3 and PUBLISH_FOLDER is set; "
            "the job's artifact is the publication"
        )
        return
    version = find_version(arguments.version, chosen, os.environ)
    for store in chosen:
        place = store.module.put(BUNDLE, version, store.options)
        print(f"{version}: published at {place}")


def parse() -> argparse.Namespace:
    """Parses the command line."""
    parser = command.parser(__doc__)
    parser.add_argument(
        "--store",
        action="append",
        default=[],
        metavar="NAME[:WHERE]",
        help=f"one of {', '.join(names('stores'))}; may be given more than once",
    )
    parser.add_argument("--version", help="a semantic version, instead of the tag's or the next one")
    return parser.parse_args()


def find_version(wanted: str | None, chosen: list[Store], environ: Mapping[str, str]) -> str:
    """Returns the version to publish under.

    Args:
        wanted: By the command line.
        chosen: The stores to send to.
        environ: The environment; CI_COMMIT_TAG may name the version.

    Raises:
        UserError: If the version is not semantic.
    """
    tag = environ.get("CI_COMMIT_TAG")
    if wanted or tag:
        version = wanted or str(tag).removeprefix("v")
        if not stores.SEMANTIC.fullmatch(version):
            source = "--version" if wanted else "the tag"
            raise UserError(f"{source}: found {wanted or tag!r}, expected a semantic version such as 1.2.0")
        return version
    known = [(store, store.module.versions(store.options)) for store in chosen]
    everything = [version for _, versions in known for version in versions]
    latest = stores.newest(everything)
    if latest and all(
        stores.holds(store.module, latest, store.options, BUNDLE)
        for store, versions in known
        if latest in versions
    ):
        return latest  # a job that runs again: the stores that have it agree, the others get it
    return stores.next_patch(everything)


if __name__ == "__main__":
    command.run(main)

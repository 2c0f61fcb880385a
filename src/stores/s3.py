"""A bucket on AWS or any store that speaks S3, with the shared inference.json that applications read.

`--store s3:s3://BUCKET/PREFIX`, or PUBLISH_S3 in the environment; with AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY, AWS_PROFILE or the machine's role, and AWS_ENDPOINT_URL where the store is not AWS.

    PREFIX/models/<version>/<digest>/   a version's files, first
    PREFIX/versions/<version>.json      written once, by If-None-Match: from then on there is a version, whole
    PREFIX/inference.json               its entry, of its version rather than of the CI job: a job that runs
                                        again has another id, but publishes the same version

The command lists, downloads, uploads and deletes single files and entries:

    python -m src.stores.s3 ls s3://team/models/
    python -m src.stores.s3 put photos.zip s3://team/data/
    python -m src.stores.s3 get s3://team/data/photos.zip
    python -m src.stores.s3 rm s3://team/data/photos.zip
    python -m src.stores.s3 entry ls s3://team
    python -m src.stores.s3 entry set s3://team job-7 src/models
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from src import command
from src.checksums import SUMS
from src.errors import UserError
from src.files import read_json
from src.s3 import entries
from src.s3.bucket import Bucket, ChangedError, Location, Object
from src.s3.download import download as download_file
from src.s3.download import download_all
from src.s3.published import FORMAT, PUBLISHED, VERSIONS, folders, record, refuse_used
from src.s3.upload import keys_of, upload_files
from src.stores import PROVENANCE, SEMANTIC, judged


@dataclass(frozen=True)
class Options:
    """The bucket, and what all keys begin with."""

    bucket: Bucket
    prefix: str
    folders: dict[str, str] = field(default_factory=dict, compare=False)  # found so far, of versions and ids


def options(argument: str | None, environ: Mapping[str, str]) -> Options | None:
    """Returns the options, None if neither argument nor environment names a bucket.

    Raises:
        UserError: If what they name is none.
    """
    url = argument or environ.get("PUBLISH_S3")
    if not url:
        return None
    try:
        return _options(Location.parse(url))
    except UserError as error:
        raise UserError(f"{'--store s3' if argument else 'PUBLISH_S3'}: {error}") from None


def _options(location: Location) -> Options:
    prefix = location.key.removesuffix(entries.NAME).strip("/")
    return Options(Bucket(location.bucket), f"{prefix}/" if prefix else "")


# ── The store ──────────────────────────────────────────────────────────────────────────────────────────────


def put(bundle: Path, version: str, options: Options) -> str:
    """Publishes a bundle: its files, then the version, then its entry in inference.json.

    A publish that is cut off is completed by the next one of the same model.

    Raises:
        UserError: If the version is another model, or the store refuses.
    """
    bucket, key = options.bucket, f"{options.prefix}{VERSIONS}{version}.json"
    found = record(bucket, options.prefix, version)
    if found is None:
        created = read_json(bundle / PROVENANCE)["created"]
        entry = entries.upload(bucket, version, bundle, created, options.prefix)
        found = {"format": FORMAT, "version": version, "files": judged(bundle), "entry": entry}
        try:
            bucket.write(key, (json.dumps(found, indent=2) + "\n").encode())
        except ChangedError:  # another publish was faster
            found = record(bucket, options.prefix, version)
            if found is None:
                raise
    if found["files"] != judged(bundle):
        raise UserError(f"{bucket.place(key)}: is another model already; expected a new version")
    entries.update(bucket, version, found["entry"], options.prefix)
    return bucket.place(entries.files(found["entry"]))


def versions(options: Options) -> list[str]:
    """Returns the published versions."""
    where = f"{options.prefix}{VERSIONS}"
    names = [found.key.removeprefix(where).removesuffix(".json") for found in options.bucket.objects(where)]
    return [name for name in names if SEMANTIC.fullmatch(name)]


def download(version: str, name: str, path: Path, options: Options) -> None:
    """Downloads one file of a version, or of the entry of a job, with a progress bar.

    Raises:
        UserError: If there is no such version, entry or file, or the store refuses.
    """
    where = _folder(version, options)
    own = PUBLISHED.fullmatch(where)
    download_file(options.bucket, where + name, path, own[3] if own and name == SUMS else None)


def contents(version: str, options: Options) -> list[str]:
    """Returns the names of a version's files."""
    where = _folder(version, options)
    return [found.key.removeprefix(where) for found in options.bucket.objects(where)]


def _folder(version: str, options: Options) -> str:
    """Returns what the keys of the files of a version, or of an entry, begin with; always the same."""
    if version not in options.folders:
        found = record(options.bucket, options.prefix, version)
        entry = found["entry"] if found else entries.read(options.bucket, options.prefix).get(version)
        if entry is None:
            place = options.bucket.place(options.prefix)
            raise UserError(f"{place}: there is neither a version nor an entry {version!r}")
        options.folders[version] = entries.files(entry)
    return options.folders[version]


# ── Single files ───────────────────────────────────────────────────────────────────────────────────────────


def list_files(arguments: argparse.Namespace) -> None:
    """Prints size and key of the files whose keys begin so."""
    count = size = 0
    for found in arguments.bucket.objects(arguments.key):
        print(f"{found.size:>15,}  {found.key}")
        count, size = count + 1, size + found.size
    if not count:
        raise UserError(f"{arguments.url}: there are no files")
    print(f"{size:>15,}  bytes in {count:,} files")


def get_files(arguments: argparse.Namespace) -> None:
    """Downloads a file, or all files of a folder."""
    bucket, key = arguments.bucket, arguments.key
    path = Path(arguments.path or key.rstrip("/").rpartition("/")[2] or bucket.name)
    if not key or key.endswith("/"):
        download_all(bucket, key, path)
    else:
        download_file(bucket, key, path / Path(key).name if path.is_dir() else path)


def put_files(arguments: argparse.Namespace) -> None:
    """Uploads a file, or all files of a folder. None that an entry names is replaced."""
    bucket, source = arguments.bucket, Path(arguments.path)
    if source.is_dir():
        files = keys_of(source, arguments.key)
    elif source.is_file():
        files = {source: arguments.key}
        if not arguments.key or arguments.key.endswith("/"):
            files = {source: arguments.key + source.name}
    else:
        raise UserError(f"{source}: not found; expected a file or a folder")
    if not arguments.force:
        refuse_used(bucket, files.values())
    upload_files(bucket, files, source.name)


def remove_file(arguments: argparse.Namespace) -> None:
    """Deletes a file, unless an entry names it."""
    bucket, key = arguments.bucket, arguments.key
    if not arguments.force:
        refuse_used(bucket, [key])
    if bucket.find(key) is None:
        raise UserError(f"{arguments.url}: not found")
    bucket.delete(key)


# ── Entries ────────────────────────────────────────────────────────────────────────────────────────────────


def list_entries(arguments: argparse.Namespace) -> None:
    """Prints what there is, a line each."""
    known = entries.read(arguments.bucket, arguments.prefix)
    for id, entry in known.items():
        accuracy = entry.get("accuracy")
        figure = f"{accuracy:.4f}" if isinstance(accuracy, int | float) else "–"
        print(f"{id:<24} {entry.get('task_type')!s:<12} {figure:>6}  {entry.get('created')}")
    print(f"{len(known):,} entries")


def get_entry(arguments: argparse.Namespace) -> None:
    """Prints an entry as JSON."""
    entry = entries.read(arguments.bucket, arguments.prefix).get(arguments.id)
    if entry is None:
        place = arguments.bucket.place(arguments.prefix + entries.NAME)
        raise UserError(f"{place}: there is no entry {arguments.id!r}")
    print(json.dumps(entry, indent=2, ensure_ascii=False))


def set_entry(arguments: argparse.Namespace) -> None:
    """Publishes a folder of results, or sets an entry whose files are there already."""
    bucket, prefix, source = arguments.bucket, arguments.prefix, Path(arguments.path)
    if source.is_dir():
        created = datetime.now(UTC).isoformat(timespec="seconds")
        entries.publish(bucket, arguments.id, source, created, prefix=prefix)
        return
    entry = read_json(source)
    if not isinstance(entry, dict):
        raise UserError(f"{source}: expected an entry, a dictionary, found {type(entry).__name__}")
    for name, key in entry.items():
        named = name.endswith(("_path", "_prediction")) and key is not None
        if named and (not isinstance(key, str) or bucket.find(key) is None):
            raise UserError(f"{source}: {name}: found {key!r}, expected the key of a file in {bucket.name}")
    entries.update(bucket, arguments.id, entry, prefix)


def remove_entry(arguments: argparse.Namespace) -> None:
    """Takes an entry out, and then deletes its files, unless a version has them or --keep says so.

    Not to be done while the same results are being published under the same id: their files may go as well.
    """
    bucket, prefix = arguments.bucket, arguments.prefix
    entry = entries.remove(bucket, arguments.id, prefix)
    if arguments.keep:
        return
    for found in [found for folder in sorted({*folders(entry)}) for found in bucket.objects(folder)]:
        print(_delete_unused(bucket, found))


def _delete_unused(bucket: Bucket, found: Object) -> str:
    """Deletes a file that nothing names; returns what was done."""
    try:
        refuse_used(bucket, [found.key])
    except UserError as error:
        return f"stays: {error}"
    bucket.delete(found.key)
    return f"deleted: {found.key}"


# ── The command ────────────────────────────────────────────────────────────────────────────────────────────


def main() -> None:
    """Runs the command."""
    arguments = parse(sys.argv[1:])
    location = Location.parse(arguments.url)
    arguments.bucket, arguments.key = Bucket(location.bucket, arguments.endpoint_url), location.key
    arguments.prefix = _options(location).prefix
    arguments.action(arguments)


def parse(words: list[str]) -> argparse.Namespace:
    """Parses the command line."""
    parser = command.parser(__doc__)
    parser.add_argument("--endpoint-url", help="the store's address, instead of AWS_ENDPOINT_URL")
    verbs = parser.add_subparsers(required=True, metavar="ls | get | put | rm | entry")

    def add(to: Any, name: str, action: Any, *names: str) -> argparse.ArgumentParser:
        verb: argparse.ArgumentParser = to.add_parser(
            name, help=action.__doc__.splitlines()[0], description=action.__doc__
        )
        verb.set_defaults(action=action)
        for word in names:
            kind = {"url": "s3://BUCKET/KEY", "where": "s3://BUCKET/PREFIX"}
            verb.add_argument("url" if word in kind else word, metavar=kind.get(word, word.upper()))
        return verb

    add(verbs, "ls", list_files, "url")
    get = add(verbs, "get", get_files, "url")
    get.add_argument("path", nargs="?", metavar="PATH", help="where to; without it, its own name here")
    for verb in (add(verbs, "put", put_files, "path", "url"), add(verbs, "rm", remove_file, "url")):
        verb.add_argument("--force", action="store_true", help="though an entry names it")
    entry = verbs.add_parser("entry", help="The shared inference.json: ls, get, set, rm.")
    of_entry = entry.add_subparsers(required=True, metavar="ls | get | set | rm")
    add(of_entry, "ls", list_entries, "where")
    add(of_entry, "get", get_entry, "where", "id")
    add(of_entry, "set", set_entry, "where", "id", "path")
    rm = add(of_entry, "rm", remove_entry, "where", "id")
    rm.add_argument("--keep", action="store_true", help="leave its files for who still reads them")
    return parser.parse_args(words)


if __name__ == "__main__":
    command.run(main)

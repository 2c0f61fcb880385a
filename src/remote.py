"""Makes a bucket on S3 the DVC remote, as the environment says: writes .dvc/config, which is to be committed.

    python -m src.remote        (make remote)

DVC_REMOTE_URL is s3://bucket/folder, AWS_ENDPOINT_URL the address of a store other than AWS. The file holds
no secret: who may read and write is said by the environment or the AWS profile of whoever pulls and pushes.
What DVC brings from there is checked against its MD5, which DVC leaves out unless it is told to.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit

from src import command
from src.errors import UserError
from src.s3.bucket import ENDPOINTS

NAME = "s3"
URL = "DVC_REMOTE_URL"
CONFIG = Path(".dvc/config")


def main() -> None:
    """Runs the command."""
    command.parser(__doc__).parse_args()
    if not os.environ.get(URL):
        raise UserError(f"{URL}: is not set, expected s3://bucket/folder (.env.example)")
    _check(URL, "s3://bucket/folder")
    endpoint = next((name for name in ENDPOINTS if os.environ.get(name)), None)
    if endpoint:
        _check(endpoint, "https://host", "http://host")
    if not CONFIG.exists():
        raise UserError(f"{CONFIG}: not found; run `dvc init`, or go to the repository's folder")
    before = CONFIG.read_text()
    set_up(os.environ[URL].rstrip("/"), os.environ[endpoint].rstrip("/") if endpoint else None)
    if CONFIG.read_text() == before:
        print(f"{CONFIG}: is so already")
    else:
        print(f'{CONFIG}: written; now `git add {CONFIG}`, `git commit -m "DVC remote on S3"` and `dvc push`')


def set_up(url: str, endpoint: str | None) -> None:
    """Makes a bucket the default remote; settings that were added by hand stay.

    Raises:
        UserError: If the file is damaged, or DVC refuses.
    """
    from dvc.cli import main as dvc
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            there = repo.config["remote"].get(NAME, {})
    except DvcException as error:
        raise UserError(f"{CONFIG}: {' '.join(str(error).split())}") from None
    commands = [["modify", NAME, "url", url] if there else ["add", NAME, url]]
    commands += [["default", NAME], ["modify", NAME, "verify", "true"]]
    if endpoint:
        commands.append(["modify", NAME, "endpointurl", endpoint])
    elif "endpointurl" in there:
        commands.append(["modify", "--unset", NAME, "endpointurl"])
    for arguments in commands:
        if dvc(["remote", *arguments, "--quiet"]):
            raise UserError(f"{CONFIG}: `dvc remote {' '.join(arguments)}` failed")


def _check(name: str, *expected: str) -> None:
    """Checks an address, which is not repeated: there may be a secret in it.

    Raises:
        UserError: If it is of another form, or has credentials in it.
    """
    text, forms = os.environ[name], " or ".join(expected)
    try:
        url = urlsplit(text)
    except ValueError:
        url = urlsplit("")
    if url.scheme not in {form.partition(":")[0] for form in expected} or not url.hostname:
        raise UserError(f"{name}: found no such address, expected {forms}")
    if "@" in text or url.query or url.fragment or (url.scheme == "s3" and ":" in url.netloc):
        raise UserError(
            f"{name}: has credentials or parameters in it, expected {forms} alone; {CONFIG} is committed, "
            "credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )


if __name__ == "__main__":
    command.run(main)

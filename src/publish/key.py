"""Makes the pair of keys that published models are signed with and verified by. Nothing is ever overwritten.

out:  the private key, for its owner alone to read, and sluice.pub, to be committed

python -m src.publish.key                       ~/.config/sluice/NAME.pem, NAME being that of this folder
python -m src.publish.key /media/stick/team.pem
python -m src.publish.key --password            asks for one, or takes SLUICE_SIGNING_PASSWORD
"""

import argparse
import getpass
import os
import sys
from pathlib import Path

from src import command, git
from src.errors import UserError
from src.signature import KEY, PASSWORD, PUBLIC, public_pem

FOLDER = Path("~/.config/sluice")
ADVICE = """\
{private}: the private key: give its content to GitLab as {key}, a variable of type File, protected and
of the environment `publish` (Settings > CI/CD > Variables){password}, and keep it where nobody else reads.
{public}: the public key: commit it, and `python -m src.publish.fetch` takes only what this key has signed."""


def main() -> None:
    """Runs the command."""
    arguments = parse()
    private = (arguments.private or FOLDER / f"{Path.cwd().name}.pem").expanduser()
    check_places(private, arguments.public)
    make(private, arguments.public, ask() if arguments.password else None)
    password = f", and its password as {PASSWORD}, masked" if arguments.password else ""
    print(ADVICE.format(private=private, public=arguments.public, key=KEY, password=password))


def parse() -> argparse.Namespace:
    """Parses the command line."""
    parser = command.parser(__doc__)
    parser.add_argument("private", nargs="?", type=Path, metavar="FILE", help="of the private key")
    parser.add_argument("--public", type=Path, default=PUBLIC, metavar="FILE", help=f"instead of {PUBLIC}")
    parser.add_argument("--password", action="store_true", help="encrypt the private key")
    return parser.parse_args()


def check_places(private: Path, public: Path) -> None:
    """Checks that no key is lost, and that the private one does not get into a commit.

    Raises:
        UserError: If either is there already, or the private one would be in the repository.
    """
    for path in (private, public):
        if path.exists() or path.is_symlink():
            raise UserError(f"{path}: is there already; expected no key, for what it has signed needs it")
    found = git.run("rev-parse", "--show-toplevel")
    root = Path(found.decode().strip()) if found else Path.cwd()
    if private.resolve().is_relative_to(root.resolve()):
        raise UserError(
            f"{private}: is in the repository; expected a place outside, where nothing is committed"
        )


def ask() -> str:
    """Returns the password that the environment or the terminal gives.

    Raises:
        UserError: If there is none.
    """
    password = os.environ.get(PASSWORD)
    if not password and sys.stdin.isatty():
        password = getpass.getpass("password of the private key: ")
        if password != getpass.getpass("once more: "):
            raise UserError("--password: found two different ones")
    if not password:
        raise UserError(f"--password: expected one, in {PASSWORD} or typed in a terminal")
    return password


def make(private: Path, public: Path, password: str | None) -> None:
    """Writes a new pair of keys.

    Raises:
        UserError: If one cannot be written.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = ec.generate_private_key(ec.SECP256R1())
    lock = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    contents = {
        private: (key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock), 0o600),
        public: (public_pem(key), 0o644),
    }
    made: list[Path] = []
    for path, (content, mode) in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
                made.append(path)
                file.write(content)
        except OSError as error:
            for half in made:
                half.unlink()
            raise UserError(f"{path}: cannot be written: {error.strerror}") from None


if __name__ == "__main__":
    command.run(main)

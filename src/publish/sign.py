"""Signs build/bundle and the sluice.pyz in it, if there is a key; without one, and no sluice.pub, it says so.

in:   build/bundle/; SLUICE_SIGNING_KEY in the environment, the path of a private key or the key itself, and
      SLUICE_SIGNING_PASSWORD if it has a password; sluice.pub, where there is one
out:  build/bundle/model.sig, and the signature in sluice.pyz; SHA256SUMS names both as they are then

The key is written nowhere. `make key` makes one.

python -m src.publish.sign
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from src import command, signature
from src.checksums import SUMS, check, checksums, written
from src.errors import UserError
from src.files import replacing, sha256
from src.signature import KEY, PASSWORD, PUBLIC

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

BUNDLE = Path("build/bundle")
ARCHIVE = "sluice.pyz"


def main() -> None:
    """Runs the command."""
    command.parser(__doc__).parse_args()
    check(BUNDLE)
    key = find_key(os.environ)
    if key is None:
        if PUBLIC.exists():
            raise UserError(
                f"{KEY}: is not set, and there is a {PUBLIC}: `fetch` would refuse what is not signed"
            )
        print(f"{BUNDLE}: not signed: {KEY} is not set")
        return
    if (BUNDLE / ARCHIVE).exists():
        signature.sign_archive(BUNDLE / ARCHIVE, key)
        sums = {**checksums(BUNDLE), ARCHIVE: sha256(BUNDLE / ARCHIVE)}
        with replacing(BUNDLE / SUMS) as temporary:
            temporary.write_bytes(written(sums).encode())
    signature.sign_bundle(BUNDLE, key)
    print(f"{BUNDLE}: signed, {len(checksums(BUNDLE)):,} files; whoever has {PUBLIC} can verify it")


def find_key(environ: Mapping[str, str]) -> "EllipticCurvePrivateKey | None":
    """Returns the private key that the environment names or holds, None if it does neither.

    Raises:
        UserError: If it is none, or sluice.pub is the public key of another.
    """
    found = environ.get(KEY, "").strip()
    if not found:
        return None
    pem = found.encode()
    if not found.startswith("-----BEGIN"):
        try:
            pem = Path(found).read_bytes()
        except (OSError, ValueError):  # what it holds is not shown: it might be a part of a key
            raise UserError(f"{KEY}: expected a private key, or the path of a file with one") from None
    key = signature.read_private(pem, environ.get(PASSWORD), KEY)
    if PUBLIC.exists() and PUBLIC.read_bytes().split() != signature.public_pem(key).split():
        raise UserError(f"{KEY}: is another key than that of {PUBLIC}, by which nobody could verify it")
    return key


if __name__ == "__main__":
    command.run(main)

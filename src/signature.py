"""The signature of a published model, by an elliptic curve key: OpenSSF model signing.

    model.sig     in a bundle: of every file beside it but SHA256SUMS, whose bytes follow from the others
    sluice.pyz    carries its own in the comment of the zip archive: of all bytes but the comment's

Both are what https://github.com/sigstore/model-transparency calls a signature: a Sigstore bundle in JSON,
around an in-toto statement with the SHA-256 of each file. No server is asked. A signature says who published
a model, not which version it is: an older model, signed then, is signed still.
"""

import ast
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from src.checksums import SUMS, check, checksums, written
from src.errors import UserError
from src.files import replacing, sha256

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from model_signing import hashing

NAME = "model.sig"
PUBLIC = Path("sluice.pub")  # the repository's own public key, for all to verify with
KEY, PASSWORD = "SLUICE_SIGNING_KEY", "SLUICE_SIGNING_PASSWORD"  # the private key, in the environment
CURVES = ("secp256r1", "secp384r1", "secp521r1")  # those that model signing knows
# The last record of a zip archive: how it begins, its bytes, and those at its end: the length of the comment
# that follows it. https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, section 4.3.16
END, ENDS, LENGTH = b"PK\5\6", 22, 2
LONGEST = 65_535  # bytes of a comment


# ── Keys ───────────────────────────────────────────────────────────────────────────────────────────────────


def read_private(pem: bytes, password: str | None, where: str) -> "EllipticCurvePrivateKey":
    """Returns a private key.

    Args:
        pem: Its text.
        password: That it is encrypted with, if it is.
        where: What to call it in an error, which never shows a part of it.

    Raises:
        UserError: If it is no key of a known curve, or the password is not its own.
    """
    _load_library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem, password.encode() if password else None)
    except TypeError:  # one of the two has a password, the other has not
        wants = "the key has none" if password else "the key has one"
        raise UserError(f"{where}: expected its password in {PASSWORD}; {wants}") from None
    except (ValueError, UnsupportedAlgorithm):
        wrong = ", or the password is another" if password else ""
        raise UserError(
            f"{where}: expected a private key as `make key` makes it, found none{wrong}"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in CURVES:
        raise UserError(
            f"{where}: expected a key of an elliptic curve, as `make key` makes it, found another"
        )
    return key


def public_pem(key: "EllipticCurvePrivateKey") -> bytes:
    """Returns the public key of a private one."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def check_public(path: Path) -> None:
    """Checks that a file is a public key that signatures can be verified with.

    Raises:
        UserError: If it is not.
    """
    _load_library()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read as a public key: {error.strerror}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise UserError(f"{path}: expected a public key as `make key` makes it, found none") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name not in CURVES:
        raise UserError(f"{path}: expected a public key of an elliptic curve, found another")


def _load_library() -> None:
    """Imports model signing, or says how it is installed: it imports pyOpenSSL, but does not bring it."""
    try:
        import model_signing.verifying  # noqa: F401
    except ModuleNotFoundError as error:
        package = str(error.name).partition(".")[0]
        raise UserError(
            f"signatures: {package} is not installed: {Path(sys.executable).name} -m pip install "
            "model-signing pyopenssl"
        ) from None


# ── A folder, a file ───────────────────────────────────────────────────────────────────────────────────────


def sign(path: Path, key: "EllipticCurvePrivateKey") -> bytes:
    """Returns the signature of a file, or of all files of a folder but `NAME` and SHA256SUMS.

    The key goes to the library through a pipe: it reads keys from paths alone.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from model_signing import signing

    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with _piped(pem) as pipe:
        config = signing.Config().use_elliptic_key_signer(private_key=pipe)
    with tempfile.TemporaryDirectory() as scratch:
        signature = Path(scratch) / NAME
        config.set_hashing_config(_all()).sign(path, signature)
        return signature.read_bytes()


def verify(path: Path, signature: bytes, key: Path, name: str) -> None:
    """Checks a file, or all files of a folder but `NAME` and SHA256SUMS.

    Args:
        path: Of the file or folder.
        signature: What `sign` returned.
        key: The file of the public key.
        name: What to call it in an error.

    Raises:
        UserError: If the signature is none, is not by this key, or is of other files.
    """
    check_public(key)
    from cryptography.exceptions import InvalidSignature
    from model_signing import verifying
    from sigstore_models.bundle.v1 import Bundle

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / NAME
        file.write_bytes(signature)
        try:
            if Bundle.from_json(signature).to_json().encode() != signature:
                raise ValueError("it could be written otherwise")
            # What is ignored is said here: by default the library would pass over .gitignore and others.
            config = verifying.Config().use_elliptic_key_verifier(public_key=key)
            config.set_hashing_config(_all()).verify(path, file)
        except InvalidSignature:
            raise UserError(f"{name}: its signature is not by the key {key}") from None
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UserError(f"{name}: {_reason(error, key)}") from None


def _reason(error: Exception, key: Path) -> str:
    text = str(error)
    if text.startswith("Key mismatch"):
        return f"is signed by another key than {key}"
    if text.startswith("Signature mismatch: "):
        first = ast.literal_eval(text.removeprefix("Signature mismatch: "))[0].partition(": Expected")[0]
        return f"is not what was signed: {first}"
    if "symlink" in text.lower():
        return f"is not what was signed: {text.splitlines()[0]}"
    return "expected a signature by model signing, found something else, or a part of one"


def _all() -> "hashing.Config":
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[NAME, SUMS], ignore_git_paths=False)


@contextmanager
def _piped(content: bytes) -> Iterator[Path]:
    """Yields a path that can be read once; what it holds is in no file."""
    reader, writer = os.pipe()
    try:
        with os.fdopen(writer, "wb") as file:
            file.write(content)
        yield Path(f"/dev/fd/{reader}")
    finally:
        os.close(reader)


# ── A bundle ───────────────────────────────────────────────────────────────────────────────────────────────


def sign_bundle(folder: Path, key: "EllipticCurvePrivateKey") -> None:
    """Writes `NAME` into a bundle, and the name into its SHA256SUMS.

    Raises:
        UserError: If the bundle is not what its SHA256SUMS says.
    """
    check(folder)
    with replacing(folder / NAME) as temporary:
        temporary.write_bytes(sign(folder, key))
    sums = {**checksums(folder), NAME: sha256(folder / NAME)}
    with replacing(folder / SUMS) as temporary:
        temporary.write_bytes(written(sums).encode())


def verify_bundle(folder: Path, key: Path, name: str = "") -> None:
    """Checks that a bundle is, in every byte, what the owner of a key has signed.

    Args:
        folder: The bundle.
        key: The file of the public key.
        name: What to call it in an error, instead of the folder.

    Raises:
        UserError: If it is not.
    """
    name = name or str(folder)
    try:
        signature = (folder / NAME).read_bytes()
    except OSError:
        raise UserError(f"{name}: is not signed: expected {NAME} in it, by the key {key}") from None
    verify(folder, signature, key, name)
    check(folder)
    if (folder / SUMS).read_bytes() != written(checksums(folder)).encode():
        raise UserError(f"{name}: {SUMS} was changed: it says the same, but in other bytes")


# ── An archive ─────────────────────────────────────────────────────────────────────────────────────────────


def sign_archive(path: Path, key: "EllipticCurvePrivateKey") -> None:
    """Makes the signature of a zip archive its comment, in the place of an earlier one."""
    whole, _ = _split(path)
    with replacing(path) as temporary:
        temporary.write_bytes(whole)
        signature = sign(temporary, key)
        if len(signature) > LONGEST:
            raise UserError(
                f"{path}: the signature has {len(signature):,} bytes, expected {LONGEST:,} at most"
            )
        temporary.write_bytes(whole[:-LENGTH] + len(signature).to_bytes(LENGTH, "little") + signature)
        temporary.chmod(path.stat().st_mode)


def verify_archive(path: Path, key: Path) -> None:
    """Checks that an archive is, in every byte, what the owner of a key has signed.

    Raises:
        UserError: If it is not.
    """
    whole, signature = _split(path)
    if not signature:
        raise UserError(f"{path}: is not signed: expected a signature by the key {key}")
    with tempfile.TemporaryDirectory() as scratch:
        unsigned = Path(scratch) / path.name
        unsigned.write_bytes(whole)
        verify(unsigned, signature, key, str(path))


def _split(path: Path) -> tuple[bytes, bytes]:
    """Returns an archive without its comment, and the comment."""
    content = path.read_bytes()
    start = content.rfind(END)
    comment = content[start + ENDS :]
    if start < 0 or content[start + ENDS - LENGTH : start + ENDS] != len(comment).to_bytes(LENGTH, "little"):
        raise UserError(f"{path}: expected a zip archive up to its last byte, found something else")
    return content[: start + ENDS - LENGTH] + bytes(LENGTH), comment


def is_signed(path: Path) -> bool:
    """Returns whether a bundle or an archive has a signature, of whatever worth."""
    return (path / NAME).is_file() if path.is_dir() else bool(_split(path)[1])

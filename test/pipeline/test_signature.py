"""What is published is signed, and whatever is not what was signed is found: by fetch, and by verify."""

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from src import signature
from src.checksums import SUMS, checksums, written
from src.errors import UserError
from src.files import sha256
from src.predict.source import Source
from src.predict.verify import verify
from src.publish import fetch, key, pyz, sign
from src.stores import folder

BUNDLE = Path("build/bundle")
ARCHIVE = BUNDLE / "sluice.pyz"
PUBLIC = Path("sluice.pub")


def pem(private, password: bytes | None = None) -> str:
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    return private.private_bytes(serialization.Encoding.PEM, form, lock).decode()


@pytest.fixture(scope="module")
def private() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Where the bundles are kept that each test has a copy of."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def unsigned(workspace, request, run_command, kept) -> Path:
    """A bundle with its sluice.pyz."""
    if not (kept / "unsigned").exists():
        request.getfixturevalue("bundled")
        assert run_command(pyz.main) == (0, "")
        shutil.copytree(BUNDLE, kept / "unsigned")
        shutil.rmtree(BUNDLE)
    shutil.copytree(kept / "unsigned", BUNDLE)
    return BUNDLE


@pytest.fixture
def signed(unsigned, private, run_command, monkeypatch, kept) -> Path:
    """The same, signed as the publish job does."""
    PUBLIC.write_bytes(signature.public_pem(private))
    if not (kept / "signed").exists():
        monkeypatch.setenv(signature.KEY, pem(private))
        assert run_command(sign.main) == (0, "")
        monkeypatch.delenv(signature.KEY)
        shutil.copytree(BUNDLE, kept / "signed")
    shutil.rmtree(BUNDLE)
    shutil.copytree(kept / "signed", BUNDLE)
    return BUNDLE


def reason(check: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        check()
    assert "\n" not in str(error.value)
    return str(error.value)


def agree(folder: Path) -> None:
    """Writes SHA256SUMS anew, as one who tampers would."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    sums = {name: sha256(folder / name) for name in names if name != SUMS}
    (folder / SUMS).write_text(written(sums))


# ── Signing ────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_file_is_signed_and_listed_and_what_is_signed_verifies(signed):
    listed = checksums(signed)
    assert {signature.NAME, "sluice.pyz", "model.keras", "report/index.html"} <= listed.keys()
    result = subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=signed, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert verify(Source(signed), key=PUBLIC).startswith("build/bundle: signed by sluice.pub; ")
    assert verify(Source(ARCHIVE), key=PUBLIC).startswith("build/bundle/sluice.pyz: signed by sluice.pub; ")


def test_the_librarys_own_command_verifies_it_too(signed):
    command: list = [sys.executable, "-m", "model_signing", "verify", "key", "--public_key", PUBLIC]
    command += ["--signature", signed / signature.NAME, "--no-ignore-git-paths", signed]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_signed_archive_is_still_a_program_and_a_zip_archive(signed):
    result = subprocess.run([sys.executable, ARCHIVE, "verify"], capture_output=True, text=True)
    assert "sluice.pyz: signed, by whom --key FILE tells; " in result.stdout
    with zipfile.ZipFile(ARCHIVE) as archive:
        assert archive.testzip() is None
        assert json.loads(archive.comment)["mediaType"].startswith("application/vnd.dev.sigstore.bundle")
    assert os.access(ARCHIVE, os.X_OK)


def test_the_archive_verifies_itself_anywhere_with_the_public_key_alone(signed, tmp_path):
    for path in (ARCHIVE, PUBLIC):
        shutil.copyfile(path, tmp_path / f"moved.{path.name}")
    command = [sys.executable, "-I", "moved.sluice.pyz", "verify", "--key", "moved.sluice.pub"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "signed by moved.sluice.pub" in result.stdout


def test_without_a_key_nothing_is_signed_and_a_line_says_so(unsigned, run_command, capsys):
    before = {path: path.read_bytes() for path in unsigned.rglob("*") if path.is_file()}
    assert run_command(sign.main) == (0, "")
    assert capsys.readouterr().out.endswith("build/bundle: not signed: SLUICE_SIGNING_KEY is not set\n")
    assert before == {path: path.read_bytes() for path in unsigned.rglob("*") if path.is_file()}
    assert "build/bundle: not signed; " in verify(Source(unsigned))
    PUBLIC.write_text("")
    code, said = run_command(sign.main)
    assert code == 1
    assert "SLUICE_SIGNING_KEY: is not set, and there is a sluice.pub" in said


def test_signing_again_replaces_the_signature_and_bundling_again_leaves_none(
    signed, private, run_command, monkeypatch
):
    monkeypatch.setenv(signature.KEY, pem(private))
    earlier = (signed / signature.NAME).read_bytes()
    assert run_command(sign.main) == (0, "")
    assert (signed / signature.NAME).read_bytes() != earlier
    signature.verify_bundle(signed, PUBLIC)
    signature.verify_archive(ARCHIVE, PUBLIC)
    assert run_command(pyz.main) == (0, "")
    assert signature.NAME not in checksums(signed)
    assert not signature.is_signed(signed)
    assert not signature.is_signed(ARCHIVE)


def test_a_key_with_a_password_in_a_file_signs(unsigned, run_command, monkeypatch, private):
    Path("../key.pem").write_text(pem(private, b"sesame"))
    monkeypatch.setenv(signature.KEY, "../key.pem")
    assert run_command(sign.main)[1].endswith("in SLUICE_SIGNING_PASSWORD; the key has one")
    monkeypatch.setenv(signature.PASSWORD, "wrong")
    assert run_command(sign.main)[1].endswith("found none, or the password is another")
    monkeypatch.setenv(signature.PASSWORD, "sesame")
    assert run_command(sign.main) == (0, "")
    PUBLIC.write_bytes(signature.public_pem(private))
    signature.verify_bundle(unsigned, PUBLIC)


def test_what_is_no_key_is_said_and_not_shown(unsigned, run_command, monkeypatch, private):
    good = pem(private)
    strange = pem(rsa.generate_private_key(65537, 2048))
    bitcoin = pem(ec.generate_private_key(ec.SECP256K1()))
    for found in (good[:100], good.replace("M", "N"), strange, bitcoin, "no/such/file", good.splitlines()[1]):
        monkeypatch.setenv(signature.KEY, found)
        code, message = run_command(sign.main)
        assert code == 1
        assert message.startswith("error: SLUICE_SIGNING_KEY: expected a ")
        assert not any(line in message for line in found.splitlines())
    assert not signature.is_signed(unsigned)


def test_a_key_that_is_not_the_repositorys_own_does_not_sign(signed, run_command, monkeypatch):
    monkeypatch.setenv(signature.KEY, pem(ec.generate_private_key(ec.SECP384R1())))
    before = (signed / signature.NAME).read_bytes()
    code, message = run_command(sign.main)
    assert (code, message.startswith("error: SLUICE_SIGNING_KEY: is another key than that of")) == (1, True)
    assert (signed / signature.NAME).read_bytes() == before


def test_the_key_is_in_no_file_and_no_output(signed, run_command, monkeypatch, private, capsys):
    monkeypatch.setenv(signature.KEY, pem(private))
    assert run_command(sign.main) == (0, "")
    secret = pem(private).splitlines()[1:-1]
    said = capsys.readouterr()
    holds = [
        path for path in Path.cwd().rglob("*") if path.is_file() and secret[0].encode() in path.read_bytes()
    ]
    assert holds == []
    assert not any(line in said.out + said.err for line in secret)


# ── What is found ──────────────────────────────────────────────────────────────────────────────────────────


def flip(path: Path, position: int, bit: int) -> None:
    with open(path, "r+b") as file:
        file.seek(position)
        old = file.read(1)[0]
        file.seek(position)
        file.write(bytes([old ^ 1 << bit]))


def test_a_changed_byte_in_any_file_is_found(signed):
    for path in [path for path in signed.rglob("*") if path.is_file()]:
        size = path.stat().st_size
        for number, position in enumerate(sorted({0, size // 3, size // 2, 65 % size, size - 1})):
            flip(path, position, number)
            reason(lambda: signature.verify_bundle(signed, PUBLIC))
            flip(path, position, number)
    signature.verify_bundle(signed, PUBLIC)


def test_a_changed_byte_in_any_file_is_found_though_the_sums_agree(signed):
    sums = (signed / SUMS).read_bytes()
    for path in [path for path in signed.rglob("*") if path.is_file() and path.name != SUMS]:
        flip(path, path.stat().st_size // 2, 0)
        agree(signed)
        said = reason(lambda: signature.verify_bundle(signed, PUBLIC))
        assert path.name in said or path.name == signature.NAME
        flip(path, path.stat().st_size // 2, 0)
    (signed / SUMS).write_bytes(sums)
    signature.verify_bundle(signed, PUBLIC)


def test_a_changed_byte_of_the_archive_is_found_wherever_it_is(signed):
    content = ARCHIVE.read_bytes()
    with zipfile.ZipFile(ARCHIVE) as archive:
        directory, comment = archive.start_dir, len(archive.comment)
    end = len(content) - comment
    places = {*range(0, 60, 5), *range(directory, directory + 46, 3), *range(end - 22, end)}
    places |= {*range(0, len(content), len(content) // 40), *range(end, len(content), 9), len(content) - 1}
    for position in places:
        flip(ARCHIVE, position, position % 8)
        reason(lambda: signature.verify_archive(ARCHIVE, PUBLIC))
        flip(ARCHIVE, position, position % 8)
    for changed in (content + b"\0", content[:-1], b"\0" + content, content[:end]):
        ARCHIVE.write_bytes(changed)
        reason(lambda: signature.verify_archive(ARCHIVE, PUBLIC))
    ARCHIVE.write_bytes(content)
    signature.verify_archive(ARCHIVE, PUBLIC)


def added(folder: Path, name: str = "extra.py") -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("import os")


EXTRA, MISSING = "Extra files found in model 'bundle': ", "Missing files in model 'bundle': "
TAMPERED: dict[str, tuple[Callable[[Path], object], str]] = {
    "added": (added, EXTRA + "extra.py"),
    "added and hidden": (lambda path: added(path, ".gitignore"), EXTRA + ".gitignore"),
    "added to .git": (lambda path: added(path, ".git/hook"), EXTRA + ".git/hook"),
    "removed": (lambda path: (path / "gate.md").unlink(), MISSING + "gate.md"),
    "renamed": (lambda path: (path / "gate.md").rename(path / "GATE.md"), EXTRA + "GATE.md"),
    "emptied": (lambda path: (path / "model.keras").write_bytes(b""), "Hash mismatch for 'model.keras'"),
}


@pytest.mark.parametrize("change", TAMPERED)
def test_a_file_added_removed_or_renamed_is_found_though_the_sums_agree(signed, change):
    alter, expected = TAMPERED[change]
    alter(signed)
    agree(signed)
    assert reason(lambda: signature.verify_bundle(signed, PUBLIC)) == (
        f"build/bundle: is not what was signed: {expected}"
    )


def test_a_link_to_elsewhere_is_found(signed):
    (signed / "gate.md").rename("gate.md")
    (signed / "gate.md").symlink_to(Path("gate.md").resolve())
    assert "gate.md" in reason(lambda: signature.verify_bundle(signed, PUBLIC))


def test_a_signature_by_another_key_is_found_also_if_it_claims_to_be_by_ours(signed, private):
    path = signed / signature.NAME
    ours = json.loads(path.read_text())
    path.write_bytes(signature.sign(signed, ec.generate_private_key(ec.SECP256R1())))
    agree(signed)
    said = reason(lambda: signature.verify_bundle(signed, PUBLIC))
    assert said == "build/bundle: is signed by another key than sluice.pub"
    theirs = json.loads(path.read_text())
    theirs["verificationMaterial"] = ours["verificationMaterial"]
    path.write_text(json.dumps(theirs, separators=(",", ":")))
    agree(signed)
    said = reason(lambda: signature.verify_bundle(signed, PUBLIC))
    assert said == "build/bundle: its signature is not by the key sluice.pub"


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"null", b"\xff\xfe", b'{"mediaType":1}', b"[" * 5000]
)
def test_what_is_no_signature_is_a_sentence(signed, content):
    (signed / signature.NAME).write_bytes(content)
    agree(signed)
    said = reason(lambda: signature.verify_bundle(signed, PUBLIC))
    assert (
        said == "build/bundle: expected a signature by model signing, found something else, or a part of one"
    )


def test_a_truncated_signature_is_a_sentence(signed):
    whole = (signed / signature.NAME).read_bytes()
    for length in (1, len(whole) // 2, len(whole) - 1):
        (signed / signature.NAME).write_bytes(whole[:length])
        agree(signed)
        assert "expected a signature by model signing" in reason(
            lambda: signature.verify_bundle(signed, PUBLIC)
        )


def test_the_signature_of_another_bundle_is_found(signed, private, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(signed, other)
    (other / "model.keras").write_bytes(b"better weights")
    (signed / signature.NAME).write_bytes(signature.sign(other, private))
    agree(signed)
    assert "Hash mismatch for 'model.keras'" in reason(lambda: signature.verify_bundle(signed, PUBLIC))


def test_sums_that_say_the_same_in_other_bytes_are_found(signed):
    text = (signed / SUMS).read_text()
    (signed / SUMS).write_text(text.replace("  gate.md", " *gate.md"))
    assert "SHA256SUMS was changed" in reason(lambda: signature.verify_bundle(signed, PUBLIC))
    (signed / SUMS).write_text(text + text.splitlines()[0] + "\n")
    assert "twice" in reason(lambda: signature.verify_bundle(signed, PUBLIC))


def test_what_is_not_signed_or_no_public_key_is_a_sentence(unsigned, private):
    PUBLIC.write_bytes(signature.public_pem(private))
    assert "is not signed: expected model.sig" in reason(lambda: signature.verify_bundle(unsigned, PUBLIC))
    assert "is not signed: expected a sig" in reason(lambda: signature.verify_archive(ARCHIVE, PUBLIC))
    sign_key = pem(private).encode()
    for content in (b"", b"x", sign_key, b"-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n"):
        PUBLIC.write_bytes(content)
        assert "expected a public key" in reason(lambda: signature.check_public(PUBLIC))
    assert reason(lambda: signature.check_public(Path("none.pub"))).startswith("none.pub: cannot be read")


# ── Fetching ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def shelf(signed, tmp_path) -> Path:
    """A folder store that holds the signed bundle."""
    folder.put(signed, "1.0.0", folder.Options(tmp_path / "shelf"))
    return tmp_path / "shelf"


def test_a_signed_bundle_is_fetched_by_the_repositorys_own_key(shelf, run_command, capsys):
    assert run_command(fetch.main, "--store", f"folder:{shelf}") == (0, "")
    assert capsys.readouterr().out.endswith("exactly as its SHA256SUMS says, signed by sluice.pub\n")
    signature.verify_bundle(Path("build/fetched"), PUBLIC)


@pytest.mark.parametrize("attack", ["unsigned", "changed", "by another key"])
def test_what_our_key_has_not_signed_is_not_fetched_unless_we_say_so(shelf, run_command, attack):
    place = shelf / "1.0.0"
    if attack == "unsigned":
        (place / signature.NAME).unlink()
    elif attack == "changed":
        (place / "model.keras").write_bytes(b"other weights")
    else:
        signature.sign_bundle(place, ec.generate_private_key(ec.SECP256R1()))
    agree(place)
    code, message = run_command(fetch.main, "--store", f"folder:{shelf}")
    assert code == 1
    assert message.startswith("error: 1.0.0: is ")
    assert "\n" not in message
    assert not Path("build/fetched").exists()
    assert run_command(fetch.main, "--store", f"folder:{shelf}", "--unsigned") == (0, "")


def test_a_key_that_is_given_must_be_one(shelf, run_command):
    PUBLIC.rename("team.pub")
    arguments = ["--store", f"folder:{shelf}"]
    assert run_command(fetch.main, *arguments) == (0, "")  # no key, no promise
    assert run_command(fetch.main, *arguments, "--key", "team.pub") == (0, "")
    assert run_command(fetch.main, *arguments, "--key", "sluice.pub")[1].startswith(
        "error: sluice.pub: cannot be"
    )


def test_the_bucket_carries_the_signature(signed, bucket, run_command):
    from src.stores import s3

    s3.put(signed, "1.0.0", s3.Options(bucket, "shop/"))
    assert run_command(fetch.main, "1.0.0", "--store", "s3:s3://team/shop") == (0, "")
    signature.verify_bundle(Path("build/fetched"), PUBLIC)


def test_the_registry_carries_the_signature(signed, server, run_command):
    from src.stores import gitlab

    options = gitlab.options(None, os.environ)
    assert options
    gitlab.put(signed, "1.0.0", options)
    assert run_command(fetch.main, "--store", "gitlab") == (0, "")
    signature.verify_bundle(Path("build/fetched"), PUBLIC)


# ── Keys ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_new_key_is_its_owners_alone_and_signs(bundled, run_command, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path.parent / f"{tmp_path.name}.home"))
    assert run_command(key.main) == (0, "")
    private = Path(os.environ["HOME"], ".config/sluice", f"{tmp_path.name}.pem")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    said = capsys.readouterr().out
    assert "protected" in said
    assert "commit it" in said
    assert "PRIVATE KEY-----" not in said
    assert git("status", "--short", "sluice.pub") == "?? sluice.pub\n"
    monkeypatch.setenv(signature.KEY, str(private))
    assert run_command(sign.main) == (0, "")
    signature.verify_bundle(bundled, PUBLIC)
    before = private.read_bytes(), PUBLIC.read_bytes()
    assert "is there already" in run_command(key.main)[1]
    PUBLIC.rename("kept.pub")
    assert "is there already" in run_command(key.main)[1]
    assert (private.read_bytes(), Path("kept.pub").read_bytes()) == before


def git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def test_no_key_is_made_where_it_would_be_committed(bundled, run_command):
    code, message = run_command(key.main, "secret.pem")
    assert (code, message) == (
        1,
        "error: secret.pem: is in the repository; expected a place outside, where nothing is committed",
    )
    assert not PUBLIC.exists()


def test_a_key_can_have_a_password(unsigned, run_command, monkeypatch, tmp_path):
    path = tmp_path.parent / f"{tmp_path.name}.pem"
    assert "expected one, in SLUICE_SIGNING_PASSWORD" in run_command(key.main, str(path), "--password")[1]
    assert not path.exists()
    monkeypatch.setenv(signature.PASSWORD, "sesame")
    assert run_command(key.main, str(path), "--password") == (0, "")
    assert "ENCRYPTED" in path.read_text()
    monkeypatch.setenv(signature.KEY, str(path))
    assert run_command(sign.main) == (0, "")
    signature.verify_bundle(unsigned, PUBLIC)


def test_no_key_is_left_where_only_one_of_the_two_could_be_written(bundled, run_command, tmp_path):
    Path("blocked").write_text("")
    private = tmp_path.parent / f"{tmp_path.name}.pem"
    code, message = run_command(key.main, str(private), "--public", "blocked/sluice.pub")
    assert (code, message.startswith("error: blocked/sluice.pub: cannot be written: ")) == (1, True)
    assert not private.exists()

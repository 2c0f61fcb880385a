"""What crashes, hangs, eats memory or reaches out in a process with limits ends there, with a reason."""

from pathlib import Path

import pytest

from src import confined

BAD = """
import os, socket, subprocess, sys, time
from pathlib import Path
from src import confined
from src.errors import UserError

def limited(function):
    def call(path):
        confined.limit(256 << 20, 1)
        function(path)
    return call

@limited
def good(path): assert path.read_text() == "content"

@limited
def refused(path): raise UserError(f"{path}: is not\\nwanted")

@limited
def eat(path): bytearray(1 << 32)

@limited
def eat_slowly(path):
    held = []
    try:
        while True: held.append(bytes(1 << 20))
    except MemoryError:
        size = len(held)
        held.clear()
    raise UserError(f"stopped at {size >> 8} × 256 MB")

@limited
def compute(path):
    while True: pass

@limited
def sleep(path): time.sleep(600)

@limited
def crash(path):
    import ctypes
    ctypes.string_at(0)

@limited
def leave(path): os._exit(7)

@limited
def write(path): path.with_name("written").write_text("x")

@limited
def grow(path): print("x" * 10, file=FILE, flush=True)
FILE = open(Path(os.environ["HOME"], "open"), "w")  # opened before the limits

@limited
def delete(path): path.unlink()

@limited
def connect(path): socket.create_connection(("127.0.0.1", 9))

@limited
def start(path): subprocess.run(["true"])

@limited
def shell(path): os.system("true")

def lifted(path):
    confined.limit(1 << 20, 1)
    confined.lift()
    bytearray(1 << 30)
    Path(os.environ["HOME"], "mine").write_text("x" * 5000)

def secrets(path):
    known = {"GITLAB_TOKEN", "SLUICE_SIGNING_KEY"}
    raise UserError(f"found: {' '.join(known & {*os.environ})}")
"""


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    """A file beside a module of functions that misbehave."""
    (tmp_path / "bad.py").write_text(BAD)
    (tmp_path / "file").write_text("content")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("GITLAB_TOKEN", "glpat-secret")
    monkeypatch.setenv("SLUICE_SIGNING_KEY", "secret")
    return tmp_path / "file"


def test_what_behaves_passes(file):
    assert confined.run("bad", "good", file) is None


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("refused", "{file}: is not wanted"),
        ("eat", "it needs more memory than there is room for"),
        ("eat_slowly", "stopped at 0 × 256 MB"),
        ("compute", "it computes for longer than it may"),
        ("crash", "it ended the process that tried it, by SIGSEGV"),
        ("leave", "exit status 7"),
        ("write", "it tries to reach out of the process that loads it (open)"),
        ("grow", "[Errno 27] File too large"),
        ("delete", "it tries to reach out of the process that loads it (os.remove)"),
        ("connect", "it tries to reach out of the process that loads it (socket.getaddrinfo)"),
        ("start", "it tries to reach out of the process that loads it (subprocess.Popen)"),
        ("shell", "it tries to reach out of the process that loads it (os.system)"),
    ],
)
def test_what_misbehaves_ends_there_with_a_reason_and_no_trace(file, function, reason):
    before = sorted(file.parent.iterdir())
    assert confined.run("bad", function, file) == reason.format(file=file)
    assert sorted(file.parent.iterdir()) == before
    assert file.read_text() == "content"


def test_what_never_ends_is_ended(file):
    assert confined.run("bad", "sleep", file, patience=2) == "it takes more than 2 seconds"


def test_limits_can_be_lifted_for_what_is_trusted(file):
    assert confined.run("bad", "lifted", file) is None


def test_the_process_is_given_no_secret(file):
    assert confined.run("bad", "secrets", file) == "found:"

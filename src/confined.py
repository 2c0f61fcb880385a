"""Tries something in a process with limits: what crashes, hangs or eats memory there ends only that.

    confined.run("src.engine", "try_out", path)   calls src.engine.try_out(path) in a new process, which calls
    confined.limit(memory, seconds)               as soon as it has imported what it needs

From then on the process has no more memory and no more time on the processor than that, writes no file, opens
no connection and starts no other process. It is given none of this one's secrets. These are limits for files
that are damaged or were made to do damage by being loaded; native code that is out of control could get
around those on files and connections, which Python keeps, but not around memory, time and bytes written,
which the system keeps. Windows keeps the wall-clock time alone, macOS all but memory.
"""

import importlib
import math
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from src.errors import UserError

PATIENCE = 300  # seconds on the clock, of which the start of Keras takes some, on a busy machine many
ROOT = Path(__file__).parents[1]  # may be an archive
# What the process needs of the environment: no token, no key.
KEPT = {"PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL"}
# On one processor and one thread, for each thread and each device reserves memory before it needs any.
ONE = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS", "MALLOC_ARENA_MAX")
QUIET = dict.fromkeys(ONE, "1") | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
# Audited events that look without touching: https://docs.python.org/3/library/audit_events.html
HARMLESS = {"os.listdir", "os.scandir", "os.walk", "os.putenv", "os.unsetenv"}
TOUCHING = ("os.", "shutil.", "socket.", "subprocess.", "tempfile.", "urllib.", "pty.", "ftplib.", "http.")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_limited: dict[str, bool] = {"hooked": False, "now": False}


# ── Where the limits are wanted ────────────────────────────────────────────────────────────────────────────


def run(module: str, function: str, path: Path, patience: float = PATIENCE) -> str | None:
    """Calls a function with a path, in a process of its own.

    Args:
        module: The module that has it.
        function: Its name.
        path: What it is called with.
        patience: Seconds after which the process is ended.

    Returns:
        Why it failed, on one line; None if it did not.
    """
    call = "import sys; from src.confined import main; main(*sys.argv[1:])"
    absolute = str(path.resolve())
    kept = {name: value for name, value in os.environ.items() if name in KEPT}
    found = os.pathsep.join([str(ROOT), *filter(os.path.isabs, sys.path)])  # packages are where they are here
    with tempfile.TemporaryDirectory() as home:  # where Keras would leave its settings
        environment = kept | QUIET | {"PYTHONPATH": found, "HOME": home, "KERAS_HOME": home}
        try:
            result = subprocess.run(
                [sys.executable, "-P", "-B", "-c", call, module, function, absolute],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                timeout=patience,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it takes more than {patience:g} seconds"
    if result.returncode == 0:
        return None
    if result.returncode < 0:
        return _fate(-result.returncode)
    said = result.stdout.decode(errors="replace").replace(absolute, str(path)).strip().splitlines()
    return said[-1] if said else f"exit status {result.returncode}"


def _fate(number: int) -> str:
    if number == getattr(signal, "SIGXCPU", None):
        return "it computes for longer than it may"
    return f"it ended the process that tried it, by {signal.Signals(number).name}"


# ── Where they hold ────────────────────────────────────────────────────────────────────────────────────────


def main(module: str, function: str, path: str) -> None:
    """Calls the function; on failure prints why, as the last line, and exits with status 1."""
    try:
        getattr(importlib.import_module(module), function)(Path(path))
    except UserError as error:
        reason = str(error)
    except Exception as error:  # whatever it is, it is told where this process was started
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if isinstance(error, MemoryError) or "ResourceExhausted" in type(error).__name__:
            reason = "it needs more memory than there is room for"
    else:
        sys.stdout.flush()
        os._exit(0)  # no one needs what the libraries would tidy up
    print("", " ".join(reason.split()), sep="\n", flush=True)
    os._exit(1)


def limit(memory: int, seconds: float) -> None:
    """Limits this process from now on.

    Args:
        memory: Bytes that it may take beyond those that it has.
        seconds: That it may compute beyond those that it has, on all threads together.
    """
    if not _limited["hooked"]:
        sys.addaudithook(_refuse)
    _limited.update(hooked=True, now=True)
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    _set(resource.RLIMIT_CPU, math.ceil(usage.ru_utime + usage.ru_stime + seconds))
    _set(resource.RLIMIT_FSIZE, 0)
    _set(resource.RLIMIT_CORE, 0)
    size = Path("/proc/self/statm")
    if size.exists():
        _set(resource.RLIMIT_AS, int(size.read_text().split()[0]) * resource.getpagesize() + memory)


def lift() -> None:
    """Lifts the limits, to import something that needs more."""
    _limited["now"] = False
    try:
        import resource
    except ModuleNotFoundError:
        return
    for kind in (resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_AS):
        resource.setrlimit(kind, (resource.getrlimit(kind)[1],) * 2)


def _set(kind: int, value: int) -> None:
    import resource

    hardest = resource.getrlimit(kind)[1]
    soft = value if hardest == resource.RLIM_INFINITY else min(value, hardest)
    resource.setrlimit(kind, (soft, hardest))


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuses what changes anything outside this process; Python calls it before it does such a thing."""
    if not _limited["now"]:
        return
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING
    if writes or (event.startswith(TOUCHING) and event not in HARMLESS):
        raise PermissionError(f"it tries to reach out of the process that loads it ({event})")

"""Datasets to and from a bucket, beside `aws s3 cp` on the same server.

A real SeaweedFS is started on this machine. One large file, a folder of many small ones and a file of one
byte go up and come down, by both programs in turns, several rounds; the program that begins changes from
round to round. Each is a process of its own: the time of starting Python is counted for both, the file of one
byte shows how much that is. `aws s3 cp` has its default settings: 10 requests at once, parts of 8 MiB, as
src/s3/bucket.py has. What is downloaded is compared with what was uploaded, which is not counted.

    python -m benchmark.s3                             (make benchmark-s3)
    python -m benchmark.s3 --without verification      our downloads without that, beside the same with it
"""

import argparse
import filecmp
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from tqdm import tqdm

ROOT = Path(__file__).parents[1]
AWS = Path(sys.prefix) / "awscli/bin/aws"
SMALL = 16 << 10  # bytes of each small file
PARTS = ("verification", "bar")  # that can be left out, to see what they cost


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each program (default: 5)")
    parser.add_argument("--megabytes", type=int, default=256, help="of the large file (default: 256)")
    parser.add_argument("--files", type=int, default=2000, help="in the folder (default: 2,000)")
    parser.add_argument("--without", choices=PARTS, help="our program beside itself without this")
    parser.add_argument("--get", nargs=2, metavar=("KEY", "PATH"), help=argparse.SUPPRESS)
    parser.add_argument("--put", nargs=2, metavar=("KEY", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.get or arguments.put:
        copy(arguments.get, arguments.put, arguments.without)
    else:
        compare(arguments)


def copy(get: list[str] | None, put: list[str] | None, without: str | None) -> None:
    """What our process does; a path or key that ends with `/` is a folder's."""
    if without == "bar":
        os.environ["TQDM_DISABLE"] = "1"
    from src.s3 import download, upload
    from src.s3.bucket import Bucket

    if without == "verification":
        download._verify = lambda *_: None
    bucket = Bucket("team")
    if get:
        key, path = get
        (download.download_all if key.endswith("/") else download.download)(bucket, key, Path(path))
    elif put:
        key, path = put
        if key.endswith("/"):
            upload.upload_all(bucket, Path(path), key)
        else:
            bucket.upload(Path(path), key)


def compare(arguments: argparse.Namespace) -> None:
    """Measures both programs, and prints the tables."""
    sys.path.insert(0, str(ROOT / "test/pipeline"))
    from s3_server import S3Server  # type: ignore[import-not-found]

    if arguments.without:
        other, name = ours("--without", arguments.without), f"without {arguments.without}"
    else:
        other, name = aws, "`aws s3 cp`"
    programs: dict[str, Callable[[str, str, Path], list[str]]] = {"Sluice": ours(), name: other}
    with tempfile.TemporaryDirectory(dir=ROOT / "build") as scratch:
        folder = Path(scratch)
        server = S3Server(folder / "server")
        server.start()
        try:
            server.make_bucket()
            os.environ.update(server.environment("writer"))
            works = make(folder, arguments)
            seconds = measure(folder, works, programs, arguments.rounds)
        finally:
            server.kill()
    print(f"\n| | Sluice | {name} | ratio | CPU: Sluice | {name} |\n|---|---|---|---|---|---|")
    for (title, _), direction in [(work, way) for work in works.items() for way in ("put", "get")]:
        mine, theirs = seconds[title, direction, "Sluice"], seconds[title, direction, name]
        ratio = statistics.median(b[0] / a[0] for a, b in zip(mine, theirs, strict=True))
        way = {"put": "up", "get": "down"}[direction]
        cells = [f"{statistics.median(run[0] for run in runs):.2f} s" for runs in (mine, theirs)]
        used = [f"{statistics.median(run[1] for run in runs):.2f} s" for runs in (mine, theirs)]
        print(f"| {title}, {way} | {cells[0]} | {cells[1]} | {ratio:.2f} | {used[0]} | {used[1]} |")
    print(f"\nMedians of {arguments.rounds} rounds; ratio: the other's time by ours, of each round.")


def make(folder: Path, arguments: argparse.Namespace) -> dict[str, Path]:
    """Writes what is to be copied, of random bytes; returns name → path."""
    random = np.random.default_rng(0)
    (folder / "large.bin").write_bytes(random.bytes(arguments.megabytes << 20))
    (folder / "one.bin").write_bytes(b"1")
    for number in range(arguments.files):
        path = folder / f"small/{number % 10}/{number:06}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.bytes(SMALL))
    return {
        f"one file of {arguments.megabytes} MB": folder / "large.bin",
        f"{arguments.files:,} files of {SMALL >> 10} kB": folder / "small",
        "one file of 1 byte": folder / "one.bin",
    }


def measure(
    folder: Path,
    works: dict[str, Path],
    programs: dict[str, Callable[[str, str, Path], list[str]]],
    rounds: int,
) -> dict[tuple[str, str, str], list[tuple[float, float]]]:
    """Returns, for each work, direction and program, the seconds and CPU seconds of each round."""
    seconds: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    with open(folder / "log.txt", "wb") as log:
        for turn in tqdm(range(rounds + 1), "rounds"):  # the first warms up
            for title, path in works.items():
                for direction in ("put", "get"):
                    for name in list(programs)[:: 1 if turn % 2 else -1]:
                        key = f"{list(programs).index(name)}/{turn}/{path.name}" + "/" * path.is_dir()
                        back = folder / "back" / path.name
                        command = programs[name](direction, key, path if direction == "put" else back)
                        taken = timed(command, log)
                        if turn:
                            seconds.setdefault((title, direction, name), []).append(taken)
                        if direction == "get":
                            check(path, back)
                            shutil.rmtree(folder / "back")
    return seconds


def ours(*options: str) -> Callable[[str, str, Path], list[str]]:
    """Returns what makes the command of our program."""

    def command(direction: str, key: str, path: Path) -> list[str]:
        return [sys.executable, "-m", "benchmark.s3", *options, f"--{direction}", key, str(path)]

    return command


def aws(direction: str, key: str, path: Path) -> list[str]:
    """Returns the command of AWS."""
    both = [str(path), f"s3://team/{key}"]
    command = [str(AWS), "s3", "cp", *(both if direction == "put" else both[::-1])]
    return [*command, "--recursive"] if key.endswith("/") else command


def timed(command: list[str], log: object) -> tuple[float, float]:
    """Runs a command; returns its seconds and CPU seconds."""
    started = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)  # type: ignore[call-overload]
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def check(sent: Path, back: Path) -> None:
    """Compares what came back with what was sent."""
    names = [path.relative_to(sent) for path in sent.rglob("*") if path.is_file()] or [Path()]
    same, _, _ = filecmp.cmpfiles(sent.parent, back.parent, [Path(sent.name, name) for name in names], False)
    if len(same) != len(names):
        sys.exit(f"{sent}: did not come back as it was")


if __name__ == "__main__":
    main()

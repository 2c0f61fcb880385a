"""How many predictions `serve` answers in a second, and how soon: src/models, test images, one run.

The clients are one process of httpx2 on the same machine: they take processor time that the server could
use, so the last column says what the server itself needed.

python -m benchmark.serve
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
import psutil

from src import golden
from src.predict.source import Source

COLUMNS = (
    "clients",
    "images a request",
    "requests a second",
    "images a second",
    "median",
    "99 % within",
    "failed",
    "server's processor time a request",
)
CLIENTS = (1, 32, 200)
BATCH = 64


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=Path("src/models"), help="a folder or a .pyz")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement (default: 10)")
    parser.add_argument("--threads", default="0", help="of the server (default: one a core)")
    arguments = parser.parse_args()
    images = [golden.unpack(row["input"]) for row in Source(arguments.model).json(golden.NAME)["examples"]]
    command = [sys.executable, "-m", "src.predict", "serve", "--port", "0", "--model", str(arguments.model)]
    command += ["--threads", arguments.threads] if arguments.threads != "0" else []
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split(" at ")[1].split()[0]
        print(f"{os.cpu_count()} cores, which the server and its clients share\n")
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        asyncio.run(measure(url, images, 1, 1, 1))  # what is slow at first
        for size in (1, BATCH):
            for clients in CLIENTS:
                before = sum(psutil.Process(server.pid).cpu_times()[:2])
                seconds, failed, wall = asyncio.run(measure(url, images, clients, size, arguments.seconds))
                busy = sum(psutil.Process(server.pid).cpu_times()[:2]) - before
                rate = len(seconds) / wall
                median, last = (f"{1000 * np.quantile(seconds, part):.1f} ms" for part in (0.5, 0.99))
                cells = [str(clients), str(size), f"{rate:,.0f}", f"{rate * size:,.0f}", median, last]
                cells += [str(failed), f"{1000 * busy / len(seconds):.2f} ms"]
                print(f"| {' | '.join(cells)} |", flush=True)
    finally:
        server.terminate()
        server.wait()


async def measure(
    url: str, images: list[bytes], clients: int, size: int, seconds: float
) -> tuple[list[float], int, float]:
    """Lets clients ask again and again.

    Args:
        url: Of the server.
        images: To be predicted, in turn.
        clients: Who ask at the same time, each on its own connection.
        size: Images in a request.
        seconds: After which they ask no more.

    Returns:
        Seconds of each answer, how many requests failed, and the seconds that all took.
    """
    taken: list[float] = []
    failed = 0
    limits = httpx2.Limits(max_connections=clients, max_keepalive_connections=clients)
    started = time.perf_counter()

    async def ask(client: httpx2.AsyncClient, number: int) -> None:
        nonlocal failed
        while time.perf_counter() - started < seconds:
            chosen = [images[(number + place) % len(images)] for place in range(size)]
            began = time.perf_counter()
            try:
                if size == 1:
                    kind = {"Content-Type": "image/png"}
                    answer = await client.post("/predict?top=1", content=chosen[0], headers=kind)
                else:
                    files = [("file", (f"{place}.png", image)) for place, image in enumerate(chosen)]
                    answer = await client.post("/predict?top=1", files=files)
                failed += answer.status_code != 200 or len(answer.json()["predictions"]) != size
            except httpx2.HTTPError:
                failed += 1
            taken.append(time.perf_counter() - began)
            number += 1

    async with httpx2.AsyncClient(base_url=url, timeout=120, limits=limits, trust_env=False) as client:
        await asyncio.gather(*(ask(client, number) for number in range(clients)))
    return taken, failed, time.perf_counter() - started


if __name__ == "__main__":
    main()

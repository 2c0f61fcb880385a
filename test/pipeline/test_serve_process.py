"""The server as a process of its own: many clients, slow clients, and how it ends."""

import asyncio
import io
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from src.predict.predictor import Predictor
from src.predict.source import Source
from src.tasks import image

sys.path.append(str(Path(__file__).parents[1] / "unit"))
from test_predict import KINDS, write_model  # type: ignore[import-not-found]

ROOT = Path(__file__).parents[2]
CLIENTS = 200
WAIT = 60  # seconds for an answer on a busy machine


@contextmanager
def serving(
    model: Path, *options: str, program: Sequence[str] = ("-m", "src.predict"), cwd: Path = ROOT
) -> Iterator[tuple[str, subprocess.Popen]]:
    """Serves a model on a free port; yields where, and the process."""
    command = [sys.executable, *program, "serve", "--model", str(model), "--port", "0", *options]
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " at http://" in line, process.communicate()
        yield line.split(" at ")[1].split()[0], process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    encoder = image.Encoder(image.Options(size=[8, 8], channels=1))
    return write_model(tmp_path_factory.mktemp("served") / "model", "image", encoder, KINDS)


@pytest.fixture(scope="module")
def server(model) -> Iterator[str]:
    with serving(model, "--limit", "1") as (url, _):
        yield url


def png(photograph, number: int) -> bytes:
    file = io.BytesIO()
    photograph(KINDS[number % 3], number).save(file, "PNG")
    return file.getvalue()


def address(url: str) -> tuple[str, int]:
    host, port = url.removeprefix("http://").split(":")
    return host, int(port)


def listens(url: str) -> bool:
    try:
        socket.create_connection(address(url)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_200_clients_at_once_lose_no_request_and_get_their_own_answers(server, model, photograph):
    photos = [png(photograph, number) for number in range(CLIENTS)]
    predictor = Predictor(Source(model))
    expected = predictor.predict(photos)

    async def ask(client: httpx2.AsyncClient, number: int) -> list[httpx2.Response]:
        kind = {"Content-Type": "image/png"}
        return [await client.post("/predict", content=photos[number], headers=kind) for _ in range(2)]

    async def ask_all() -> list[list[httpx2.Response]]:
        pool = httpx2.Limits(max_connections=CLIENTS)
        async with httpx2.AsyncClient(
            base_url=server, timeout=4 * WAIT, limits=pool, trust_env=False
        ) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(CLIENTS)))

    for output, responses in zip(expected, asyncio.run(ask_all()), strict=True):
        for response in responses:
            assert response.status_code == 200, response.text
            (answer,) = response.json()["predictions"]
            found = [answer["probabilities"][name] for name in KINDS]
            assert found == pytest.approx(output.tolist(), abs=1e-5)


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_first_half(server):
    seconds = []
    with httpx2.Client(base_url=server, timeout=WAIT, trust_env=False) as client:
        for _ in range(20):
            began = time.perf_counter()
            client.get("/health")
            seconds.append(time.perf_counter() - began)
    assert sorted(seconds)[5] < 0.03  # the wait would be 0.04 s each time


def test_who_never_finishes_a_request_is_sent_away_and_others_are_answered(model, photograph):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 900\r\n\r\nabc"
    with (
        serving(model, "--timeout", "2") as (server, _),
        socket.create_connection(address(server), WAIT) as half,
        socket.create_connection(address(server), WAIT) as mute,
    ):
        half.sendall(head)
        mute.sendall(b"GET /health HT")
        assert httpx2.get(f"{server}/health", timeout=WAIT, trust_env=False).status_code == 200
        reply = b"".join(iter(lambda: half.recv(4096), b""))
        assert reply.startswith(b"HTTP/1.1 408 ")
        assert reply.endswith(b'{"error": "the request was not here after 2 s"}')
        assert mute.recv(4096) == b""


def test_a_file_over_the_limit_is_413_with_a_reason(server):
    answer = httpx2.post(
        f"{server}/predict", files={"f": ("x.png", b"x" * 3_000_000)}, timeout=WAIT, trust_env=False
    )
    assert answer.status_code == 413
    assert "expected at most 1,000,000; see --limit" in answer.json()["error"]


def test_an_address_that_cannot_be_listened_on_is_one_sentence(server, model):
    taken = str(address(server)[1])
    for options, code, sentence in (
        (["--port", taken], 1, f"error: 127.0.0.1:{taken} is in use; --port takes another\n"),
        (["--port", "99999"], 2, "argument --port: found '99999', expected a whole number up to 65535\n"),
        (["--host", "203.0.113.7"], 1, "error: 203.0.113.7:8000: cannot be listened on: Cannot assign"),
    ):
        command = [sys.executable, "-m", "src.predict", "serve", "--model", str(model), *options]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == code
        assert sentence in result.stderr
        assert "Traceback" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_and_finishes_what_it_has_begun(model, photograph, number):
    photo = png(photograph, 0)
    fields = f"Host: x\r\nContent-Type: image/png\r\nContent-Length: {len(photo)}"
    head = f"POST /predict HTTP/1.1\r\n{fields}\r\n\r\n"
    with serving(model) as (url, process), socket.create_connection(address(url)) as client:
        client.sendall(head.encode() + photo[:50])
        httpx2.get(f"{url}/health", timeout=WAIT, trust_env=False)  # answered after that request has begun
        process.send_signal(number)
        until = time.monotonic() + WAIT
        while listens(url):
            assert time.monotonic() < until
            time.sleep(0.1)
        client.sendall(photo[50:])
        client.settimeout(WAIT)
        reply = b"".join(iter(lambda: client.recv(4096), b""))
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert process.wait(WAIT) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""

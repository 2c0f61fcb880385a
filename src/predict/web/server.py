"""Runs the web application until it is told to end."""

import errno
import math
import signal
import socket
from asyncio import TimerHandle, Transport
from typing import Any

import python_multipart  # noqa: F401  Starlette imports it at the first form
import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from src.errors import UserError
from src.predict.predictor import Predictor
from src.predict.source import Source
from src.predict.web.app import App
from src.predict.web.reading import Limits


def serve(source: Source, host: str, port: int, limits: Limits, threads: int = 0) -> None:
    """Answers requests until SIGTERM or Ctrl-C, and then those that it has begun.

    Args:
        source: Where the model lies.
        host: Name or address on which to listen.
        port: Likewise; 0: any that is free.
        limits: Of a request.
        threads: That may compute at once; 0: as many as there are cores.

    Raises:
        UserError: If the port is in use, or the model is not whole.
    """
    listener = listen(host, port)
    with listener:
        predictor = Predictor(source, threads, spin=False)
        config = uvicorn.Config(
            App(predictor, limits, threads).build(),
            http=patient(limits.seconds),
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(2 * limits.seconds) + 1,
        )
        for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them once more when it has ended
            signal.signal(number, lambda *_: None)
        print(f"{source.path} at {address(listener)} until Ctrl-C", flush=True)
        uvicorn.Server(config).run([listener])


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that takes connections.

    Raises:
        UserError: If there is no such address, or another program has it.
    """
    try:
        family, _, _, _, there = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(there[:2], family=family, backlog=2048)
    except (OSError, OverflowError, UnicodeError) as error:  # the last of a name that is none, such as `..`
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UserError(f"{host}:{port} is in use; --port takes another") from None
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UserError(f"{host}:{port}: cannot be listened on: {reason}") from None


def address(listener: socket.socket) -> str:
    """Returns what to type into a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def patient(seconds: float) -> Any:
    """Returns a protocol for connections that closes those without a whole request for so long."""

    class Patient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        alarm: TimerHandle | None = None

        def connection_made(self, transport: Transport) -> None:
            super().connection_made(transport)
            # asyncio does this for sockets of another making; without it, answers wait 40 ms for an ACK.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.wait()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self.alarm:
                self.alarm.cancel()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self.wait()

        def wait(self) -> None:
            if self.alarm:
                self.alarm.cancel()
            self.alarm = self.loop.call_later(seconds, self.close)

        def close(self) -> None:
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return Patient

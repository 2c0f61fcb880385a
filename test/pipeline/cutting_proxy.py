"""A proxy that cuts answers off: the request arrives and is done, what it brings back does not come whole."""

import socket
from contextlib import suppress
from threading import Thread


class CuttingProxy:
    """Stands before a server on the loopback address. Signatures hold: they name the proxy's address.

    Args:
        port: The server's.
        cuts: After how many bytes of answers each of the first connections is closed; later ones are not.
    """

    def __init__(self, port: int, cuts: list[int]) -> None:
        self.port = port
        self.cuts = cuts
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            Thread(target=_forward, args=(client, server, None), daemon=True).start()
            limit = self.cuts.pop(0) if self.cuts else None
            Thread(target=_forward, args=(server, client, limit), daemon=True).start()


def _forward(source: socket.socket, target: socket.socket, limit: int | None) -> None:
    """Passes bytes on until one side ends, or until the limit."""
    sent = 0
    with suppress(OSError):
        while data := source.recv(1 << 16):
            if limit is not None and sent + len(data) > limit:
                target.sendall(data[: limit - sent])
                break
            target.sendall(data)
            sent += len(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()

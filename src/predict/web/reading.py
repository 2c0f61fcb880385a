"""Reads the inputs of a request: forms with files, JSON, or a file as the whole body; all within limits."""

import asyncio
import base64
import binascii
import io
import json
import mimetypes
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from types import ModuleType
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from src.errors import BadExampleError
from src.predict.inputs import LARGEST_TEXT, TABLES, Item, Reader

FORM, JSON = "multipart/form-data", "application/json"
TEXT, CSV, LINES = "text/plain", "text/csv", ("application/jsonl", "application/x-ndjson")
BYTES = "application/octet-stream"


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and all together.

    Args:
        size: Bytes of a request.
        seconds: That reading a request may take, and then predicting.
        inputs: Of a request.
        requests: At a time.
        held: Bytes of all requests at a time, unless there is but one.
    """

    size: int = 32_000_000
    seconds: float = 30.0
    inputs: int = 1000
    requests: int = 1000
    held: int = 512_000_000


class Room:
    """Counts what all requests hold."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.requests = self.bytes = 0

    @contextmanager
    def guest(self) -> Iterator["Guest"]:
        """Yields a place for a request.

        Raises:
            HTTPException: 503, if there is none.
        """
        if self.requests >= self.limits.requests:
            raise _busy(f"{self.requests:,} requests are being answered")
        self.requests += 1
        guest = Guest(self)
        try:
            yield guest
        finally:
            self.requests -= 1
            self.bytes -= guest.bytes


class Guest:
    """Counts what one request holds."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.bytes = 0

    async def stream(self, request: Request) -> AsyncIterator[bytes]:
        """Yields the body.

        Raises:
            HTTPException: 413, if it is too large, after the rest of it has gone by: who is still sending
                would not see the answer. 408, if it comes too slowly. 503, if there is no room for it.
        """
        limits, length = self.room.limits, 0
        try:
            async with asyncio.timeout(limits.seconds):
                async for chunk in request.stream():
                    length += len(chunk)
                    if length <= limits.size:
                        self._hold(len(chunk))
                        yield chunk
        except TimeoutError:
            raise HTTPException(
                408, f"the request was not here after {limits.seconds:g} s", {"Connection": "close"}
            ) from None
        if length > limits.size:
            raise HTTPException(413, f"{length:,} bytes, expected at most {limits.size:,}; see --limit")

    def _hold(self, count: int) -> None:
        room = self.room
        others = room.bytes - self.bytes
        if others and room.bytes + count > room.limits.held:
            raise _busy(f"{others:,} bytes of other requests are held")
        room.bytes += count
        self.bytes += count


def _busy(reason: str) -> HTTPException:
    return HTTPException(503, f"busy: {reason}; try again", {"Retry-After": "1", "Connection": "close"})


async def read(request: Request, guest: Guest, task: ModuleType) -> list[Item]:
    """Returns the inputs of a request, bad ones too.

    Raises:
        HTTPException: If it is none that a task of this kind takes.
    """
    header = request.headers.get("content-type", "")
    media = header.partition(";")[0].strip().lower()
    if not _fits(media, media_types(task)) or "content-encoding" in request.headers:
        found = request.headers.get("content-encoding") or media or "none"
        raise HTTPException(
            415, f"Content-Type: found {found}, expected one of {', '.join(media_types(task))}"
        )
    stream = guest.stream(request)
    if media == FORM:
        form = await _form(request, stream, guest.room.limits, task)
        items = await asyncio.to_thread(_limit, form, guest.room.limits)
    else:
        content = b"".join([chunk async for chunk in stream])
        work = _json if media == JSON else _body
        items = await asyncio.to_thread(lambda: _limit(work(content, media, task), guest.room.limits))
    if not items:
        raise HTTPException(400, "no input in it, expected one at least")
    return items


def media_types(task: ModuleType) -> list[str]:
    """Returns the media types that a task takes; `image/*` stands for all of that kind."""
    if task.RAW == "row":
        return [JSON, FORM, CSV, *LINES]
    if task.RAW == "text":
        return [JSON, FORM, TEXT]
    return [JSON, FORM, *file_types(task), BYTES]


def file_types(task: ModuleType) -> list[str]:
    """Returns the media types of a task's files."""
    found = (mimetypes.guess_type(f"x{suffix}")[0] for suffix in task.SUFFIXES)
    types = (kind for kind in found if kind)
    whole = ("image", "audio", "video")  # of which there are many names for the same
    return list(
        dict.fromkeys(f"{kind.split('/')[0]}/*" if kind.startswith(whole) else kind for kind in types)
    )


def _fits(media: str, types: list[str]) -> bool:
    return media in types or f"{media.split('/')[0]}/*" in types


def _limit(items: Iterator[Item], limits: Limits) -> list[Item]:
    found = list(islice(items, limits.inputs + 1))
    if len(found) > limits.inputs:
        raise HTTPException(413, f"more than {limits.inputs:,} inputs, expected at most so many at once")
    return found


async def _form(
    request: Request, stream: AsyncIterator[bytes], limits: Limits, task: ModuleType
) -> Iterator[Item]:
    parser = MultiPartParser(
        request.headers,
        stream,  # type: ignore[arg-type]
        max_files=limits.inputs,
        max_fields=limits.inputs,
        max_part_size=LARGEST_TEXT,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        status = 413 if error.message.startswith(("Too many", "Part exceeded")) else 400
        raise HTTPException(status, f"{FORM}: {error.message}") from None
    found: list[Iterator[Item]] = []
    try:
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                found.append(_file(value.filename or name, await value.read(), task))
            elif task.RAW == "text":
                found.append(iter([Item(name, _returns(value))]))
            else:
                raise HTTPException(400, f"{FORM}: {name!r} is no file, expected files alone")
    finally:
        await form.close()
    return (item for items in found for item in items)


def _file(name: str, content: bytes, task: ModuleType) -> Iterator[Item]:
    """Yields the inputs of a file, one or the rows of a table."""
    table = name.lower().endswith(TABLES)
    if task.RAW == "row" and not table:
        yield Item(name, _raises(f"expected a table that ends in {' or '.join(TABLES)}"))
    elif task.RAW != "file" and table:
        yield from Reader(task).table(name, io.BytesIO(content), "")
    else:
        yield Item(name, _sized(content, task))


def _body(content: bytes, media: str, task: ModuleType) -> Iterator[Item]:
    if task.RAW == "row":
        return _file("body.csv" if media == CSV else "body.jsonl", content, task)
    return iter([Item("body", _sized(content, task))])


def _json(content: bytes, media: str, task: ModuleType) -> Iterator[Item]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"expected JSON, found something else ({error})") from None
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list):
        raise HTTPException(400, 'expected {"inputs": [...]}, found other JSON')
    for number, value in enumerate(inputs):
        yield Item(f"inputs[{number}]", _value(value, task))


def _value(value: Any, task: ModuleType) -> Any:
    """Returns what reads an input that stands in JSON."""
    expected = {"file": "a file in base64", "text": "a text", "row": "a row, {column: value}"}[task.RAW]
    if not isinstance(value, dict if task.RAW == "row" else str):
        return _raises(f"expected {expected}, found {str(value)[:40]!r}")
    if task.RAW == "row":
        return _returns(value)
    if task.RAW == "text":
        return _sized(value, task)

    def decode() -> bytes:
        try:
            return base64.b64decode(str(value), validate=True)
        except (binascii.Error, ValueError):
            raise BadExampleError(f"expected {expected}, found {str(value)[:40]!r}") from None

    return decode


def _sized(content: Any, task: ModuleType) -> Any:
    if task.RAW == "text" and len(content) > LARGEST_TEXT:
        return _raises(f"{len(content):,} bytes, expected at most {LARGEST_TEXT:,}")
    return _returns(content)


def _returns(value: Any) -> Any:
    return lambda: value


def _raises(reason: str) -> Any:
    def read() -> Any:
        raise BadExampleError(reason)

    return read

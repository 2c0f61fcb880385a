"""The web application: POST /predict, /health, /info, /openapi.json, and a page to try the model."""

import asyncio
import json
import mimetypes
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src import golden
from src.predict.predictor import Predictor
from src.predict.web import about, openapi
from src.predict.web.batches import Batches
from src.predict.web.reading import Limits, Room, read

POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "media-src": "blob:",
    "connect-src": "'self'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "base-uri": "'none'",
}
REPORT_POLICY = {**POLICY, "script-src": "'none'", "style-src": "'unsafe-inline'"}  # one file with its style
LITTLE = 2000  # numbers that are written as JSON in no time
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class App:
    """Answers requests with one model.

    Args:
        predictor: Ready to predict.
        limits: Of a request.
        threads: That may encode at once; 0: as many as there are cores.
    """

    def __init__(self, predictor: Predictor, limits: Limits, threads: int = 0) -> None:
        self.predictor, self.limits = predictor, limits
        self.batches = Batches(predictor, threads)
        self.room = Room(limits)
        self.info = about.describe(predictor, limits)
        self.openapi = openapi.describe(predictor, self.info, limits)

    def build(self) -> ASGIApp:
        """Returns what a server of ASGI runs."""
        routes = [
            Route("/predict", self.predict, methods=["POST"]),
            Route("/health", self.health),
            Route("/info", self.tell),
            Route("/openapi.json", self.describe),
            Route("/examples", self.examples),
            Route("/report", self.report),
            Route("/", self.page),
            Route("/page/{name}", self.page),
        ]
        handlers: dict[Any, Any] = {
            HTTPException: _refuse,
            ClientDisconnect: _leave,
            Exception: _fail,
        }
        return Protected(Starlette(routes=routes, exception_handlers=handlers))

    async def predict(self, request: Request) -> Response:
        """Answers for each input, in their order: its prediction, or why it has none."""
        top = _top(request)
        with self.room.guest() as guest:
            items = await read(request, guest, self.predictor.task)
            try:
                async with asyncio.timeout(self.limits.seconds):
                    outputs = await self.batches.predict(items)
            except TimeoutError:
                reason = f"predicting took more than {self.limits.seconds:g} s"
                raise HTTPException(504, reason) from None

        def write() -> Response:
            answers = [
                {"input": item.name, "error": output}
                if isinstance(output, str)
                else {"input": item.name, **self.predictor.answer(output, top)}
                for item, output in zip(items, outputs, strict=True)
            ]
            reasons = [f"{row['input']}: {row['error']}" for row in answers if "error" in row]
            if len(reasons) < len(answers):
                return answer({"predictions": answers, "sha256": self.info["sha256"]})
            first = (
                reasons[0] if len(reasons) == 1 else f"none of {len(reasons)} inputs, the first {reasons[0]}"
            )
            return answer({"error": first, "predictions": answers}, 422)

        few = len(items) * len(self.predictor.classes or [0]) < LITTLE
        return write() if few else await asyncio.to_thread(write)

    async def health(self, request: Request) -> Response:
        """Says that it is ready; it answers nothing before."""
        return answer({"status": "ready", "sha256": self.info["sha256"]})

    async def tell(self, request: Request) -> Response:
        """Returns what the model is."""
        return answer(self.info)

    async def describe(self, request: Request) -> Response:
        """Returns the description in OpenAPI."""
        return answer(self.openapi)

    async def examples(self, request: Request) -> Response:
        """Returns the model's golden examples, to be tried on the page."""
        if not self.info["examples"]:
            raise HTTPException(404, f"this model has no {golden.NAME}")
        rows = self.predictor.source.json(golden.NAME)["examples"]
        return answer([{"id": row["id"], **row["input"]} for row in rows])

    async def report(self, request: Request) -> Response:
        """Returns the report of the training."""
        if not self.info["report"]:
            raise HTTPException(404, "this model has no report")
        content = await asyncio.to_thread(self.predictor.source.read, about.REPORT)
        return Response(content, media_type="text/html", headers=_security(REPORT_POLICY))

    async def page(self, request: Request) -> Response:
        """Returns the page, or a file of it."""
        name = request.path_params.get("name", "index.html")
        content = about.page().get(name)
        if content is None:
            raise HTTPException(404, f"there is no {request.url.path}")
        kind = TYPES.get(name.rpartition(".")[2]) or mimetypes.guess_type(name)[0]
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})


class Protected:
    """Adds to every answer what tells a browser to run nothing but the page's own files."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.headers = [(name.lower().encode(), value.encode()) for name, value in _security(POLICY).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(pair for pair in self.headers if pair[0] not in there),
                ]
            await send(message)

        await self.app(scope, receive, headed)


def _security(policy: dict[str, str]) -> dict[str, str]:
    return {
        "Content-Security-Policy": "; ".join(f"{key} {value}" for key, value in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns JSON; half of a surrogate pair, as names of files may have, is escaped."""
    body = json.dumps(content, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace")
    return Response(body, status, headers, "application/json")


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    reason = {
        404: f"there is no {request.url.path}; /openapi.json says what there is",
        405: f"{request.method} is no way to ask {request.url.path}",
    }.get(error.status_code)
    plain = reason if reason and error.detail in ("Not Found", "Method Not Allowed") else error.detail
    return answer({"error": plain}, error.status_code, dict(error.headers or {}))


async def _leave(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # to nobody: the client has gone


async def _fail(request: Request, error: Exception) -> Response:
    return answer({"error": "the server failed; its log says why"}, 500)  # uvicorn writes the traceback


def _top(request: Request) -> int | None:
    text = request.query_params.get("top")
    if text is None:
        return None
    if not text.isascii() or not text.isdecimal() or not int(text[:9]) > 0:
        raise HTTPException(400, f"top: found {text[:20]!r}, expected a whole number from 1 up")
    return int(text[:9])

"""The description of the server in OpenAPI 3.1, as exact as this model allows: its classes, its columns."""

from typing import Any

from src.predict.predictor import Predictor
from src.predict.web.about import columns, predicts
from src.predict.web.reading import BYTES, CSV, FORM, JSON, LINES, Limits, media_types

ERRORS = {
    "400": "No input in it, or not what its media type says",
    "408": "The request came too slowly",
    "413": "Too large, or too many inputs",
    "415": "A media type that this model does not take",
    "503": "Busy: to be tried again",
    "504": "Predicting took too long",
}


def describe(predictor: Predictor, info: dict[str, Any], limits: Limits) -> dict[str, Any]:
    """Returns the description."""
    seen = [media for media in media_types(predictor.task) if media not in (FORM, JSON)]
    content: dict[str, Any] = {JSON: {"schema": _inputs(predictor, limits)}, FORM: {"schema": _form()}}
    content |= {media: {"schema": _body(media)} for media in seen}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": info["name"],
            "version": info["sha256"][:12],
            "description": "\n".join(f"{key}: {value}" for key, value in info["essentials"].items()),
        },
        "paths": {
            "/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": "Predicts for inputs",
                    "description": f"Up to {limits.inputs:,} inputs in up to {limits.size:,} bytes.",
                    "parameters": [_top()],
                    "requestBody": {"required": True, "content": content},
                    "responses": {
                        "200": _json("An answer for each input, in their order", "Answers"),
                        "422": _json("No input could be read", "Unread"),
                        **{code: _json(text, "Error") for code, text in ERRORS.items()},
                    },
                }
            },
            "/health": _get("Whether it is ready, and with which model", "Health"),
            "/info": _get("The model: input, classes, metrics, verdict, card", "Info"),
        },
        "components": {"schemas": _schemas(predictor)},
    }


def _get(summary: str, schema: str) -> dict[str, Any]:
    name = schema.lower()
    return {"get": {"operationId": name, "summary": summary, "responses": {"200": _json(summary, schema)}}}


def _json(text: str, schema: str) -> dict[str, Any]:
    return {
        "description": text,
        "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}}},
    }


def _top() -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 1}
    return {
        "name": "top",
        "in": "query",
        "schema": schema,
        "description": "Name the most probable classes alone",
    }


def _inputs(predictor: Predictor, limits: Limits) -> dict[str, Any]:
    items: dict[str, Any] = {
        "file": {"type": "string", "contentEncoding": "base64"},
        "text": {"type": "string"},
        "row": {"type": "object"},
    }[predictor.task.RAW]
    if predictor.task.RAW == "row":
        found = columns(predictor)
        items["properties"] = {column["name"]: _column(column) for column in found}
        items["required"] = [column["name"] for column in found]
    inputs = {"type": "array", "items": items, "minItems": 1, "maxItems": limits.inputs}
    return {"type": "object", "required": ["inputs"], "properties": {"inputs": inputs}}


def _column(column: dict[str, Any]) -> dict[str, Any]:
    if column["kind"] == "names":
        return {"examples": column["categories"], "description": "a name"}
    text = {"numbers": "a number", "dates": "a date, ISO 8601"}[column["kind"]]
    return {
        "type": ["number", "string", "null"] if column["kind"] == "numbers" else ["string", "null"],
        "description": text,
    }


def _form() -> dict[str, Any]:
    content = {"type": "string", "contentMediaType": BYTES}
    return {"type": "object", "properties": {"file": {"type": "array", "items": content}}}


def _body(media: str) -> dict[str, Any]:
    if media in (CSV, *LINES) or media.startswith("text/"):
        return {"type": "string"}
    return {"type": "string", "contentMediaType": media}


def _schemas(predictor: Predictor) -> dict[str, Any]:
    text, error = {"type": "string"}, {"type": "string", "description": "the reason"}
    unread = {"type": "object", "required": ["input", "error"], "properties": {"input": text, "error": error}}
    answers = {"type": "array", "items": {"oneOf": [_ref("Answer"), _ref("BadInput")]}}
    return {
        "Answer": _answer(predictor),
        "BadInput": {**unread, "additionalProperties": False},
        "Answers": {
            "type": "object",
            "required": ["predictions", "sha256"],
            "properties": {"predictions": answers, "sha256": text},
        },
        "Unread": {
            "type": "object",
            "required": ["error", "predictions"],
            "properties": {"error": error, "predictions": {"type": "array", "items": _ref("BadInput")}},
        },
        "Error": {"type": "object", "required": ["error"], "properties": {"error": error}},
        "Health": {
            "type": "object",
            "required": ["status", "sha256"],
            "properties": {"status": {"const": "ready"}, "sha256": text},
        },
        "Info": {
            "type": "object",
            "required": ["name", "sha256", "predicts", "classes", "input", "metrics", "verdict", "card"],
            "properties": {
                "name": text,
                "sha256": text,
                "predicts": {"enum": ["class", "classes", "number"]},
            },
        },
    }


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answer(predictor: Predictor) -> dict[str, Any]:
    number: dict[str, Any] = {"type": "number"}
    share = {"type": "number", "minimum": 0, "maximum": 1.000001}
    name = {"enum": predictor.classes}
    ranked = {"type": "object", "additionalProperties": share, "propertyNames": name}
    kinds: dict[str, dict[str, Any]] = {
        "number": {"prediction": {"anyOf": [number, {"type": "array", "items": number}]}},
        "classes": {"prediction": {"type": "array", "items": name}, "probabilities": ranked},
        "class": {"prediction": name, "probability": share, "probabilities": ranked},
    }
    properties = kinds[predicts(predictor)]
    return {
        "type": "object",
        "required": ["input", *properties],
        "properties": {"input": {"type": "string"}, **properties},
        "additionalProperties": False,
    }

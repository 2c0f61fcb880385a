"""Sections of keys that people write by hand, checked by pydantic, and what is wrong in sentences."""

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from src.errors import UserError, nearest

Schema = TypeVar("Schema", bound=BaseModel)


class Section(BaseModel):
    """A part of params.yaml, or of a file like it. Unknown keys are errors, and `"3"` is not 3."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def validate(schema: type[Schema], raw: Any, name: object) -> Schema:
    """Checks the content of any file against a schema.

    Args:
        schema: What it should be.
        raw: Its content.
        name: What to call it in an error.

    Raises:
        UserError: If a key or value is wrong; all that is wrong is said at once.
    """
    try:
        return schema.model_validate(raw)
    except ValidationError as error:
        problems = sentences(error, schema)
        raise UserError("\n  ".join([f"{name}: {problems[0]}", *problems[1:]])) from None


def sentences(error: ValidationError, schema: type[BaseModel], *section: str) -> list[str]:
    """Returns a sentence for each wrong key: its path, what was found and what was expected.

    Args:
        error: What pydantic found.
        schema: The section that was checked.
        section: The keys under which it stands.
    """
    return [_sentence(problem, schema, *section) for problem in error.errors()]


def _sentence(problem: Any, schema: type[BaseModel], *section: str) -> str:
    """Says one pydantic error as key, what was found and what was expected."""
    parts = [str(part) for part in problem["loc"]]
    key = ".".join([*section, *parts])
    if problem["type"] == "missing":
        return f"{key}: missing; this key is required"
    if problem["type"] == "extra_forbidden":
        known = _keys(schema, parts[:-1])
        near = nearest(parts[-1], known)
        return f"{key}: unknown key{near or '; expected one of ' + ', '.join(known)}"
    expected = problem["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if problem["type"] == "model_type":
        expected = "a section of keys"
    return f"{key}: found {problem['input']!r}, expected {expected}"


def _keys(schema: Any, parents: list[str]) -> list[str]:
    """Returns the keys that a schema allows below the given ones."""
    for parent in parents:
        annotation = schema.model_fields[parent].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        schema = next(kind for kind in options if hasattr(kind, "model_fields"))
    return list(schema.model_fields)

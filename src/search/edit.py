"""Changes values in the text of a params.yaml; every other byte stays: comments, order, quotes, line breaks.

The YAML parser says where a value stands, and only that is replaced. A round trip through a writer would
lay out long lines, flow-style sections and their comments anew.
"""

import io
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from src import params
from src.errors import UserError
from src.files import replacing


def get(content: Any, key: str) -> Any:
    """Returns the value at a dotted key, None where there is none."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def put(content: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Returns a copy in which dotted keys have these values; sections that are missing are made.

    Raises:
        UserError: If a key goes on below a value that is no section.
    """
    content = _copy(content)
    for key, value in values.items():
        *parents, last = key.split(".")
        section = content
        for depth, parent in enumerate(parents, 1):
            if section.get(parent) is None:
                section[parent] = {}
            section = section[parent]
            if not isinstance(section, dict):
                above = ".".join(parents[:depth])
                raise UserError(f"{key}: found {above}: {section!r}, expected a section of keys there")
        section[last] = value
    return content


def rewrite(text: str, values: dict[str, Any], name: str) -> str:
    """Returns the text of a params.yaml with these values at dotted keys.

    Args:
        text: The file, its line breaks as they are.
        values: Dotted key → value; a value that is there already changes nothing.
        name: What to call the file in an error.

    Raises:
        UserError: If the text is so written that a value cannot be replaced alone, as with anchors.
    """
    before = params.parse(text, name)
    expected = put(before, values)
    for key, value in values.items():
        if put(before, {key: value}) != before or type(get(before, key)) is not type(value):
            text = _replace(text, key.split("."), value)
    try:
        after = params.parse(text, name)
    except UserError:
        after = {}
    if after != expected:
        wanted = ", ".join(f"{key}: {flow(value)}" for key, value in values.items())
        raise UserError(f"{name}: is written so that its values cannot be replaced alone; set {wanted} there")
    return text


def read_text(path: Path | str = params.PATH) -> str:
    """Reads a text with its line breaks as they are."""
    with open(path, newline="", encoding="utf-8") as file:
        return file.read()


def write_text(path: Path, text: str) -> None:
    """Writes a text with its line breaks as they are, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, newline="", encoding="utf-8")


def _replace(text: str, parts: list[str], value: Any) -> str:
    """Replaces one value, or adds it where its key is not."""
    section, parts = YAML().compose(text), list(parts)
    while True:
        part = parts.pop(0)
        pair = next((pair for pair in section.value if pair[0].value == part), None)
        if pair is None:
            return _add(text, section, part, flow(_nested(parts, value)))
        key, node = pair
        if not (parts and isinstance(node, MappingNode)):
            break
        section = node
    start, end = node.start_mark.index, _end(node)
    if start == end:  # no value: the parser says where the next thing begins
        start = end = text.index(":", key.end_mark.index) + 1
    return _put(text, start, end, flow(_nested(parts, value)))


def _put(text: str, start: int, end: int, new: str) -> str:
    """Puts `new` in place of a part; a comment behind it keeps its column if there is room."""
    old, rest = text[start:end], text[end:]
    comment = re.match(r"( +)#", rest)
    if comment and "\n" not in old:
        spaces = len(comment[1]) + len(old) - len(new)
        rest = " " * max(spaces, 1) + rest[len(comment[1]) :]
    return text[:start] + (" " if text[start - 1] == ":" else "") + new + rest


def _add(text: str, section: MappingNode, key: str, new: str) -> str:
    """Adds a key at the end of a section, in the section's own style."""
    end = _end(section)
    if section.flow_style:
        comma = ", " if section.value else ""
        return f"{text[: end - 1]}{comma}{key}: {new}{text[end - 1 :]}"
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end + 1
    line_break = "\r\n" if "\r\n" in text else "\n"
    head = text[:line_end] if text[:line_end].endswith("\n") else text[:line_end] + line_break
    return f"{head}{' ' * section.start_mark.column}{key}: {new}{line_break}{text[line_end:]}"


def _end(node: Node) -> int:
    """Returns where a node's text ends; the parser lets a block's end wait for what comes next."""
    if isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return node.end_mark.index


def _copy(content: Any) -> Any:
    """Copies sections, so that no two are one even where the file says so by an anchor."""
    if isinstance(content, dict):
        return {key: _copy(value) for key, value in content.items()}
    return content


def _nested(parts: list[str], value: Any) -> Any:
    for part in reversed(parts):
        value = {part: value}
    return value


def flow(value: Any) -> str:
    """Returns a value as YAML on one line."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = True
    yaml.width = 1_000_000
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    out = io.StringIO()
    yaml.dump({"x": value}, out)
    return out.getvalue().strip().removeprefix("{x: ").removesuffix("}")

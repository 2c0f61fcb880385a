"""Makes sluice.pyz: the bundle and the program that predicts with it, in one file that Python runs.

in:   build/bundle/
out:  build/bundle/sluice.pyz, the same bytes for the same bundle; build/bundle/SHA256SUMS names it too

python -m src.publish.pyz
"""

import ast
import hashlib
import importlib.metadata
import json
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from src import command
from src.checksums import SUMS, check, checksums, written
from src.errors import UserError
from src.files import read_json, replacing, sha256
from src.signature import NAME as SIGNATURE

BUNDLE = Path("build/bundle")
ARCHIVE = "sluice.pyz"
NOT_INSIDE = (ARCHIVE, SIGNATURE)  # the signature of the bundle is no signature of the archive
ROOT = Path(__file__).parents[2]
PREDICT = "src.predict"
DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip archive can hold
# What is packed: weights and pictures hardly shrink.
TEXT = (".py", ".json", ".md", ".html", ".css", ".js", ".csv", ".yaml", "SHA256SUMS")
MAIN = '''\
"""Predicts with the model in this archive: python sluice.pyz --help."""

import sys

if sys.version_info < (3, 11):
    sys.exit("error: sluice.pyz needs Python 3.11 or newer, found %d.%d" % sys.version_info[:2])

from src import command, options
from src.predict.__main__ import main

options.trust()
command.run(main)
'''


def main() -> None:
    """Runs the command."""
    command.parser(__doc__).parse_args()
    check(BUNDLE)
    path = BUNDLE / ARCHIVE
    with replacing(path) as temporary, open(temporary, "wb") as file:
        write(collect(BUNDLE), file)
        temporary.chmod(0o755)
    sums = {**checksums(BUNDLE), ARCHIVE: sha256(path)}
    sums.pop(SIGNATURE, None)  # of what the bundle was
    (BUNDLE / SIGNATURE).unlink(missing_ok=True)
    with replacing(BUNDLE / SUMS) as temporary:
        temporary.write_text(written(sums))
    print(f"{path}: {path.stat().st_size:,} bytes; `python {path} --help`")


def collect(bundle: Path) -> dict[str, bytes]:
    """Returns all that the archive holds: the bundle's files, the program's, what it needs, and checksums.

    Raises:
        UserError: If the bundle has a file of a name that the program needs.
    """
    files = {name: (bundle / name).read_bytes() for name in checksums(bundle) if name not in NOT_INSIDE}
    modules = find_modules(read_json(bundle / "inference.json")["task_type"])
    program = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in modules.values()}
    program |= find_data(modules.values())
    needs = find_needs(list(modules.values()))
    program |= {"__main__.py": MAIN.encode(), "needs.json": (json.dumps(needs, indent=2) + "\n").encode()}
    if both := sorted(files.keys() & program.keys()):
        raise UserError(f"{bundle / both[0]}: expected no such file in a bundle: the program has it")
    files |= program
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return {**files, SUMS: written(digests).encode()}


def write(files: dict[str, bytes], file: BinaryIO) -> None:
    """Writes a zip archive that is a program, the same bytes for the same files."""
    file.write(b"#!/usr/bin/env python3\n")
    with zipfile.ZipFile(file, "w") as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, DATE)
            info.external_attr = 0o644 << 16
            info.create_system = 3  # Unix, wherever it is written
            info.compress_type = zipfile.ZIP_DEFLATED if name.endswith(TEXT) else zipfile.ZIP_STORED
            archive.writestr(info, files[name], compresslevel=9)


# ── Which code ──────────────────────────────────────────────────────────────────────────────────────────


def find_modules(task: str) -> dict[str, Path]:
    """Returns the modules of src/ that predicting for a task imports, name → file.

    What src.predict imports inside functions counts, for those are its commands; what others import inside
    functions serves training and pictures.
    """
    waiting = [f"{PREDICT}.{path.stem}" for path in (ROOT / "src/predict").glob("*.py")]
    waiting.append(f"src.tasks.{task}")
    found: dict[str, Path] = {}
    while waiting:
        name = waiting.pop()
        path = _locate(name)
        if name not in found and path is not None:
            found[name.removesuffix(".__init__")] = path
            deep = name.startswith(PREDICT)
            waiting += [each for each, _ in imports(path, deep) if each.startswith("src.")]
            waiting += [name.rpartition(".")[0]] if "." in name else []
    return found


def find_data(paths: Iterable[Path]) -> dict[str, bytes]:
    """Returns what lies in folders of packages below src.predict, such as the files of a page."""
    folders = {path.parent for path in paths if _part(path)}
    files = sorted(
        file for folder in folders for file in folder.glob("*/*") if "__pycache__" not in file.parts
    )
    return {file.relative_to(ROOT).as_posix(): file.read_bytes() for file in files}


def _locate(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    files = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in files if file.exists()), None)


def imports(path: Path, deep: bool) -> Iterator[tuple[str, bool]]:
    """Yields what a file imports, but for what only type checkers see.

    Args:
        path: Of the file.
        deep: Whether imports inside functions count.

    Yields:
        A module, or a module and a name in it, dotted; and whether it is imported as soon as the file is.
    """
    waiting: list[tuple[ast.AST, bool]] = [(ast.parse(path.read_bytes()), True)]
    while waiting:
        node, at_once = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, at_once) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((f"{node.module}.{alias.name}", at_once) for alias in node.names)
            yield node.module, at_once
        function = isinstance(node, ast.FunctionDef)
        if deep or not function:
            waiting += [(child, at_once and not function) for child in ast.iter_child_nodes(node)]


def find_needs(paths: list[Path]) -> dict[str, dict[str, object]]:
    """Returns what must be installed: what to import → its package with the version here, and whether always.

    Packages that only a part of the program imports, such as Keras for --keras, are not always needed, nor
    are those of a package below src.predict, such as `web`: they are needed together.
    """
    found = {"onnxruntime": True}
    parts: dict[str, str] = {}
    for path in paths:
        part = _part(path)
        for name, at_once in imports(path, deep=True):
            top = name.split(".")[0]
            if top != "src" and top not in sys.stdlib_module_names:
                found[top] = found.get(top, False) or (at_once and not part)
                if part and at_once:
                    parts[top] = part
    packages = importlib.metadata.packages_distributions()
    return {
        name: {
            "package": f"{packages[name][0]}=={importlib.metadata.version(packages[name][0])}",
            "always": always,
            **({"part": parts[name]} if name in parts and not always else {}),
        }
        for name, always in sorted(found.items())
        if name in packages
    }


def _part(path: Path) -> str | None:
    """Returns the package below src.predict that a file belongs to, if any."""
    parts = path.relative_to(ROOT / "src").parts
    return parts[1] if parts[0] == "predict" and len(parts) > 2 else None


if __name__ == "__main__":
    command.run(main)

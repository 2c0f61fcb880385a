"""A name in params.yaml is a file name: `task: image` is src/tasks/image.py. This is the only dispatch."""

import importlib
import pkgutil
from pathlib import Path
from types import ModuleType

from src.errors import UserError, nearest


def names(folder: str) -> list[str]:
    """Returns the plug-ins of `src/<folder>`, which may lie in an archive, sorted: its Python files."""
    return sorted(found.name for found in pkgutil.iter_modules([str(Path(__file__).parent / folder)]))


def pick(folder: str, name: str) -> ModuleType:
    """Imports `src/<folder>/<name>.py`.

    Raises:
        UserError: If there is no such file; the message lists those there and suggests the nearest.
    """
    known = names(folder)
    if name not in known:
        raise UserError(
            f"src/{folder}: there is no {name!r}, expected one of {', '.join(known)}{nearest(name, known)}"
        )
    return importlib.import_module(f"src.{folder}.{name}")

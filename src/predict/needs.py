"""Names the packages that a model needs and that are not installed."""

import importlib.util
import json
import sys
import zipfile
from pathlib import Path

NAME = "needs.json"  # in the archive: what to import → {package, always, maybe part}


def missing(model: Path, error: ModuleNotFoundError) -> str:
    """Returns a sentence that says what is not installed, and the command that mends it."""
    needs = _read(model) or _read(Path(__file__).parents[2])
    lost = (error.name or "").split(".")[0]
    part = needs.get(lost, {}).get("part")
    wanted = [name for name in needs if needs[name]["always"] or (part and needs[name].get("part") == part)]
    modules = [name for name in wanted if importlib.util.find_spec(name) is None]
    modules += [lost] if lost not in modules else []
    packages = [needs.get(name, {"package": name})["package"].split("==")[0] for name in modules]
    command = f"{Path(sys.executable).name} -m pip install {' '.join(packages)}"
    return f"{' and '.join(packages)} {'is' if len(packages) == 1 else 'are'} not installed: {command}"


def _read(path: Path) -> dict[str, dict]:
    try:
        if path.is_file():
            with zipfile.ZipFile(path) as archive:
                found: dict[str, dict] = json.loads(archive.read(NAME))
        else:
            found = json.loads((path / NAME).read_text("utf-8"))
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return {}
    return found

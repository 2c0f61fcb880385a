"""Makes a site that needs no server of its own: the report, and a page that runs the model in the browser.

in:   a bundle, or src/models; site/; the packages of site/package.json, as `make site` installs them
out:  build/site/, whole or not at all: files that refer to one another alone

python -m src.publish.site            of build/bundle, or of src/models where there is none
python -m src.publish.site FOLDER     of another bundle
"""

import argparse
import gzip
import shutil
import sys
from pathlib import Path
from typing import Any

from src import checksums, command
from src.errors import UserError
from src.files import read_json, replacing, write_json

SITE = Path("build/site")
BUNDLE = Path("build/bundle")
MODELS = Path("src/models")
SOURCES = Path(__file__).parents[2] / "site"
PACKAGES = Path(sys.prefix) / "site/node_modules"
RUNTIME = "onnxruntime-web"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
NEEDED = ("model.onnx", "inference.json", "metrics.json", "report/index.html")
OPTIONAL = ("tokenizer.json", "golden.json")
PAGE = (".html", ".css", ".js")
PACKED = (*PAGE, ".mjs", ".json", ".wasm", ".onnx")  # besides: GitLab Pages sends name.gz in place of name
SMALL = 2000  # bytes below which that is not worth it


def main() -> None:
    """Runs the command."""
    arguments = parse()
    folder = arguments.folder or (BUNDLE if BUNDLE.exists() else MODELS)
    with replacing(SITE) as temporary:
        build(folder, arguments.packages, temporary)
    size = sum(path.stat().st_size for path in SITE.rglob("*") if path.suffix != ".gz" and path.is_file())
    print(f"{SITE}: {size:,} bytes, of {folder}; `python -m http.server -d {SITE}` shows it")


def parse() -> argparse.Namespace:
    """Parses the command line."""
    parser = command.parser(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="a bundle")
    parser.add_argument("--packages", type=Path, default=PACKAGES, metavar="FOLDER", help="node_modules")
    return parser.parse_args()


def build(folder: Path, packages: Path, site: Path) -> None:
    """Fills the site.

    Args:
        folder: With the model.
        packages: node_modules.
        site: The folder to make.

    Raises:
        UserError: If a file is missing, or is not as the bundle's SHA256SUMS says.
    """
    runtime = packages / RUNTIME
    for path in (*(folder / name for name in NEEDED), *(runtime / "dist" / name for name in RUNTIME_FILES)):
        if not path.is_file():
            makes = "`make site` brings it" if path.is_relative_to(runtime) else "expected a whole model"
            raise UserError(f"{path}: not found; {makes}")
    if (folder / checksums.SUMS).exists():
        checksums.check(folder)
    for path in sorted(SOURCES.rglob("*")):
        if path.suffix in PAGE:
            copy(path, site / path.relative_to(SOURCES))
    for name in RUNTIME_FILES:
        copy(runtime / "dist" / name, site / "onnxruntime" / name)
    reported = [path for path in (folder / "report").rglob("*") if path.is_file() and path.name[0] != "."]
    names = [*NEEDED, *(path.relative_to(folder).as_posix() for path in reported)]
    names += [name for name in OPTIONAL if (folder / name).is_file()]
    for name in sorted(set(names)):
        copy(folder / name, site / name)
    if (folder / "README.md").is_file():
        copy(folder / "README.md", site / "card.txt")  # which every browser shows
    write_json(site / "site.json", summarise(folder))
    for path in sorted(site.rglob("*")):
        if path.suffix in PACKED and path.stat().st_size > SMALL:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes(), 6, mtime=0))


def copy(source: Path, target: Path) -> None:
    """Copies a file's content."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def summarise(folder: Path) -> dict[str, Any]:
    """Returns what the page says of the model, and which files it may ask for."""
    inference = read_json(folder / "inference.json")
    metrics = read_json(folder / "metrics.json")
    gate = read_json(folder / "gate.json") if (folder / "gate.json").is_file() else {}
    return {
        "title": f"{Path(inference['data']['path']).stem}-{inference['architecture']['name']}",
        "verdict": gate.get("verdict"),
        "metrics": measures(metrics),
        "examples": metrics.get("examples"),
        "created": inference.get("created"),
        "commit": inference.get("commit"),
        "card": (folder / "README.md").is_file(),
        "golden": (folder / "golden.json").is_file(),
    }


def measures(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the metrics that are a number, with their confidence intervals where they have one."""
    ends = ("_low", "_high")
    return [
        {"name": name.replace("_", " "), "value": value, **{end[1:]: metrics.get(name + end) for end in ends}}
        for name, value in metrics.items()
        if isinstance(value, int | float) and name != "examples" and not name.endswith(ends)
    ]


if __name__ == "__main__":
    command.run(main)

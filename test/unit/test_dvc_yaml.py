"""dvc.yaml lists what each stage really uses: the imports and the parameters are read from the code.

DVC reruns a stage when something that it lists has changed, and nothing else: a file that is missing here
goes stale silently, and one too many retrains for nothing.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from src import params
from src.plugin import names

ROOT = Path(__file__).parents[2]
DVC = YAML(typ="safe").load(ROOT / "dvc.yaml")
STAGES = list(DVC["stages"])
KEYS = {"tasks": "task", "architectures": "architecture", "objectives": "objective"}
# The options of these sections, with their defaults, are in a plug-in.
OPTIONS = {"encode": "tasks", "model": "architectures"}


def stage_file(name: str) -> Path:
    """`python -m src.train.fit` is src/train/fit.py."""
    return ROOT / Path(*DVC["stages"][name]["cmd"].split()[-1].split(".")).with_suffix(".py")


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walks code, but for what only type checkers see."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from nodes(child)


def code(file: Path) -> list[ast.AST]:
    return list(nodes(ast.parse(file.read_text())))


def imported(file: Path) -> Iterator[Path]:
    """Yields the files below src/ that a file imports."""
    for node in code(file):
        wanted = []
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom) and node.module:
            wanted = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for module in wanted:
            path = ROOT.joinpath(*module.split("."))
            if module.startswith("src.") and path.with_suffix(".py").exists():
                yield path.with_suffix(".py")
            elif module.startswith("src.") and (path / "__init__.py").exists():
                yield path / "__init__.py"


def picked(file: Path) -> set[str]:
    """Returns the plug-in folders that a file picks from."""
    if file == ROOT / "src/params.py":
        return set()  # it only checks sections; who reads one is asked below
    calls = [node for node in code(file) if isinstance(node, ast.Call) and ast.unparse(node.func) == "pick"]
    return {ast.literal_eval(call.args[0]) for call in calls}


def sections(start: Path) -> set[str]:
    """Returns the parts of params.yaml that a stage reads: `settings.fit.seed` reads `fit`.

    They are read by the stage's file, and by those beside it that it imports.
    """
    return {
        node.attr
        for file in {start, *(file for file in imported(start) if file.parent == start.parent)}
        for node in code(file)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "settings"
    }


def expected_dependencies(stage: str, listed: set[str]) -> set[str]:
    """Follows the imports of a stage."""
    start = stage_file(stage)
    waiting = [start]
    files: set[Path] = set()
    folders = {OPTIONS[section] for section in sections(start) & set(OPTIONS)}
    while waiting:
        file = waiting.pop()
        if file not in files:
            files.add(file)
            folders |= picked(file)
            waiting += imported(file)
            waiting += [ROOT / f"src/{folder}/{name}.py" for folder in folders for name in names(folder)]
    # A page's template has its stage's name.
    files |= set(start.parent.glob(f"{start.stem}.*"))
    whole = {folder for folder in folders if f"src/{folder}" in listed}
    paths = {file.relative_to(ROOT).as_posix() for file in files}
    return (
        {path for path in paths if path.split("/")[1] not in folders}
        | {f"src/{folder}" for folder in whole}
        | {f"src/{folder}/__init__.py" for folder in folders - whole}
        | {f"src/{folder}/${{{KEYS[folder]}}}.py" for folder in folders - whole}
    )


def outputs(stage: str) -> set[str]:
    """Returns all that a stage writes."""
    content = DVC["stages"][stage]
    entries = [entry for kind in ("outs", "metrics", "plots") for entry in content.get(kind, [])]
    return {path for entry in entries for path in ([entry] if isinstance(entry, str) else entry)}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_exactly_the_code_that_it_reaches(stage):
    written = set.union(*map(outputs, STAGES))
    listed = {path for path in DVC["stages"][stage]["deps"] if path.startswith("src/")} - written
    assert listed == expected_dependencies(stage, listed)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_lists_exactly_the_parameters_that_it_reads(stage):
    content = DVC["stages"][stage]
    read = sections(stage_file(stage))
    assert read or "params" not in content
    listed = set(content.get("params", []))
    # A name that only picks a file needs no listing where that file is a dependency by this name.
    by_file = {key for key in KEYS.values() if any(f"${{{key}}}" in path for path in content["deps"])}
    assert read - by_file <= listed <= read


def test_every_part_of_params_yaml_is_a_parameter_of_some_stage():
    listed = {name for stage in STAGES for name in DVC["stages"][stage].get("params", [])}
    # A verdict is never cached: the gates run outside the pipeline, and a changed limit retrains nothing.
    # The search runs outside it too: it writes what it found into the other parts. Monitors change no output.
    assert listed == set(params.Params.model_fields) - {"gates", "search", "monitors"}


def test_a_stage_depends_on_all_that_an_earlier_one_wrote_and_it_names():
    for number, stage in enumerate(STAGES):
        earlier = set().union(*map(outputs, STAGES[:number]))
        source = stage_file(stage).read_text()
        named = {path for path in earlier if Path(path).suffix and f'"{Path(path).name}"' in source}
        if "prepared." in source and number:
            named.add("build/prepared")
        assert named <= {*DVC["stages"][stage]["deps"]}, stage


def test_what_the_model_comes_with_is_written_by_a_stage():
    written = set.union(*map(outputs, STAGES))
    assert {f"src/models/{name}" for name in ("model.keras", "history.json", "metrics.json")} <= written
    assert DVC["artifacts"]["model"]["path"] in written
    for plot in DVC["plots"]:
        files = [plot] if isinstance(plot, str) else [*plot[next(iter(plot))]["y"]]
        assert set(files) <= written

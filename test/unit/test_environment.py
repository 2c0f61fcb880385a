"""Every variable of the environment that the code reads is in .env.example, without a value."""

import ast
import itertools
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / ".env.example").read_text()
NAMES = re.findall(r"^#([A-Z][A-Z0-9_]*)=$", EXAMPLE, re.MULTILINE)
# What GitLab sets for each job, and nobody else.
SET_BY_CI = re.compile(r"CI$|CI_|GITLAB_USER_")
OURS = re.compile(r"\$\$\{?((?:AWS|DVC|GITLAB|MLFLOW|PUBLISH|WANDB)_[A-Z0-9_]+)")


def texts(node: ast.AST, constants: dict[str, list[str]]) -> list[str]:
    """Returns the text, or texts, that an expression stands for; none for what only runs can tell."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.Tuple):
        return [text for element in node.elts for text in texts(element, constants)]
    return constants.get(node.id, []) if isinstance(node, ast.Name) else []


def read_by(tree: ast.Module) -> Iterator[str]:
    """Yields the names that a module reads: environ[X], environ.get(X), X in environ; X may be a constant."""
    constants: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            constants[node.targets[0].id] = texts(node.value, {})
        if isinstance(node, ast.comprehension) and isinstance(node.target, ast.Name):
            constants[node.target.id] = texts(node.iter, constants)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and re.search(r"(environ\.get|getenv)$", ast.unparse(node.func)):
            yield from texts(node.args[0], constants)
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("environ"):
            yield from texts(node.slice, constants)
        if isinstance(node, ast.Compare) and ast.unparse(node.comparators[0]).endswith("environ"):
            yield from texts(node.left, constants)


def test_every_variable_that_the_code_reads_is_in_the_example():
    found = {name for file in (ROOT / "src").rglob("*.py") for name in read_by(ast.parse(file.read_text()))}
    found |= set(OURS.findall((ROOT / "Makefile").read_text()))
    assert {"GITLAB_TOKEN", "PUBLISH_FOLDER", "DVC_REMOTE_URL", "AWS_ENDPOINT_URL_S3"} <= found
    assert {name for name in found if not SET_BY_CI.match(name)} - set(NAMES) == set()


def test_the_example_names_what_aws_reads_and_each_name_has_a_comment_above_it():
    keys = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"}
    assert keys <= set(NAMES)
    assert len(NAMES) == len(set(NAMES))
    lines = EXAMPLE.splitlines()
    for before, line in itertools.pairwise(lines):
        if re.match("#[A-Z]", line):
            assert re.match("# [A-Z][^=]|# [a-z]+: |#[A-Z]", before), line


def test_the_example_sets_nothing():
    script = 'before=$(env); set -a; . ./.env.example; set +a; [ "$before" = "$(env)" ]'
    assert subprocess.run(["sh", "-c", script], cwd=ROOT).returncode == 0
    assert [line for line in EXAMPLE.splitlines() if line and not line.startswith("#")] == []


def test_a_filled_in_copy_is_never_committed_nor_hashed():
    for ignored in (".gitignore", ".dvcignore"):
        assert ".env" in (ROOT / ignored).read_text().splitlines(), ignored

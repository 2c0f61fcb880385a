"""Every command starts quickly: what takes long to import is imported in the function that uses it."""

import ast
from collections.abc import Iterator
from pathlib import Path

SRC = Path(__file__).parents[2] / "src"
HEAVY = {"boto3", "botocore", "dvc", "gitlab", "keras", "mlflow", "tensorflow", "wandb"}


def imported_at_start(statements: list[ast.stmt]) -> Iterator[str]:
    """Yields what a module imports when it is imported itself."""
    for node in statements:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Try | ast.With):
            yield from imported_at_start(node.body)
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            yield from imported_at_start(node.body + node.orelse)


def test_no_module_imports_a_heavy_library_before_it_needs_it():
    found = {
        file.relative_to(SRC).as_posix(): HEAVY & set(imported_at_start(ast.parse(file.read_text()).body))
        for file in SRC.rglob("*.py")
    }
    assert "s3/bucket.py" in found
    assert {file: names for file, names in found.items() if names} == {}

"""The job file: what is to be trained on what; `python -m src.train.job --help` shows one."""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from src import params, schema
from src.errors import UserError, nearest
from src.s3.bucket import Location

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes"
DATA = "data"  # the folder of the dataset in a job's work folder
ID = r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}"


class Order(schema.Section):
    """A job file."""

    id: Annotated[str, StringConstraints(pattern=rf"^{ID}$")]
    task: str
    dataset: Annotated[str, Field(min_length=1)]
    recipe: str | None = None
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    params: dict[str, Any] = {}


def parse(content: bytes, place: Location) -> Order:
    """Reads a job file.

    Args:
        content: Its bytes.
        place: Where it is.

    Raises:
        UserError: If it is none.
    """
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: expected JSON, found something else ({error})") from None
    if not isinstance(raw, dict):
        raise UserError(f'{place}: expected an object such as {{"id": …}}, found {type(raw).__name__}')
    order = schema.validate(Order, raw, place)
    name = PurePosixPath(place.key).stem
    if order.id != name:
        raise UserError(f"{place}: id: found {order.id!r}, expected {name!r}, as the file is called")
    if order.sha256 and order.dataset.endswith("/"):
        raise UserError(f"{place}: sha256: expected where the dataset is one file, found {order.dataset!r}")
    return order


def source(order: Order, place: Location) -> Location:
    """Returns where the dataset is.

    Raises:
        UserError: If that is no place in a bucket.
    """
    if "://" not in order.dataset:
        return Location(place.bucket, order.dataset)
    try:
        return Location.parse(order.dataset)
    except UserError as error:
        raise UserError(f"{place}: dataset: {error}") from None


def target(dataset: Location) -> Path:
    """Returns where the dataset is to be in the work folder: the same on every machine."""
    name = re.sub(r"[^\w.-]", "_", PurePosixPath(dataset.key).name).lstrip(".")
    return Path(DATA) / (name or "dataset")


def compose(order: Order, place: Location) -> tuple[dict[str, Any], params.Params]:
    """Makes the job's params.yaml: its recipe, with what the job says otherwise.

    Args:
        order: The job file.
        place: Where it is.

    Returns:
        The content, and what it means.

    Raises:
        UserError: If there is no such recipe, or a key or value is wrong.
    """
    for key, said in (("task", order.params), ("data.path", order.params.get("data"))):
        name = key.split(".")[-1]
        if isinstance(said, dict) and name in said:
            own = "task" if key == "task" else "dataset"
            raise UserError(f"{place}: params.{key}: expected nothing: the job's own {own!r} says it")
    content = _recipe(order, place)
    if order.params.get("architecture", content["architecture"]) != content["architecture"]:
        content.pop("model", None)
    content = {key: value for key, value in content.items() if key not in ("data", "search", "gates")}
    content["data"] = {"path": str(target(source(order, place)))}
    content["report"] = {"title": order.id}
    content = merge(content, order.params)
    return content, params.check(content, f"{place}: params")


def _recipe(order: Order, place: Location) -> dict[str, Any]:
    """Returns the recipe that the job names, or the first one of its task."""
    known = {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}
    if order.recipe is not None:
        if order.recipe not in known:
            raise UserError(
                f"{place}: recipe: found {order.recipe!r}, expected one of {', '.join(known)}"
                + nearest(order.recipe, known)
            )
        known = {order.recipe: known[order.recipe]}
    recipes = {name: params.parse(path.read_bytes(), path) for name, path in known.items()}
    for recipe in recipes.values():
        if recipe["task"] == order.task:
            return recipe
    tasks = list(dict.fromkeys(recipe["task"] for recipe in recipes.values()))
    raise UserError(
        f"{place}: task: found {order.task!r}, expected "
        + (
            f"{tasks[0]}, as recipes/{order.recipe}.yaml has it"
            if order.recipe
            else "one of " + ", ".join(tasks)
        )
        + nearest(order.task, tasks)
    )


def merge(base: Any, over: Any) -> Any:
    """Returns `base` with the keys of `over`, section by section; what has another name replaces whole."""
    if not isinstance(base, dict) or not isinstance(over, dict):
        return over
    if over.get("name", base.get("name")) != base.get("name"):
        return over
    return {**base, **{key: merge(base.get(key), value) for key, value in over.items()}}

"""The schema of params.yaml, and its only reader.

Checks params.yaml whole, the sections of the plug-ins that it names included, and says what is wrong.

    python -m src.params
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from src import command
from src.errors import UserError
from src.plugin import pick
from src.schema import Section, sentences

PATH = Path("params.yaml")
Share = Annotated[float, Field(gt=0, lt=1)]


class Data(Section):
    """`data:` where the examples are and how they are split."""

    path: str
    input: str | None = None  # the column of the example itself; None: looked for by its usual names
    label: str | None = None  # the column of what to predict; likewise
    order: str | None = None  # the column that sorts the rows of an example that has several; likewise
    columns: list[str] | None = None  # those that examples of several columns consist of; None: all others
    sample: Any = 1.0
    validation: Share = 0.1
    test: Share = 0.2
    on_bad: Literal["fail", "skip"] = "fail"
    on_leak: Literal["fail", "warn"] = "fail"

    @field_validator("sample")
    @classmethod
    def _share_or_number(cls, value: Any) -> float | int:
        if (type(value) is float and 0 < value <= 1) or (type(value) is int and value >= 2):
            return value
        raise ValueError("a share above 0.0 and up to 1.0, or a number of examples from 2 up")


class Optimizer(BaseModel):
    """`fit.optimizer:` a Keras optimizer by its name; every further key is an argument of it."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str = "adam"
    learning_rate: Any = 0.001

    @field_validator("learning_rate")
    @classmethod
    def _rate_or_schedule(cls, value: Any) -> float | dict[str, Any]:
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            return value
        if type(value) in (int, float) and 0 < value < float("inf"):
            return float(value)
        raise ValueError("a number above 0, or a Keras schedule {name: CosineDecay, ...}")


class Named(BaseModel):
    """An object of Keras by its name; every further key is an argument of it. A name alone will do."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    def split(self) -> tuple[str, dict[str, Any]]:
        """Returns the name and the arguments."""
        return self.name, dict(self.model_extra or {})


class EarlyStopping(Section):
    """`fit.early_stopping:` training ends when validation loss has not improved for so many epochs."""

    patience: Annotated[int, Field(ge=1)] = 5


class FineTune(Section):
    """`fit.fine_tune:` a second phase that trains what `architecture: transfer` has frozen until then."""

    after: Annotated[int, Field(ge=1)] = 4  # epochs of the first phase
    start: str | None = None  # the layer of the backbone from which on; None: all of it
    learning_rate: Annotated[float, Field(gt=0)] = 1e-5


class CheckpointEvery(Section):
    """`fit.checkpoint_every:` how much of a training that is killed must be done again, at most."""

    epochs: Annotated[int, Field(ge=1)] = 1
    minutes: Annotated[float, Field(gt=0)] | None = None  # within an epoch too; then epochs do not count


class Fit(Section):
    """`fit:` how the network is trained."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    epochs: Annotated[int, Field(ge=1)] = 30
    batch_size: int | Literal["auto"] = 32  # auto: the most that memory holds
    optimizer: Optimizer = Optimizer()
    loss: Named | None = None  # of Keras, with arguments such as label_smoothing; None: the objective's
    metrics: list[Named] = []  # of Keras, beside the objective's
    class_weight: Literal["balanced"] | dict[str, float] | None = None
    augment: list[
        Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    ] = []  # of training/augmentation.py
    fine_tune: FineTune | None = None
    early_stopping: EarlyStopping | None = EarlyStopping()
    checkpoint_every: CheckpointEvery = CheckpointEvery()  # a killed training goes on there, byte for byte
    deterministic: bool = True  # the same bytes from the same commit; off is faster on a GPU
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"  # weights stay in 32 bits
    device: str = "auto"  # cpu, gpu, gpu:1; several share each batch: gpus, gpu:0,1
    jit_compile: bool = False  # XLA: measured slower on a CPU, often faster on a GPU
    steps_per_execution: Annotated[int, Field(ge=1)] = 10  # steps between two looks of Python

    @field_validator("batch_size", mode="before")
    @classmethod
    def _number_or_auto(cls, value: Any) -> Any:
        if value == "auto" or (type(value) is int and value >= 1):
            return value
        raise ValueError("a number of examples from 1 up, or auto")

    @field_validator("device")
    @classmethod
    def _device(cls, value: str) -> str:
        if re.fullmatch(r"auto|cpu|gpu|gpus|[cg]pu:\d+(,\d+)*", value):
            return value
        raise ValueError("one of auto, cpu, gpu, gpus, or numbers as in gpu:1 or gpu:0,1")

    @field_validator("augment", mode="before")
    @classmethod
    def _names_alone(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [{each: {}} if isinstance(each, str) else each for each in value]
        return value

    @field_validator("class_weight", mode="before")
    @classmethod
    def _balanced_or_weights(cls, value: Any) -> Any:
        if value in (None, "balanced"):
            return value
        if isinstance(value, dict) and all(
            isinstance(name, str) and type(weight) in (int, float) and 0 < weight < float("inf")
            for name, weight in value.items()
        ):
            return {name: float(weight) for name, weight in value.items()}
        raise ValueError("balanced, or the weight of each class, above 0, by its name")


class Search(Section):
    """`search:` what `python -m src.train.search` tries; no stage reads it."""

    trials: Annotated[int, Field(ge=1)] | None = None  # None: 24; of a grid, all
    sampler: Literal["grid", "random", "tpe"] | None = None  # None: grid if all are lists, else tpe
    pruner: Literal["successive_halving", "hyperband", "median", "none"] = "successive_halving"
    metric: str = "val_loss"  # of history.json, on the validation split
    direction: Literal["minimize", "maximize"] | None = None  # None: losses and errors down, others up
    storage: str | None = None  # None: SQLite, build/search/study.db
    parameters: Annotated[dict[str, Any], Field(min_length=1)]  # key of params.yaml → its list or range


class Report(Section):
    """`report:` what the page shows."""

    title: str = "Model report"
    examples: Annotated[int, Field(ge=1, le=10)] = 5  # pictures in each row and column


class Rules(Section):
    """`gates:` what stands beside the gates themselves."""

    # The reason why limits are looser than the target branch's.
    override: Annotated[str, StringConstraints(strip_whitespace=True, min_length=10)] | None = None
    on_not_enough_data: Literal["fail", "warn"] = "fail"
    on_no_baseline: Literal["fail", "warn"] = "warn"  # where there is none at all; a broken one always fails


@dataclass(frozen=True)
class Gates:
    """`gates:` whole: the rules, and the `Options` of every gate declared, by the gate's name."""

    rules: Rules
    declared: dict[str, Any]


class Params(Section):
    """params.yaml, whole. `encode`, `model` and `gates` belong to the plug-ins."""

    task: str
    architecture: str
    objective: str | None = None  # None: follows the label column
    data: Data
    encode: Any = {}
    model: Any = {}
    fit: Fit = Fit()
    monitors: Any = []  # names, or {name: {option: value}}; no stage depends on who watches
    search: Search | None = None
    report: Report = Report()
    gates: Any = {}


def load(path: Path | str = PATH) -> Params:
    """Reads params.yaml and checks it against the schema and the plug-ins it names.

    Returns:
        The parameters; `encode` and `model` are the `Options` of the task and the architecture, `gates` a
        `Gates`, `monitors` name → `Options`.

    Raises:
        UserError: If the file is missing, is not YAML, or holds a wrong key or value. All that is
            wrong is said at once, a line each.
    """
    return check(_read(Path(path)), path)


def check(raw: dict[str, Any], name: Path | str) -> Params:
    """Checks what was read from a params.yaml, as `load` does.

    Args:
        raw: Its content.
        name: What to call it in an error.

    Raises:
        UserError: If a key or value is wrong.
    """
    problems: list[str] = []
    try:
        params: Params | None = Params.model_validate(raw)
    except ValidationError as error:
        problems += sentences(error, Params)
        params = None
    chosen: dict[str, Any] = {"gates": _gates(raw.get("gates"), problems)}
    for key, folder, section in (("task", "tasks", "encode"), ("architecture", "architectures", "model")):
        if isinstance(raw.get(key), str):
            try:
                options = pick(folder, raw[key]).Options
                chosen[section] = options.model_validate(raw.get(section) or {})
            except UserError as error:
                problems.append(f"{key}: {error}")
            except ValidationError as error:
                problems += sentences(error, options, section)
    if raw.get("objective") is not None:
        try:
            pick("objectives", str(raw["objective"]))
        except UserError as error:
            problems.append(f"objective: {error}")
    chosen["monitors"] = _monitors(raw.get("monitors"), problems)
    if params is None or problems:
        raise UserError("\n  ".join([f"{name}: {problems[0]}", *problems[1:]]))
    return params.model_copy(update=chosen)


def parse(text: str | bytes, name: Path | str) -> dict[str, Any]:
    """Parses the text of a params.yaml, without checking it against the schema.

    Args:
        text: What to parse.
        name: What to call it in an error.

    Raises:
        UserError: If it is no YAML, or has no sections.
    """
    try:
        raw = YAML(typ="safe").load(text)
    except (YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{name}: expected YAML, found what cannot be parsed: {reason}") from None
    if not isinstance(raw, dict):
        raise UserError(f"{name}: expected sections such as `task:` and `data:`, found {raw!r}")
    return raw


def _read(path: Path) -> dict[str, Any]:
    try:
        return parse(path.read_bytes(), path)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; copy one from recipes/") from None


def _gates(raw: Any, problems: list[str]) -> Gates:
    """Checks `gates:`, each gate against its plug-in; what is wrong is added to `problems`."""
    raw = {} if raw is None else raw
    if not isinstance(raw, dict):
        problems.append(f"gates: found {raw!r}, expected a section of keys")
        raw = {}
    found = {name: raw[name] for name in Rules.model_fields if name in raw}
    rules, declared = Rules(), {}
    try:
        rules = Rules.model_validate(found)
    except ValidationError as error:
        problems += sentences(error, Rules, "gates")
    for name in [name for name in raw if name not in found]:
        try:
            options = pick("gates", str(name)).Options
            declared[str(name)] = options.model_validate(raw[name] or {})
        except UserError as error:
            problems.append(f"gates: {error}")
        except ValidationError as error:
            problems += sentences(error, options, "gates", str(name))
    return Gates(rules, declared)


def _monitors(raw: Any, problems: list[str]) -> dict[str, Any]:
    """Checks `monitors:`, each against its plug-in; what is wrong is added to `problems`."""
    declared: dict[str, Any] = {}
    if not isinstance(raw, list | None):
        problems.append(f"monitors: found {raw!r}, expected a list such as [tensorboard]")
        raw = []
    for entry in raw or []:
        name, given = entry, None
        if isinstance(entry, dict) and len(entry) == 1:
            ((name, given),) = entry.items()
        if not isinstance(name, str):
            problems.append(f"monitors: found {entry!r}, expected a name or {{name: {{option: value}}}}")
        elif name in declared:
            problems.append(f"monitors: {name} is there twice, expected each monitor once")
        else:
            try:
                options = pick("monitors", name).Options
                declared[name] = options.model_validate(given or {})
            except UserError as error:
                problems.append(f"monitors: {error}")
            except ValidationError as error:
                problems += sentences(error, options, "monitors", name)
    return declared


def main() -> None:
    """Checks params.yaml and says what it chooses."""
    command.parser(__doc__).parse_args()
    params = load()
    if not Path(params.data.path).exists():
        raise UserError(f"{PATH}: data.path: found {params.data.path!r}, expected a file or folder there")
    print(f"{PATH} is valid: {params.architecture} on {params.task} from {params.data.path}")


if __name__ == "__main__":
    command.run(main)

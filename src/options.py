"""What the `Options` of a task are made of: with pydantic, or without it where a process only predicts.

Options that a saved encoder brings along were checked when params.yaml was read. After `trust()` they are
plain attributes, and the process need not have pydantic, nor wait for it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import Field, model_validator

    from src.params import Section

__all__ = ["Field", "Section", "model_validator", "trust"]

_trusting = False


def trust() -> None:
    """Lets this process take saved options as they are; call it before a task is imported."""
    global _trusting
    _trusting = True


class Trusted:
    """A `Section` without checks: values as attributes, the class's own where none is given."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    @classmethod
    def model_validate(cls, values: dict[str, Any]) -> "Trusted":
        """Returns the options that were saved."""
        return cls(**values)


def _no_check(*_: Any, **__: Any) -> Callable[[Any], Any]:
    return lambda function: function


def __getattr__(name: str) -> Any:
    """Returns `Field`, `Section` and `model_validator` as whoever asks first needs them."""
    if name not in __all__:
        raise AttributeError(name)
    if _trusting:
        return Trusted if name == "Section" else _no_check
    import pydantic

    from src import params

    return params.Section if name == "Section" else getattr(pydantic, name)

"""What the passes need of torch's private side: the schema of an operator.

Written against torch 2.13. Relies on `OpOverload._schema`, whose `alias_info` marks the arguments
that a result may share memory with and those that the operator writes to.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from torch import fx


@cache
def aliased_argument(target: Any) -> int | None:
    """Position of the first argument that a result of the operator may be a view of, or None."""
    schema = getattr(target, "_schema", None)
    if schema is None or not any(result.alias_info for result in schema.returns):
        return None
    marked = (i for i, argument in enumerate(schema.arguments) if argument.alias_info)
    return next(marked, None)


@cache
def writes_in_place(target: Any) -> bool:
    """Whether the operator writes to an argument."""
    schema = getattr(target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def append_output(output: fx.Node, value: fx.Node) -> None:
    """Return one more value from a graph whose output is a flat tuple."""
    returned: Any = output.args[0]
    output.args = ((*returned, value),)

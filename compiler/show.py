"""The canonical graph as text that is the same on every machine, its fingerprint, and diffs."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, fx
from turbo4d.compiler.compat import is_operator

if TYPE_CHECKING:
    from turbo4d.compiler.ir import Placeholder

_SHORT = {
    torch.float32: "f32",
    torch.float64: "f64",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.int64: "i64",
    torch.int32: "i32",
    torch.int8: "i8",
    torch.uint8: "u8",
    torch.bool: "b1",
}
# Where a graph runs is not what it computes.
_PLACE = ("device", "pin_memory", "layout")


def dtype_text(dtype: torch.dtype) -> str:
    """Short name of a dtype: "f32", "bf16", ..."""
    return _SHORT.get(dtype, str(dtype).removeprefix("torch."))


def type_text(value: Any) -> str:
    """Dtype and shape of a value: "f32[2, 3]"."""
    if isinstance(value, Tensor):
        return f"{dtype_text(value.dtype)}[{', '.join(str(side) for side in value.shape)}]"
    if isinstance(value, (list, tuple)):
        parts = cast(Sequence[Any], value)
        return f"({', '.join(map(type_text, parts))})"
    return type(value).__name__


def graph_text(graph: fx.Graph, table: Sequence[Placeholder] = ()) -> str:
    """A graph in one line per node: `%name: dtype[shape] = op(arguments)`.

    Args:
        graph: any graph whose value nodes carry `meta["val"]`.
        table: rows of its placeholders, in order; says what each one holds.

    Returns:
        Text without paths, addresses, devices or numbering of any process.
    """
    rows = {row.name: row for row in table}
    lines: list[str] = []
    for node in graph.nodes:
        if node.op == "placeholder":
            row = rows.get(node.name)
            held = f" = {row.kind} {row.target}" if row else ""
            lines.append(f"%{node.name}: {type_text(node.meta.get('val'))}{held}")
        elif node.op == "output":
            lines.append(f"return {_argument(node.args[0])}")
        else:
            lines.append(f"%{node.name}: {type_text(node.meta.get('val'))} = {_call(node)}")
    return "\n".join(lines) + "\n"


def fingerprint_of(graph: fx.Graph, table: Sequence[Placeholder]) -> str:
    """sha256 of the graph's text, as 64 hexadecimal digits."""
    return hashlib.sha256(graph_text(graph, table).encode()).hexdigest()


def diff(before: str, after: str, *, names: tuple[str, str] = ("before", "after")) -> str:
    """Unified difference of two graph texts; "" where they are equal."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), *names, n=2
    )
    return "".join(lines)


def _call(node: fx.Node) -> str:
    parts = [_argument(argument) for argument in node.args]
    parts += [
        f"{key}={_argument(value)}"
        for key, value in sorted(node.kwargs.items())
        if key not in _PLACE
    ]
    return f"{_target(node.target)}({', '.join(parts)})"


def _target(target: Any) -> str:
    if is_operator(target):
        return str(target).removesuffix(".default")
    return getattr(target, "__name__", str(target))


def _argument(value: Any) -> str:
    if isinstance(value, fx.Node):
        return f"%{value.name}"
    if isinstance(value, (list, tuple)):
        parts = cast(Sequence[Any], value)
        return f"[{', '.join(map(_argument, parts))}]"
    if isinstance(value, torch.dtype):
        return dtype_text(value)
    return str(value).removeprefix("torch.") if not isinstance(value, str) else repr(value)

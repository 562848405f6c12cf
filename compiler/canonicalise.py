"""canonicalise: one graph for one computation, whichever door it came through.

    rewrite:  a traced ATen graph
       ->     the same computation with one spelling per operator (see spelling.py), without dead
              nodes, copies that copy nothing and checks, its placeholders in canonical order and
              its nodes renumbered

Requires  a functional graph: nothing writes to an input. `meta["val"]` on every value node.
Ensures   equal text for equal computations; results bit-identical to the traced graph's.
Error     exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, fx
from turbo4d.compiler.compat import is_fake, is_operator, late_module, writes
from turbo4d.compiler.dynamo_compat import module_of
from turbo4d.compiler.errors import CaptureError
from turbo4d.compiler.ir import Placeholder
from turbo4d.compiler.spelled_call import Call, trimmed
from turbo4d.compiler.spelling import RULES
from turbo4d.compiler.view_spelling import fold_copies


@dataclass(frozen=True)
class Row:
    """What a placeholder of a traced graph holds.

    Args:
        kind: as in the table of inputs.
        target: likewise.
        position: the caller's number for it, kept through the reordering.
    """

    kind: Literal["weight", "constant", "input"]
    target: str
    position: int


@dataclass(frozen=True)
class Canonical:
    """A canonical graph with its table of inputs.

    Args:
        module: the graph.
        table: its placeholders.
        positions: for each placeholder the position of its `Row`; -1 for a lifted constant.
        constants: values of the lifted constants, by target.
    """

    module: fx.GraphModule
    table: tuple[Placeholder, ...]
    positions: tuple[int, ...]
    constants: Mapping[str, Tensor]


def canonicalise(traced: fx.GraphModule, rows: Sequence[Row]) -> Canonical:
    """Bring a traced graph into its canonical form.

    Args:
        traced: functional ATen graph; left as it is.
        rows: what each of its placeholders holds, in order.

    Returns:
        A new graph.

    Raises:
        CaptureError: for an operator that draws random numbers or writes to its argument.
    """
    spelled, origin, constants = _respell(traced, rows)
    fold_copies(spelled)
    erase_dead(spelled)
    return _reorder(spelled, origin, constants)


def erase_dead(graph: fx.Graph) -> int:
    """Erase every call that nothing uses, attention and assertions included; returns how many.

    FX's own pass keeps what it calls impure, scaled_dot_product_attention among it.
    """
    erased = 0
    for node in reversed(graph.nodes):
        if node.op not in ("placeholder", "output") and not node.users:
            graph.erase_node(node)
            erased += 1
    return erased


def _respell(
    traced: fx.GraphModule, rows: Sequence[Row]
) -> tuple[fx.Graph, dict[fx.Node, Row], dict[str, Tensor]]:
    graph = fx.Graph()
    env: dict[fx.Node, Any] = {}
    origin: dict[fx.Node, Row] = {}
    constants: dict[str, Tensor] = {}
    held: dict[tuple[str, str], fx.Node] = {}
    left = iter(rows)
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            row = next(left)
            env[node] = held.get((row.kind, row.target)) or _hold(graph, row, node, origin)
            held[row.kind, row.target] = env[node]
        elif node.op == "get_attr":
            value = _attribute(traced, str(node.target))
            row = Row("constant", constant_name(value, len(constants)), -1)
            key = row.kind, row.target
            held[key] = env[node] = held.get(key) or _hold(graph, row, node, origin)
            constants[row.target] = value
        elif node.op == "call_function":
            env[node] = _write(graph, node, env)
        elif node.op == "output":
            tensors = tuple(leaf for leaf in node.args[0] if isinstance(leaf, fx.Node))
            graph.output(tuple(env[leaf] for leaf in tensors))
        else:
            raise CaptureError(f"%{node.name} is a {node.op}; wanted a flat graph of functions.")
    return graph, origin, constants


def _write(graph: fx.Graph, node: fx.Node, env: dict[fx.Node, Any]) -> fx.Node | None:
    # Nodes without a value (checks, grad-mode switches) have no users that read one.
    if "val" not in node.meta or node.meta["val"] is None:
        return None
    args: Any = fx.map_arg(node.args, env.__getitem__)
    kwargs: Any = fx.map_arg(node.kwargs, env.__getitem__)
    rule = RULES.get(node.target)
    answer = rule(node, args, dict(kwargs)) if rule else None
    if isinstance(answer, fx.Node):
        return answer
    call = trimmed(answer or Call(node.target, args, dict(kwargs)))
    if is_operator(call.target) and writes(call.target):
        raise CaptureError(f"%{node.name} writes to its argument ({call.target}).")
    written = graph.create_node(
        "call_function", call.target, call.args, call.kwargs, name=_base_name(call.target)
    )
    written.meta["val"] = node.meta["val"]
    if (module := module_of(node)) is not None:
        written.meta["module"] = module
    return written


def _reorder(
    graph: fx.Graph, origin: Mapping[fx.Node, Row], constants: Mapping[str, Tensor]
) -> Canonical:
    used = [node for node in origin if node.users]
    rank = {"weight": 0, "constant": 1, "input": 2}
    used.sort(key=lambda node: (rank[origin[node].kind], origin[node].target))
    fresh = fx.Graph()
    env: dict[fx.Node, fx.Node] = {}
    body: Iterable[fx.Node] = (node for node in graph.nodes if node.op != "placeholder")
    for node in (*used, *body):
        if node.op == "placeholder":
            env[node] = fresh.placeholder(_placeholder_name(origin[node]))
        else:
            args: Any = fx.map_arg(node.args, env.__getitem__)
            kwargs: Any = fx.map_arg(node.kwargs, env.__getitem__)
            name = _base_name(node.target)
            env[node] = fresh.create_node(node.op, node.target, args, kwargs, name=name)
        for key in node.meta.keys() & {"val", "module"}:
            env[node].meta[key] = node.meta[key]
    table = tuple(
        Placeholder(
            name=env[node].name,
            kind=origin[node].kind,
            target=origin[node].target,
            shape=tuple(int(side) for side in node.meta["val"].shape),
            dtype=node.meta["val"].dtype,
        )
        for node in used
    )
    module = late_module(torch.nn.Module(), fresh, "Denoiser")
    return Canonical(
        module,
        table,
        tuple(origin[node].position for node in used),
        {row.target: constants[row.target] for row in table if row.target in constants},
    )


def _base_name(target: Any) -> str:
    packet = getattr(target, "overloadpacket", None)
    name: str = getattr(packet or target, "__name__", str(target))
    return "output" if name == "output" else name.strip("_")


def _placeholder_name(row: Row) -> str:
    letters = "".join(letter if letter.isalnum() else "_" for letter in row.target)
    return f"{row.kind[0]}_{letters.strip('_')}"


def _attribute(module: fx.GraphModule, path: str) -> Tensor:
    value: Any = module
    for name in path.split("."):
        value = getattr(value, name)
    if not isinstance(value, Tensor):
        raise CaptureError(f"the graph reads attribute {path!r}, which is no tensor.")
    return value.detach()


def constant_name(value: Tensor, index: int) -> str:
    """Name of a constant by its content, so that both doors agree; by `index` where it has none."""
    if is_fake(value) or value.is_meta:
        return f"lifted.{index}"
    raw = value.contiguous().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"lifted.{hashlib.sha256(raw).hexdigest()[:12]}"


def _hold(graph: fx.Graph, row: Row, node: fx.Node, origin: dict[fx.Node, Row]) -> fx.Node:
    with graph.inserting_before(next(iter(graph.nodes), None)):
        placeholder = graph.placeholder(_placeholder_name(row))
    placeholder.meta["val"] = node.meta.get("val")
    origin[placeholder] = row
    return placeholder

"""Capture: the denoiser as one canonical graph, through either door.

`capture_compiled` stands inside a torch.compile backend, `capture_export` takes a module as it
is. Both trace without gradient, lift weights to inputs and end in `canonicalise`.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from turbo4d.compiler import compat, dynamo_compat
from turbo4d.compiler.autocast import DEVICES, write_casts
from turbo4d.compiler.canonicalise import Canonical, Row, canonicalise, constant_name
from turbo4d.compiler.changing_numbers import as_tensors
from turbo4d.compiler.errors import CaptureError, VerifyError
from turbo4d.compiler.graph_key import graph_key
from turbo4d.compiler.graph_store import put, store_folder, take
from turbo4d.compiler.inline_checkpoints import inlined
from turbo4d.compiler.ir import Capture
from turbo4d.compiler.show import graph_text
from turbo4d.compiler.sources import Source, read_sources
from turbo4d.compiler.spelling import SPELLED
from turbo4d.compiler.static_shapes import made_static

_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")


def capture_compiled(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> Capture:
    """Capture what torch.compile hands to a backend.

    Args:
        gm: Dynamo's graph, weights lifted to placeholders.
        example_inputs: one tensor per placeholder.

    Returns:
        The capture; `order` gives the position of each row among the flat arguments.

    Raises:
        CaptureError: for a number that is no tensor and no size, a forward that writes to its
            inputs, or training mode.
    """
    module = dynamo_compat.compiling_module()
    refuse_training(module)
    gm, example_inputs, kept = made_static(inlined(gm), example_inputs)
    gm, example_inputs, integers = as_tensors(gm, example_inputs)
    numbers = tuple(kept[at] for at in integers)
    gm, example_inputs, left = made_static(gm, example_inputs, sizes_alone=False)
    kept = [kept[at] for at in left]
    sources = _sources(gm, module)
    for source, value in zip(sources, example_inputs, strict=True):
        if not isinstance(value, Tensor):
            raise CaptureError(
                f"input {source.target!r} is a {type(value).__name__} that may change from call to "
                "call; wanted a tensor. Pass torch.tensor(...) of it."
            )
    _refuse_flexible(gm)
    rows = [Row(source.kind, source.target, index) for index, source in enumerate(sources)]
    graph = _stored(gm, example_inputs, rows)
    constants = dict(graph.constants)
    for row, position in zip(graph.table, graph.positions, strict=True):
        if row.kind == "constant" and position >= 0:
            constants[row.target] = example_inputs[position]
    order = tuple(kept[at] if at >= 0 else at for at in graph.positions)
    return Capture(
        graph.module,
        graph.table,
        constants,
        "compile",
        order=order,
        numbers=numbers,
        hints=_hints(module),
    )


def _stored(gm: fx.GraphModule, example_inputs: Sequence[Any], rows: Sequence[Row]) -> Canonical:
    """The canonical graph, from an earlier process where that made the same one."""
    folder = store_folder()
    key = graph_key(gm, example_inputs, rows) if folder else None
    if folder is None or key is None:
        return _traced(gm, example_inputs, rows)
    found = take(folder, key, rows)
    if found is not None and os.environ.get("TURBO4D_VERIFY") != "full":
        return found
    made = _traced(gm, example_inputs, rows)
    if found is None:
        put(folder, key, made)
    elif graph_text(found.module.graph, found.table) != graph_text(made.module.graph, made.table):
        raise VerifyError(
            f"the graph stored as {key} is not the one that a trace gives; remove {folder} and "
            "report the model."
        )
    return made


def _traced(gm: fx.GraphModule, example_inputs: Sequence[Any], rows: Sequence[Row]) -> Canonical:
    traced = compat.trace(gm, example_inputs)
    if traced.mutated:
        raise CaptureError(_mutating([rows[index].target for index in traced.mutated]))
    write_casts(traced.module)
    return canonicalise(traced.module, rows)


def capture_export(
    module: nn.Module, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> Capture:
    """Capture a module for one call, by torch.export.

    Args:
        module: in eval mode; on any device, "meta" included.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.

    Returns:
        The capture, with the structures of the call and of the result.

    Raises:
        CaptureError: for what torch.export refuses, a forward that writes to its inputs, or
            training mode.
    """
    refuse_training(module)
    _refuse_autocast()
    # Arguments that are one tensor would become one input, for good.
    call, named = compat.without_aliases((tuple(args), dict(kwargs or {})))
    program = _export(module, call, named)
    signature = program.graph_signature
    written = [
        spec.target or spec.arg.name
        for spec in signature.output_specs
        if spec.kind in (OutputKind.BUFFER_MUTATION, OutputKind.USER_INPUT_MUTATION)
    ]
    if written:
        raise CaptureError(_mutating(written))
    paths = _leaf_paths(module, call, named)
    rows, held = _rows(program, paths)
    flat = program.graph_module
    _refuse_flexible(flat)
    if any(_must_retrace(node) for node in flat.graph.nodes):
        values = [node.meta.get("val") for node in flat.graph.find_nodes(op="placeholder")]
        traced = compat.trace(flat, values)
        if traced.mutated:
            raise CaptureError(_mutating([rows[index].target for index in traced.mutated]))
        flat = traced.module
        write_casts(flat)
    graph = canonicalise(flat, rows)
    constants = {**graph.constants, **held}
    weights: dict[str, Any] = {**program.state_dict, **program.constants}
    spec: Any = program.call_spec
    return Capture(
        graph.module,
        graph.table,
        {row.target: constants[row.target] for row in graph.table if row.kind == "constant"},
        "export",
        weights={row.target: weights[row.target] for row in graph.table if row.kind == "weight"},
        in_spec=spec.in_spec,
        out_spec=spec.out_spec,
        out_literals=_literals(program),
        input_paths=tuple(paths),
        hints=_hints(module),
    )


def _export(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExportedProgram:
    with torch.no_grad():
        try:
            return torch.export.export(module, args, kwargs, strict=False)
        except RuntimeError as loose:
            try:
                return torch.export.export(module, args, kwargs, strict=True)
            except RuntimeError as strict:
                error = CaptureError(
                    f"torch.export cannot capture {type(module).__name__}: {_first_line(strict)}"
                )
                error.add_note(f"with strict=False: {_first_line(loose)}")
                raise error from strict


def _must_retrace(node: fx.Node) -> bool:
    """Whether the compile door would show this node otherwise than canonicalise spells it."""
    if node.op != "call_function" or node.target in SPELLED:
        return False
    if compat.is_operator(node.target):
        return compat.opens_up(node.target)
    return compat.is_higher_order(node.target)


def _rows(program: ExportedProgram, paths: Sequence[str]) -> tuple[list[Row], dict[str, Tensor]]:
    kinds = {InputKind.PARAMETER: "weight", InputKind.BUFFER: "weight"}
    left = iter(paths)
    rows: list[Row] = []
    held: dict[str, Tensor] = {}
    for index, spec in enumerate(program.graph_signature.input_specs):
        if spec.kind in kinds:
            rows.append(Row("weight", str(spec.target), index))
        elif spec.kind is InputKind.USER_INPUT:
            rows.append(Row("input", next(left), index))
        elif spec.kind is InputKind.CONSTANT_TENSOR:
            value: Any = program.constants[str(spec.target)]
            lifted = str(spec.target).rpartition(".")[2].startswith("lifted_tensor_")
            target = constant_name(value, len(held)) if lifted else str(spec.target)
            held[target] = value
            rows.append(Row("constant", target, index))
        else:
            raise CaptureError(f"the graph needs {spec.target!r}, which is no tensor.")
    return rows, held


def _literals(program: ExportedProgram) -> dict[int, Any]:
    """Leaves of the result that are no tensors, by position."""
    leaves: Any = program.graph_module.graph.output_node().args[0]
    first = len(leaves) - len(program.graph_signature.user_outputs)
    return {
        index: leaf for index, leaf in enumerate(leaves[first:]) if not isinstance(leaf, fx.Node)
    }


def _leaf_paths(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """For each leaf of (args, kwargs), the expression by which the forward knows it."""
    bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    names = [name for name in bound if name not in kwargs]
    leaves = compat.flatten_with_path((args, kwargs))
    paths: list[str] = []
    for key, _ in leaves:
        name: str
        if key[0].idx == 1:
            name = key[1].key
        else:
            index: int = key[1].idx
            last = names[-1] if names else ""
            parameter = inspect.signature(module.forward).parameters.get(last)
            starred = parameter is not None and parameter.kind is parameter.VAR_POSITIONAL
            plain = len(names) - starred
            name = names[index] if index < plain else f"{last}[{index - plain}]"
        paths.append(name + "".join(map(str, key[2:])))
    return paths


def _sources(gm: fx.GraphModule, module: nn.Module | None) -> list[Source]:
    expressions: list[str] = []
    for node in gm.graph.find_nodes(op="placeholder"):
        expression = dynamo_compat.source_of(node)
        if expression is None:
            raise CaptureError(
                f"%{node.name} does not say where it comes from; wanted Dynamo's own graph."
            )
        expressions.append(expression)
    signature = inspect.signature(module.forward) if module is not None else None
    return read_sources(expressions, signature)


def _hints(module: nn.Module | None) -> dict[str, int | str]:
    said: Any = getattr(module, "turbo4d_geometry", None)
    return dict(said) if said else {}


def weight_positions(gm: fx.GraphModule) -> list[int]:
    """Which of the flat arguments of Dynamo's graph are weights.

    Raises:
        CaptureError: where a placeholder does not say where it comes from.
    """
    sources = _sources(gm, None)
    return [index for index, source in enumerate(sources) if source.kind == "weight"]


def refuse_training(module: nn.Module | None) -> None:
    """Refuses a module in training mode.

    Raises:
        CaptureError: where the module is in it.
    """
    if module is not None and module.training:
        raise CaptureError(_training(module))


def _refuse_autocast() -> None:
    """What is exported runs wherever it is loaded, and says itself what it computes in."""
    for device in DEVICES:
        if torch.is_autocast_enabled(device):
            raise CaptureError(
                f"autocast is on for {device!r}, and what is exported runs outside of it. Convert "
                "the model with model.to(dtype) and leave autocast out."
            )


def _refuse_flexible(gm: fx.GraphModule) -> None:
    for node in gm.graph.nodes:
        if compat.is_higher_order(node.target) and node.target.name() == "flex_attention":
            raise CaptureError(
                f"%{node.name} is flex_attention, whose score function torch cannot trace again; "
                "write it as F.scaled_dot_product_attention with attn_mask."
            )


def _training(module: nn.Module) -> str:
    return f"{type(module).__name__} is in training mode; call model.eval() before compiling."


def _mutating(names: Sequence[str]) -> str:
    if norms := sorted({name.rpartition(".")[0] for name in names if name.endswith(_STATISTICS)}):
        return (
            f"the forward writes the running statistics of {', '.join(map(repr, norms))}, which is "
            "in training mode; call model.eval() before compiling."
        )
    listed = ", ".join(repr(name) for name in sorted(names))
    return (
        f"the forward writes to {listed}; a step must be a pure function of its inputs. Copy the "
        "tensor before writing to it."
    )


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)

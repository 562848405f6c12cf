"""The invariants of the intermediate representation, as code; checked after every pass.

I1  the graph lints.
I2  every value node has a true `meta["val"]`.
I3  no output shares memory with an input or with another output.
I4  every call is used, attention included.
I5  no operator writes in place.
I6  the placeholders are those of the table, in order, by name.
I7  every attention is a known site, and lies in its own region and those around it, in no other.
I8  the branches of a cond agree in shape, dtype and strides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, fx
from turbo4d.passes.base import COND, derive, layout, owner, returned
from turbo4d.passes.compat import writes_in_place

from .errors import VerifyError
from .show import type_text
from .verify_sites import misplaced

if TYPE_CHECKING:
    from .regions import Region


def verify(
    gm: fx.GraphModule,
    *,
    inputs: Sequence[str],
    sites: Mapping[str, str | None] | None = None,
    regions: Sequence[Region] = (),
    full: bool = False,
) -> None:
    """Check a graph against I1 to I8.

    Args:
        gm: the graph.
        inputs: names of the placeholders that it must have, in order.
        sites: for each attention's node its region (`known_sites`); None leaves I7 out.
        regions: of the model, by which I7 looks where each attention lies; empty leaves that out.
        full: derive every `meta["val"]` again and compare shape, dtype and strides.

    Raises:
        VerifyError: names the invariant and the node, and notes the node's text.
    """
    checks: tuple[Callable[[], None], ...] = (
        lambda: _lints(gm),
        lambda: _has_values(gm.graph, full),
        lambda: _owns_outputs(gm.graph),
        lambda: _uses_every_call(gm.graph),
        lambda: _writes_nothing(gm.graph),
        lambda: _keeps_the_table(gm.graph, tuple(inputs)),
        lambda: _holds_every_site(gm.graph, sites, regions),
        lambda: _agreeing_branches(gm),
    )
    for check in checks:
        check()


def _broken(invariant: str, node: fx.Node | None, fact: str) -> NoReturn:
    place = f" at %{node.name}" if node is not None else ""
    error = VerifyError(f"{invariant}{place}: {fact}.")
    if node is not None:
        error.add_note(str(node.format_node()))
    raise error


def _lints(gm: fx.GraphModule) -> None:
    try:
        gm.graph.lint()
    except RuntimeError as error:
        raise VerifyError(f"I1: the graph does not lint: {error}") from error


def _has_values(graph: fx.Graph, full: bool) -> None:
    for node in graph.nodes:
        if node.op not in ("placeholder", "call_function") or node.target is COND:
            continue
        value: Any = node.meta.get("val")
        parts: Iterable[Any] = value if type(value) in (list, tuple) else (value,)
        if not all(isinstance(part, Tensor) for part in parts):
            got = type(value).__name__
            _broken("I2", node, f"meta['val'] is {got}, wanted one or more tensors")
        if full and node.op == "call_function":
            with torch.no_grad():
                derived = derive(node)
            if layout(derived) != layout(value):
                fact = f"meta['val'] is {_text(value)}, the operator gives {_text(derived)}"
                _broken("I2", node, fact)


def _text(value: Any) -> str:
    strides = f" with strides {list(value.stride())}" if isinstance(value, Tensor) else ""
    return f"{type_text(value)}{strides}"


def _owns_outputs(graph: fx.Graph) -> None:
    seen: dict[fx.Node, fx.Node] = {}
    for node in returned(graph):
        held = owner(node)
        if held.op == "placeholder":
            _broken("I3", node, f"the output may share memory with the input %{held.name}")
        if held in seen:
            _broken("I3", node, f"the output may share memory with the output %{seen[held].name}")
        seen[held] = node


def _uses_every_call(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if node.op not in ("placeholder", "output") and not node.users:
            _broken("I4", node, "nothing uses the call")


def _writes_nothing(graph: fx.Graph) -> None:
    for node in graph.nodes:
        if node.op == "call_function" and writes_in_place(node.target):
            _broken("I5", node, f"{node.target} writes in place")


def _keeps_the_table(graph: fx.Graph, wanted: tuple[str, ...]) -> None:
    got = tuple(node.name for node in graph.nodes if node.op == "placeholder")
    if got == wanted:
        return
    for position, (have, want) in enumerate(zip(got, wanted, strict=False)):
        if have != want:
            _broken("I6", None, f"placeholder {position} is %{have}, the table has %{want}")
    _broken("I6", None, f"the graph has {len(got)} placeholders, the table {len(wanted)}")


def _holds_every_site(
    graph: fx.Graph, sites: Mapping[str, str | None] | None, regions: Sequence[Region]
) -> None:
    if sites is None:
        return
    for node, fact in misplaced(graph, sites, regions):
        _broken("I7", node, fact)


def _agreeing_branches(gm: fx.GraphModule) -> None:
    for node in gm.graph.find_nodes(op="call_function", target=COND):
        names = [str(branch.target) for branch in node.args[1:3]]
        layouts: list[Any] = []
        for name in names:
            branch: Any = gm.get_submodule(name)
            layouts.append([out.meta["val"] for out in returned(branch.graph)])
        first, second = layouts
        if [layout(value) for value in first] != [layout(value) for value in second]:
            texts = [", ".join(_text(value) for value in part) for part in layouts]
            _broken("I8", node, f"{names[0]} returns {texts[0]}, {names[1]} returns {texts[1]}")

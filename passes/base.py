"""What every pass shares: emitting, replacing and erasing nodes, the report, the fingerprint.

A pass is a frozen dataclass whose fields are its options. Called with a graph it changes it in
place: rewrite, then own the outputs, erase what nothing uses, and recompile. The compiler verifies.
"""

from __future__ import annotations

import hashlib
import inspect
import operator
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from .compat import aliased_argument, append_output

aten = torch.ops.aten
COND = torch.ops.higher_order.cond


class PassError(Exception):
    """A graph that a pass cannot go on with.

    Args:
        pass_name: verb-object.
        place: the node or region.
        fact: what was found.
        wanted: what the pass needs there.
        remedy: what the caller can do.
        excerpt: nodes around the place; becomes a note on the exception.
    """

    def __init__(
        self,
        pass_name: str,
        place: str,
        fact: str,
        wanted: str,
        remedy: str,
        excerpt: Sequence[fx.Node] = (),
    ) -> None:
        super().__init__(f"{pass_name} at {place}: {fact}; {wanted}. {remedy}.")
        if excerpt:
            self.add_note("\n".join(str(node.format_node()) for node in excerpt))


@dataclass(frozen=True)
class Skip:
    """A place that a pass looked at and left alone, and why."""

    place: str
    reason: str


@dataclass
class PassReport:
    """What a pass did.

    Attributes:
        pass_name: verb-object.
        rewritten: one sentence for each place.
        skipped: each place left alone, with the reason.
        erased: how many nodes are gone from the graph.
    """

    pass_name: str
    rewritten: list[str] = field(default_factory=list[str])
    skipped: list[Skip] = field(default_factory=list[Skip])
    erased: int = 0

    def rewrote(self, place: fx.Node, into: object) -> None:
        """Note that `place` became `into`."""
        self.rewritten.append(f"%{place.name} -> {into}")

    def skip(self, place: fx.Node, reason: str) -> None:
        """Note that `place` was left alone."""
        self.skipped.append(Skip(f"%{place.name}", reason))


@dataclass(frozen=True)
class Pass(ABC):
    """One rewrite of a canonical graph."""

    name: ClassVar[str]
    shared: ClassVar[tuple[str, ...]] = ()  # modules whose source is a part of the pass's own

    @abstractmethod
    def rewrite(self, gm: fx.GraphModule, report: PassReport) -> None:
        """Change the graph where it fits; say in `report` what was done and what was not."""

    def __call__(self, gm: fx.GraphModule) -> PassReport:
        """Rewrite `gm` in place, and make it callable again.

        Raises:
            PassError: where the graph is not what the options say.
        """
        report = self.apply(gm)
        if report.rewritten:
            gm.recompile()
        return report

    def apply(self, gm: fx.GraphModule) -> PassReport:
        """As a call, but for the generated code: whoever runs several passes recompiles once.

        A pass that finds nothing to rewrite changes nothing at all.
        """
        report = PassReport(self.name)
        count = len(gm.graph.nodes)
        with torch.no_grad():
            self.rewrite(gm, report)
            if report.rewritten:
                own_outputs(gm.graph)
        if report.rewritten:
            erase_unused(gm.graph)
        report.erased = max(0, count - len(gm.graph.nodes))
        return report

    @property
    def fingerprint(self) -> str:
        """sha256 of the pass's source, of what it shares with others, and of the options."""
        names = (type(self).__module__, Pass.__module__, *self.shared)
        text = "".join(inspect.getsource(sys.modules[name]) for name in names)
        return hashlib.sha256(f"{text}{self!r}".encode()).hexdigest()

    def find(self, graph: fx.Graph, name: str, region: str) -> fx.Node:
        """The node called `name`.

        Raises:
            PassError: where there is none.
        """
        for node in graph.nodes:
            if node.name == name:
                return node
        raise PassError(
            self.name,
            f"%{name} ({region})",
            f"the graph has no such node among its {len(graph.nodes)}",
            "regions are named in the canonical graph",
            "Specialise the capture that the regions were found in",
        )


def emit(graph: fx.Graph, target: Callable[..., Any], *args: Any, **kwargs: Any) -> fx.Node:
    """Insert a call at the graph's insertion point, with a true `meta["val"]`.

    Args:
        graph: any.
        target: an operator.
        args: of the call; nodes among them carry `meta["val"]`.
        kwargs: of the call, likewise.
    """
    node = graph.call_function(target, args, kwargs)
    node.meta["val"] = derive(node)
    return node


def derive(node: fx.Node) -> Any:
    """Run a node on the values of its arguments, which are without data; gives `meta["val"]`."""
    args = map_arg(node.args, lambda argument: argument.meta["val"])
    kwargs = map_arg(node.kwargs, lambda argument: argument.meta["val"])
    target: Any = node.target
    return target(*args, **kwargs)


def layout(value: Any) -> tuple[Any, ...]:
    """What two values must share to stand for each other: shape, dtype, strides."""
    if isinstance(value, Tensor):
        return (tuple(value.shape), value.dtype, value.stride())
    if isinstance(value, (list, tuple)):
        return tuple(layout(part) for part in value)  # pyright: ignore[reportUnknownVariableType]
    return (value,)


def replace(old: fx.Node, new: fx.Node) -> None:
    """Use `new` wherever `old` was used, and bring the values downstream up to date."""
    old.replace_all_uses_with(new)
    if layout(old.meta["val"]) == layout(new.meta["val"]):
        return
    _bring_up_to_date(new)


def _bring_up_to_date(changed: fx.Node) -> None:
    stale = {changed}
    node = changed
    while (node := node.next).op != "root":  # what reads a value stands after it
        if node.op == "call_function" and not stale.isdisjoint(node.all_input_nodes):
            value = derive(node)
            if layout(value) != layout(node.meta["val"]):
                node.meta["val"] = value
                stale.add(node)


def become(node: fx.Node, target: Callable[..., Any], *args: Any) -> None:
    """Turn a call into another, in place: it keeps its name, which a region may know, and users.

    Args:
        node: a call.
        target: an operator.
        args: of the call; nodes among them stand before `node` and carry `meta["val"]`.
    """
    node.target = target
    node.args = args
    node.kwargs = {}
    value = derive(node)
    moved = layout(value) != layout(node.meta["val"])
    node.meta = {"val": value}
    if moved:
        _bring_up_to_date(node)


def add_slot(graph: fx.Graph, name: str, like: fx.Node) -> fx.Node:
    """Add a placeholder of the shape, dtype and strides of `like`, after all other placeholders."""
    last = [node for node in graph.nodes if node.op == "placeholder"][-1]
    with graph.inserting_after(last):
        slot = graph.placeholder(name)
    slot.meta["val"] = aten.clone.default(like.meta["val"])
    return slot


def slot_name(region: str, number: int = 0) -> str:
    """Name of the placeholder that reads a region's slot: `slot_middle_chain`, then `.._1`."""
    return f"slot_{region.replace('.', '_')}" + (f"_{number}" if number else "")


def returned(graph: fx.Graph) -> tuple[fx.Node, ...]:
    """The graph's outputs, in order."""
    outputs: Any = graph.output_node().args[0]
    return tuple(node for node in outputs if isinstance(node, fx.Node))


def return_also(graph: fx.Graph, value: fx.Node) -> None:
    """Return `value` after all other outputs."""
    append_output(graph.output_node(), value)


def owner(node: fx.Node) -> fx.Node:
    """The node whose memory a value may lie in: itself, unless it may be a view.

    What a cond gives is its own: the branches are graphs that own their outputs.
    """
    while node.op == "call_function":
        position = 0 if node.target is operator.getitem else aliased_argument(node.target)
        if position is None or position >= len(node.args):
            return node
        source = node.args[position]
        if not isinstance(source, fx.Node) or source.target is COND:
            return node
        node = source
    return node


def own_outputs(graph: fx.Graph) -> None:
    """Clone each output that may share memory with an input or with an output before it."""
    taken: set[fx.Node] = set()
    kept: list[Any] = []
    output = graph.output_node()
    outputs: Any = output.args[0]
    for value in outputs:
        if isinstance(value, fx.Node):
            held = owner(value)
            if held.op != "call_function" or held in taken:
                with graph.inserting_before(output):
                    value = held = emit(graph, aten.clone.default, value)
            taken.add(held)
        kept.append(value)
    if any(a is not b for a, b in zip(kept, outputs, strict=True)):
        output.args = (tuple(kept),)


def erase_unused(graph: fx.Graph) -> None:
    """Erase every call that nothing uses, attention included, which FX counts as random."""
    for node in reversed(graph.nodes):
        if node.op not in ("placeholder", "output") and not node.users:
            graph.erase_node(node)

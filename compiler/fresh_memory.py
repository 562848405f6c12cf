"""fresh-memory: bytes that a graph's values take from the system anew, each run again.

On a CPU the C library's heap grows and shrinks at its top. What is freed stays with the process
until more than a threshold lies free there; then the system takes it back, and the next value that
needs it pays a page fault for each page. The threshold is twice the largest value freed so far, as
glibc adapts it, and values beyond 32 MiB are always taken anew. A network whose widest values come
and go pays that at every one of them.
"""

from __future__ import annotations

from torch import fx
from turbo4d.compiler.traffic import is_view, value_bytes

# glibc's DEFAULT_MMAP_THRESHOLD_MAX and M_TRIM_THRESHOLD's first value.
ALWAYS_FRESH = 32 << 20
_LEAST_HELD = 128 << 10


def largest_value(graph: fx.Graph) -> int:
    """Bytes of the largest value that a call makes and the heap may keep."""
    sizes = (value_bytes(node) for node in graph.nodes if _makes(node))
    return max((size for size in sizes if size < ALWAYS_FRESH), default=0)


def fresh_bytes(graph: fx.Graph, largest: int) -> int:
    """What one run of many takes anew, a value being freed after its last reader.

    Args:
        graph: of a variant; what it is given is not counted.
        largest: bytes of the largest value that the process has freed; see `largest_value`.
    """
    keeps = max(2 * largest, _LEAST_HELD)
    last = last_readers(graph)
    held = fresh = 0
    for _ in range(2):  # what the first run leaves, the second need not take
        live = fresh = 0
        for node in graph.nodes:
            size = value_bytes(node) if _makes(node) else 0
            live += _kept(size)
            fresh += max(live - held, 0) + size - _kept(size)
            held = max(held, live)
            live -= sum(_kept(value_bytes(value)) for value in last.get(node, ()))
            held = live if held - live > keeps else held
    return fresh


def _kept(size: int) -> int:
    return size if size < ALWAYS_FRESH else 0


def _makes(node: fx.Node) -> bool:
    return node.op == "call_function" and not is_view(node)


def last_readers(graph: fx.Graph) -> dict[fx.Node, list[fx.Node]]:
    """Per node the values that are freed after it; a view keeps what it shows."""
    owner: dict[fx.Node, fx.Node] = {}
    reader: dict[fx.Node, fx.Node] = {}
    nodes: list[fx.Node] = [*graph.nodes]
    for node in nodes:
        for operand in node.all_input_nodes:
            reader[owner.get(operand, operand)] = node
        if node.op == "call_function" and is_view(node) and node.all_input_nodes:
            shown = node.all_input_nodes[0]
            owner[node] = owner.get(shown, shown)
        elif _makes(node):
            reader[node] = node
    gone: dict[fx.Node, list[fx.Node]] = {}
    for value, at in reader.items():
        if _makes(value):
            gone.setdefault(at, []).append(value)
    return gone

"""One pass on one graph, as a file: what it takes to see a failure again, on any machine.

The file holds the graph before the pass, the pass by name with its fields, and the names that the
verifier compares with. Reading it runs no code of the file; see `graph_reading.py`.
"""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast, get_args, get_origin, get_type_hints

from torch import fx
from turbo4d.compiler.errors import GraphFileError
from turbo4d.compiler.graph_file import json_text
from turbo4d.compiler.graph_reading import graph_of
from turbo4d.compiler.verify import verify
from turbo4d.compiler.verify_sites import SDPA
from turbo4d.passes import ALL_PASSES, Pass, PassReport

FORMAT = "turbo4d repeat 1"


@dataclass(frozen=True)
class Repeat:
    """A pass and the graph to run it on.

    Args:
        pass_: the pass.
        module: the graph before it.
    """

    pass_: Pass
    module: fx.GraphModule

    def run(self) -> PassReport:
        """Apply the pass to the graph, in place, and verify what it leaves.

        Raises:
            PassError: the graph is not what the pass's fields say.
            VerifyError: the pass breaks an invariant.
        """
        given = [node.name for node in self.module.graph.find_nodes(op="placeholder")]
        sites = {node.name: None for node in self.module.graph.find_nodes(
            op="call_function", target=SDPA)}  # fmt: skip
        report = self.pass_.apply(self.module)
        after = [node.name for node in self.module.graph.find_nodes(op="placeholder")]
        verify(self.module, inputs=[*given, *after[len(given) :]], sites=sites, full=True)
        return report


def repeat_text(pass_: Pass, graph: Mapping[str, Any]) -> str:
    """The file's text.

    Args:
        pass_: the pass.
        graph: the graph before it, as `graph_json` gives it.

    Raises:
        GraphFileError: a field of the pass that JSON cannot hold.
    """
    given = {field.name: _written(getattr(pass_, field.name), pass_) for field in fields(pass_)}
    found = {"format": FORMAT, "pass": {"name": pass_.name, "fields": given}, "graph": graph}
    return json_text(found) + "\n"


def read_repeat(text: str) -> Repeat:
    """The pass and the graph that a file holds.

    Raises:
        GraphFileError: in one sentence, what is wrong with it.
    """
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GraphFileError(f"the file is no JSON: {error}.") from error
    held = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    if held.get("format") != FORMAT:
        raise GraphFileError(f"the file has no format {FORMAT!r}; wanted one that a dump wrote.")
    return Repeat(_pass(held.get("pass")), graph_of(held.get("graph")))


def _written(value: Any, pass_: Pass) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_written(part, pass_) for part in cast("list[Any]", value)]
    raise GraphFileError(f"{pass_.name} has a field of type {type(value).__name__}.")


def _pass(found: Any) -> Pass:
    match found:
        case {"name": str() as name, "fields": given} if isinstance(given, dict):
            options = cast("dict[str, Any]", given)
        case _:
            raise GraphFileError("the file has no pass; wanted its name and its fields.")
    known = {pass_.name: pass_ for pass_ in ALL_PASSES}
    if name not in known:
        listed = ", ".join(map(repr, sorted(known)))
        raise GraphFileError(f"pass {name!r} is unknown to this turbo4d; it has {listed}.")
    kind = known[name]
    wanted = [field.name for field in fields(kind)]
    if sorted(options) != sorted(wanted):
        got = ", ".join(map(repr, sorted(options))) or "none"
        raise GraphFileError(
            f"pass {name!r} has the fields {', '.join(map(repr, sorted(wanted))) or 'none'} in "
            f"this turbo4d; the file gives {got}."
        )
    hints = get_type_hints(kind)
    return kind(**{key: _field(options[key], hints[key], f"{name}: {key}") for key in wanted})


def _field(value: Any, hint: Any, place: str) -> Any:
    """A field's value as its annotation wants it: a JSON list becomes a tuple."""
    kind, parts = get_origin(hint) or hint, get_args(hint)
    if kind is types.UnionType:
        [kind] = [part for part in parts if part is not types.NoneType][:1]
        if value is None:
            return None
    if kind is tuple and isinstance(value, list):
        of = parts[0] if parts else Any
        return tuple(_field(part, of, place) for part in cast("list[Any]", value))
    if isinstance(kind, type) and not isinstance(value, kind):
        raise GraphFileError(f"{place} is {value!r}; wanted {kind.__name__}.")
    return value

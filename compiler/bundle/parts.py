"""parts: a module and a plan taken apart into the graphs that a bundle holds.

The graphs are those of the plan's variants, of the full ones that the runtime falls back to where a
slot holds nothing or a step cannot be told, and the prologue; or one conditional graph in the place
of all variants.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.backend import signature_of
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.conditional import conditional
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.invariant import declare
from turbo4d.compiler.prologue import Prologue
from turbo4d.compiler.specialise import Variant, specialise
from turbo4d.runtime.bundle.manifest import VariantRow
from turbo4d.runtime.errors import OptionError
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.plan_check import PlanCheck
from turbo4d.runtime.signature import Signature
from turbo4d.runtime.variant_key import VariantKey

from .part import CONDITIONAL, Part, PartTable
from .wanted import Wanted, keys_of, planned


@dataclass(frozen=True)
class Parts:
    """A module and a plan, taken apart.

    Args:
        analysis: of the module.
        signature: of what the bundle runs: the inputs alone.
        plan: resolved.
        check: its proof.
        graphs: one for each engine.
        variants: which engine runs which variant.
        made: the graph of each variant alone, whatever the form.
        weights: what the graphs read, by name; the module's own tensors.
        prologue: None where nothing is hoisted, or exact passes are off.
        dtype: of the sample.
    """

    analysis: Analysis
    signature: Signature
    plan: Plan
    check: PlanCheck
    graphs: tuple[Part, ...]
    variants: tuple[VariantRow, ...]
    made: Mapping[VariantKey, Variant]
    weights: Mapping[str, Tensor]
    prologue: Prologue | None
    dtype: torch.dtype


def take_apart(
    module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None, wanted: Wanted
) -> Parts:
    """Capture a module for one call, and make every graph that its plan needs.

    Raises:
        CaptureError: what cannot become one graph.
        PlanError: a plan that does not fit it.
        OptionError: an option that matches nothing.
    """
    capture = capture_export(module, args, kwargs)
    analysis = analyse(capture, wanted.geometry, gates=wanted.form != "conditional")
    analysis = replace(analysis, roles=declare(analysis.roles, capture, wanted.invariant))
    plan, check = planned(analysis, wanted)
    keys = keys_of(plan, check)
    table = PartTable(analysis)
    made = {key: specialise(analysis, key) for key in keys}
    if wanted.form == "conditional":
        graphs = [table.part(CONDITIONAL, conditional(analysis, keys))]
    else:
        graphs = [table.part(key.name, variant) for key, variant in made.items()]
    rows = [
        VariantRow(key, CONDITIONAL if wanted.form == "conditional" else key.name, *slots)
        for key, slots in ((key, (each.reads, each.writes)) for key, each in made.items())
    ]
    _refuse_twice([key.name for key in keys])
    prologue = exact_form(analysis).prologue if plan.exact else None
    if prologue is not None and prologue.names:
        graphs.insert(0, table.prologue_part(prologue))
    else:
        prologue = None
    return Parts(
        analysis=analysis,
        signature=bare_signature(signature_of(analysis)),
        plan=plan,
        check=check,
        graphs=tuple(graphs),
        variants=tuple(rows),
        made=made,
        weights=table.used(graphs),
        prologue=prologue,
        dtype=capture.table[analysis.roles.sample].dtype,
    )


def bare_signature(signature: Signature) -> Signature:
    """A signature of the inputs alone: a bundle's weights are its own."""
    first = len(signature.names) - signature.kinds.count("input")
    return replace(
        signature,
        names=signature.names[first:],
        kinds=signature.kinds[first:],
        sample=signature.sample - first,
        level=None if signature.level is None else signature.level - first,
        conditioning=tuple(index - first for index in signature.conditioning),
        invariant={index - first: ranges for index, ranges in signature.invariant.items()},
    )


def _refuse_twice(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise OptionError(
            f"two variants of the plan are both called {twice[0]!r}; rename the plan's regions "
            "or leave one of its rows out."
        )

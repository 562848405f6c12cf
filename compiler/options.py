"""The backend's options: their names, their kinds, and what is refused."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from turbo4d.runtime.adaptive import bounds_of
from turbo4d.runtime.errors import OptionError
from turbo4d.runtime.finite_watch import Nonfinite, check_nonfinite
from turbo4d.runtime.holding import Holding
from turbo4d.runtime.levels import UNITS
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.plan_source import read_plan


@dataclass(frozen=True)
class Options:
    """What `torch.compile(model, backend="turbo4d", options={...})` takes.

    Args:
        plan: a preset's name, a plan, or the path of one.
        lowering: what engines are made of; "auto" picks.
        geometry: any of batch, views, frames, height, width; the rest is inferred.
        levels: the noise level of each step, falling.
        level_unit: "sigma", "log_sigma", "c_noise" (a quarter of that), "timestep", "flow" (the
            share of noise) or "flow_timestep" (a thousand times that); inferred from the levels
            where absent.
        regions: kinds of region that a preset may use; core, levels and chains where absent.
        invariant: for an input, the channels that stay the same during a run, such as "4:8", or
            whether the whole of it does, True or False; see `invariant.declare`.
        adaptive: True for runs that leave the plan where what they measure says so, or any of
            min_refresh, ceiling, hysteresis; see `runtime.adaptive.Bounds`.
        conditional: whether all variants are one engine that flags tell what to skip, instead of an
            engine for each; see `conditional.py`. Its slots hold whole residuals, where a variant's
            hold what is behind a gate of the level: errors found without it are of the other.
        merge_projections: whether products of one value with several weights become one; see
            passes/merge_shared_projections.py for what that costs and gains.
        nonfinite: what is done about slots that hold NaN or infinity: "refresh" computes them anew,
            with an event, "raise" raises an error, "ignore" does not look.
        fixed_slots: whether slots have addresses that do not move during a session, which CUDA
            graphs and TensorRT ask for; what steps write is then copied.
        offload: whether slots that the next step does not read wait on the host, on CUDA alone.
        cuda_graphs: whether each variant's whole step is recorded as a CUDA graph and replayed; on
            CUDA alone.
        keep_memory: whether what steps free on the host stays with the process; see
            runtime/host_memory.py for what that does to the whole of it.
        strict: whether what would be a reported event is an error.
        max_cache_bytes: what all slots together may hold.
    """

    plan: str | Plan = "balanced"
    lowering: str = "auto"
    geometry: Mapping[str, int] | None = None
    levels: Sequence[float] | None = None
    level_unit: Any = None
    regions: Sequence[str] | None = None
    invariant: Mapping[str, str | bool] | None = None
    adaptive: bool | Mapping[str, Any] = False
    conditional: bool = False
    merge_projections: bool = False
    nonfinite: Nonfinite = "refresh"
    fixed_slots: bool = False
    offload: bool = False
    cuda_graphs: bool = False
    keep_memory: bool = False
    strict: bool = False
    max_cache_bytes: int | None = None

    @staticmethod
    def read(given: Mapping[str, Any]) -> Options:
        """Check names and kinds.

        Raises:
            OptionError: an unknown name, with the choices; a value of the wrong kind; an option
                that this version does not carry out; a plan that is neither preset nor file.
            PlanError: a file that holds no plan.
        """
        names = sorted(field.name for field in fields(Options))
        for name, value in given.items():
            if name not in names:
                close = difflib.get_close_matches(name, names, n=1)
                meant = f" Did you mean {close[0]!r}?" if close else ""
                raise OptionError(
                    f"option {name!r} is unknown; choose {', '.join(map(repr, names))}.{meant}"
                )
            kinds, wanted = _KINDS[name]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                raise OptionError(f"option {name!r} is {value!r}; wanted {wanted}.")
        bounds_of(given.get("adaptive", False))
        check_nonfinite(given.get("nonfinite", Options.nonfinite))
        Holding(given.get("fixed_slots", False), given.get("offload", False))
        return replace(Options(**given), plan=read_plan(given.get("plan", Options.plan)))


_NONE = type(None)
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "plan": ((str, Plan), "a preset's name, the path of a plan, or a Plan"),
    "lowering": ((str,), "a lowering's name"),
    "geometry": ((Mapping, _NONE), "a mapping of axis to size"),
    "levels": ((Sequence, _NONE), "a sequence of falling noise levels"),
    "level_unit": ((str, _NONE), "one of " + ", ".join(map(repr, sorted(UNITS)))),
    "regions": ((list, tuple, _NONE), "a sequence of region kinds"),
    "invariant": ((Mapping, _NONE), "a mapping of input to channels, True or False"),
    "adaptive": ((bool, Mapping), "True, False, or bounds by name"),
    "conditional": ((bool,), "True or False"),
    "merge_projections": ((bool,), "True or False"),
    "nonfinite": ((str,), "'ignore', 'raise' or 'refresh'"),
    "fixed_slots": ((bool,), "True or False"),
    "offload": ((bool,), "True or False"),
    "cuda_graphs": ((bool,), "True or False"),
    "keep_memory": ((bool,), "True or False"),
    "strict": ((bool,), "True or False"),
    "max_cache_bytes": ((int, _NONE), "a number of bytes"),
}

"""A minute's look at all of torch that turbo4d leans on, before anything long is begun.

Each probe does at a small size what a part of turbo4d does, through the very function that it
calls: those of the folders' compat files first, then what only a GPU has (`gpu_smoke_cuda`).
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from turbo4d.tools.bench.gpu_smoke_cuda import ON_CUDA

# What a torch that lacks something answers with.
_LACKING = (
    ImportError, AttributeError, RuntimeError, TypeError, ValueError, LookupError, OSError,
)  # fmt: skip
aten = torch.ops.aten
Probe = Callable[[torch.device], str]


class _Attends(nn.Module):
    """Attention between two products."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(16, 16)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        heads = self.inner(x).unflatten(-1, (2, 8)).transpose(1, 2)
        return (functional.scaled_dot_product_attention(heads, heads, heads).sum(1),)


def _traced(device: torch.device) -> fx.GraphModule:
    from turbo4d.compiler import compat

    module = fx.symbolic_trace(_Attends().to(device))
    return compat.trace(module, [torch.randn(2, 5, 16, device=device)]).module


def trace(device: torch.device) -> str:
    """`aot_export_module(pre_dispatch=True)` keeps attention and linear whole."""
    targets = {node.target for node in _traced(device).graph.nodes}
    lacking = {aten.scaled_dot_product_attention.default, aten.linear.default} - targets
    if lacking:
        raise RuntimeError(f"the trace opened up {sorted(map(str, lacking))}")
    return f"{len(targets)} operators, attention whole"


def schemas(device: torch.device) -> str:
    """What an operator's schema says of views and writes."""
    from turbo4d.compiler import compat
    from turbo4d.passes.compat import aliased_argument, writes_in_place

    told = (
        aliased_argument(aten.view.default) == 0,
        aliased_argument(aten.add.Tensor) is None,
        writes_in_place(aten.add_.Tensor),
        not writes_in_place(aten.add.Tensor),
        compat.is_operator(aten.add.Tensor),
        compat.opens_up(aten.reshape.default) == compat.opens_up(aten.reshape.default),
        len(compat.arguments_of(aten.add.Tensor)) == 3,
    )
    if not all(told):
        raise RuntimeError(f"schemas say otherwise than in torch 2.13: {told}")
    return "views, writes, defaults"


@lru_cache(maxsize=1)
def _tiny(device: torch.device) -> tuple[Any, dict[str, Any]]:
    from turbo4d.tools.bench.gpu_network import Work, call_of, network

    work = Work("tiny", device.type, "fp32", 2)
    return network(work), call_of(work)


def _compiled(device: torch.device, **options: Any) -> Tensor:
    from turbo4d.compiler.backend import turbo4d

    module, call = _tiny(device)

    def backend(gm: fx.GraphModule, inputs: Any) -> Any:
        return turbo4d(gm, inputs, options=options)

    fast = torch.compile(module, backend=backend, fullgraph=True, dynamic=False)
    with torch.no_grad():
        return fast(**call)


def front_door(device: torch.device) -> str:
    """torch.compile: the module being compiled, its sources, capture, plan none to the bit."""
    module, call = _tiny(device)
    with torch.no_grad():
        wanted = module(**call)
    if not torch.equal(_compiled(device, plan="none", lowering="eager"), wanted):
        raise RuntimeError("plan 'none' gives other bits than the plain module")
    return "plan none equal in every bit"


def exact_passes(device: torch.device) -> str:
    """Exact passes and the prologue."""
    module, call = _tiny(device)
    with torch.no_grad():
        wanted = module(**call)
    found = _compiled(device, plan="exact", lowering="eager")
    off = float((found - wanted).norm() / wanted.norm())
    if not off < 1e-3:  # float32; where TF32 is on, more than rounding
        raise RuntimeError(f"plan 'exact' is off by {off:.1e}")
    return f"off by {off:.0e}"


def error_passes(device: torch.device) -> str:
    """An error of ours comes through Dynamo as itself."""
    from turbo4d.runtime.errors import OptionError

    try:
        _compiled(device, plan="no such plan")
    except OptionError:
        return "OptionError as itself"
    raise RuntimeError("an unknown plan was not refused")


def export_door(device: torch.device) -> str:
    """`torch.export` of the network, and its analysis."""
    from turbo4d.compiler.analysis import analyse
    from turbo4d.compiler.capture import capture_export

    module, call = _tiny(device)
    analysis = analyse(capture_export(module, (), call))
    return f"{len(analysis.sites)} sites, {len(analysis.regions)} regions"


def inductor(device: torch.device) -> str:
    """A segment compiled by Inductor, its strides reported."""
    from turbo4d.compiler.lower import compat

    if lacks := compat.inductor_lacks(device):
        raise RuntimeError(lacks)
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.output((graph.call_function(aten.silu.default, (x,)),))
    form = compat.Form((4, 8), (8, 1), torch.float32, device)
    x.meta["val"] = torch.empty((4, 8), device="meta")
    compiled = compat.compile_with_inductor(fx.GraphModule(nn.Module(), graph), [form])
    given = torch.randn(4, 8, device=device)
    [found] = compiled.call(given)
    if not torch.allclose(found, functional.silu(given), atol=1e-6) or not compiled.strides:
        raise RuntimeError("the compiled segment gives other numbers, or reports no strides")
    return f"strides {compiled.strides}"


def written_counts(device: torch.device) -> str:
    """How often a tensor was written to; the counters of Dynamo."""
    from turbo4d.runtime.compat import versions_of
    from turbo4d.tools.bench.compat import graph_breaks, recompiles

    tensor = torch.zeros(2, device=device)
    [before] = versions_of([tensor])
    tensor.add_(1)
    if versions_of([tensor]) == [before]:
        raise RuntimeError("a write is not counted")
    return f"{graph_breaks()} graph breaks and {recompiles()} recompiles so far"


def package_loader(device: torch.device) -> str:
    """The loader of AOTInductor's packages is there, and refuses what is none."""
    from turbo4d.runtime.compat import open_package

    try:
        open_package("no such package.pt2", 0 if device.type == "cuda" else -1)
    except RuntimeError:
        return "there; refuses a file that is not"
    raise RuntimeError("a package that is not there was opened")


def slot_storages(device: torch.device) -> str:
    """Slots in fewer bits."""
    from turbo4d.runtime.slot_storage import STORAGES, decode, encode

    value = torch.randn(4, 256, device=device)
    worst = {name: float((decode(encode(value, name)) - value).abs().max()) for name in STORAGES}
    return ", ".join(f"{name} off by {off:.0e}" for name, off in worst.items())


def tiny_sequences(device: torch.device) -> str:
    """Attention over 8 views and 5 frames, many groups, as torch picks its kernel."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    groups = 2**17 if device.type == "cuda" else 64
    for tokens in (8, 5):
        q = torch.randn(groups, 1, tokens, 64, device=device, dtype=dtype)
        found = functional.scaled_dot_product_attention(q, q, q)
        if not found.isfinite().all():
            raise RuntimeError(f"{tokens} tokens give numbers that are not finite")
    return f"{groups} groups of 8 and of 5"


def out_of_memory(device: torch.device) -> str:
    """Memory that is not there raises what the benchmark catches."""
    try:
        torch.empty(2**50, dtype=torch.uint8, device=device)
    except torch.OutOfMemoryError:
        return "torch.OutOfMemoryError"
    except RuntimeError as error:
        if device.type == "cpu":  # whose allocator raises a plain RuntimeError
            return "RuntimeError, as a CPU's allocator does"
        raise RuntimeError("raises another error than torch.OutOfMemoryError") from error
    raise RuntimeError("a petabyte was given")


def events(device: torch.device) -> str:
    """Copies to the host that nobody waits for, and the clock in the device's queue."""
    from turbo4d.runtime.finite_watch import FiniteWatch
    from turbo4d.tools.bench.node_clock import clock_for

    watch, clock = FiniteWatch(), clock_for(device)
    clock.mark()
    watch.look(["slot"], [torch.full((4,), float("nan"), device=device)], 0)
    clock.mark()
    if watch.found(wait=True) != [("slot", 0)] or clock.seconds()[0] < 0:
        raise RuntimeError("what was written was not seen on the host")
    return "seen on the host"


PROBES: Mapping[str, Probe] = {
    "pre-dispatch trace": trace,
    "operator schemas": schemas,
    "torch.compile front door": front_door,
    "exact passes": exact_passes,
    "errors through Dynamo": error_passes,
    "torch.export door": export_door,
    "inductor segment": inductor,
    "versions and counters": written_counts,
    "AOTInductor loader": package_loader,
    "slot storages": slot_storages,
    "tiny attention sequences": tiny_sequences,
    "out of memory": out_of_memory,
    "events and pinned copies": events,
}


def probed(name: str, probe: Probe, device: torch.device) -> dict[str, Any]:
    """What a probe found."""
    begun = time.perf_counter()
    try:
        note, reason = probe(device), None
    except _LACKING as error:
        traceback.print_exception(error)
        note, reason = None, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    took_s = round(time.perf_counter() - begun, 2)
    return {"name": name, "ok": reason is None, "reason": reason, "note": note, "seconds": took_s}


def main(asked: str) -> int:
    """Tries all; a line of JSON for each on stdout."""
    name = json.loads(asked)["device"]
    cuda = torch.cuda.is_available() if name == "auto" else name == "cuda"
    device = torch.device("cuda" if cuda else "cpu")
    for title, probe in {**PROBES, **(ON_CUDA if cuda else {})}.items():
        sys.stdout.write(f"{json.dumps(probed(title, probe, device))}\n")
        sys.stdout.flush()
    return 0

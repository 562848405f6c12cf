"""machine: how fast a machine does what a graph asks of it, measured or from a data sheet.

Two numbers carry it, the rate of products and the bandwidth; the others, which a GPU hides, matter
to small networks on a CPU. Nothing is taken to overlap: seconds add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from turbo4d.compiler.machine_probe import rates_of
from turbo4d.compiler.work import Work
from turbo4d.runtime.device_name import device_name
from turbo4d.runtime.errors import OptionError


@dataclass(frozen=True)
class Machine:
    """The rates of one machine at one dtype.

    Args:
        name: in words, with how its rates are known.
        matmul_flops: operations of products per second.
        bandwidth: bytes per second, of values of some megabytes.
        launch_s: seconds of a call, whatever it does.
        function_s: seconds of one evaluation of a function such as erf.
        group_s: seconds of a small group of an attention, whatever it multiplies.
        fresh_s: seconds of a byte of memory that the system is asked for anew.
        repacks: whether its library of products copies the operands into an order of its own.
    """

    name: str
    matmul_flops: float
    bandwidth: float
    launch_s: float
    function_s: float = 0.0
    group_s: float = 0.0
    fresh_s: float = 0.0
    repacks: bool = False

    def seconds(self, work: Work) -> float:
        """Predicted time of some work."""
        moved = work.bytes + (work.packed_bytes if self.repacks else 0)
        return (
            work.flops / self.matmul_flops
            + moved / self.bandwidth
            + work.functions * self.function_s
            + work.groups * self.group_s
            + work.calls * self.launch_s
            + work.fresh_bytes * self.fresh_s
        )

    def as_json(self) -> dict[str, Any]:
        """The fields by name."""
        return asdict(self)


def measure_machine(
    dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Machine:
    """The machine this runs on, measured with its present number of threads; about a second.

    Args:
        dtype: of the network's weights.
        device: on which it would run.
    """
    at = torch.device(device)
    threads = f", {torch.get_num_threads()} threads" if at.type == "cpu" else ""
    name = f"{device_name(at)}{threads}, {_word(dtype)}, measured"
    return Machine(name, **rates_of(dtype, at), repacks=at.type == "cpu")


@cache
def _measured(dtype: torch.dtype, device: str, threads: int) -> Machine:
    return measure_machine(dtype, device)


def this_machine(dtype: torch.dtype = torch.float32, device: str = "cpu") -> Machine:
    """As `measure_machine`, measured once in a process for each number of threads."""
    return _measured(dtype, device, torch.get_num_threads())


def gpu(name: str, dtype: torch.dtype) -> Machine:
    """A GPU of the table.

    Raises:
        OptionError: an unknown GPU, or a dtype for which the table has no rate.
    """
    if name not in GPUS:
        raise OptionError(
            f"machine {name!r} is unknown; there are {', '.join(map(repr, sorted(GPUS)))}. Leave "
            "it out for the machine this runs on."
        )
    if dtype not in GPUS[name]:
        known = ", ".join(sorted(_word(each) for each in GPUS[name]))
        raise OptionError(
            f"machine {name!r}: no rate is known for {_word(dtype)}; there is {known}."
        )
    return GPUS[name][dtype]


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# Of the makers' data sheets, without sparsity: TFLOP/s in float32 without tensor cores and in half
# precision with them, summed in float32, and GB/s.
_SHEETS: Mapping[str, tuple[float, float, float]] = {
    "a100": (19.5, 312.0, 2039.0),
    "h100": (67.0, 989.0, 3350.0),
    "h200": (67.0, 989.0, 4800.0),
    "l4": (30.3, 121.0, 300.0),
    "l40s": (91.6, 362.0, 864.0),
    "rtx4090": (82.6, 165.2, 1008.0),
    "rtx5090": (104.8, 209.5, 1792.0),
    "jetson-orin": (5.3, 42.5, 204.8),
    "jetson-thor": (8.1, 258.8, 273.0),
}
# What a library is taken to reach of them, and a call's cost to the host: assumed, not measured.
PRODUCT_SHARE = 0.6
BANDWIDTH_SHARE = 0.8
GPU_LAUNCH_S = 5e-6


def _from_sheet(name: str, dtype: torch.dtype, tera: float, giga: float) -> Machine:
    said = (
        f"{name}, {_word(dtype)}, from the data sheet, not measured: {PRODUCT_SHARE:.0%} of its "
        f"{tera:g} TFLOP/s and {BANDWIDTH_SHARE:.0%} of its {giga:g} GB/s"
    )
    return Machine(said, tera * 1e12 * PRODUCT_SHARE, giga * 1e9 * BANDWIDTH_SHARE, GPU_LAUNCH_S)


GPUS: Mapping[str, Mapping[torch.dtype, Machine]] = {
    name: {
        torch.float32: _from_sheet(name, torch.float32, single, giga),
        torch.bfloat16: _from_sheet(name, torch.bfloat16, half, giga),
        torch.float16: _from_sheet(name, torch.float16, half, giga),
    }
    for name, (single, half, giga) in _SHEETS.items()
}

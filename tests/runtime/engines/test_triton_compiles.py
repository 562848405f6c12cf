"""The Triton kernels, built for a GPU that need not be there."""

from __future__ import annotations

import os
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from turbo4d.runtime.engines.triton_tuning import tuning_of, untimed_rows

pytestmark = pytest.mark.skipif(
    os.environ.get("TRITON_INTERPRET") == "1" or find_spec("triton") is None,
    reason="needs the package triton, and its compiler",
)
POINTERS = {"x", "add", "out", "query", "key", "value", "project", "bias"}
POINTERS |= {"norm_weight", "norm_bias", "up"}
KINDS = {torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float32: "*fp32"}
# (channels, heads, tokens): sv4d's three levels over views and frames, and nano's widest.
SITES = [(320, 5, 8), (640, 10, 5), (1280, 20, 8), (128, 4, 5)]


def built(function: Any, kind: str, known: dict[str, Any], cut: Any, capability: int) -> Any:
    """A kernel compiled for a GPU."""
    backends: Any = import_module("triton.backends.compiler")
    compiler: Any = import_module("triton.compiler")
    names = function.arg_names
    types = {name: "i32" for name in names} | dict.fromkeys(("eps", "scale"), "fp32")
    types |= dict.fromkeys(POINTERS, kind) | dict.fromkeys(known, "constexpr")
    signature = {name: types[name] for name in names}
    # As the launcher finds them: addresses and strides are multiples of 16.
    uneven = {*known, "eps", "scale", "inner", "groups", "rows"}
    even = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if name not in uneven}
    values = {(names.index(name),): value for name, value in known.items()}
    source = compiler.ASTSource(fn=function, signature=signature, constexprs=values, attrs=even)
    options = {"num_warps": cut.warps, "num_stages": cut.stages}
    return compiler.compile(
        source, target=backends.GPUTarget("cuda", capability, 32), options=options
    )


def spilled_bytes(kernel: Any, folder: Path) -> int:
    """What a thread keeps outside its registers, by NVIDIA's own tool, which comes with Triton."""
    triton: Any = import_module("triton")
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    path = folder / "kernel.cubin"
    path.write_bytes(kernel.asm["cubin"])
    words = [str(tool), "--dump-resource-usage", str(path)]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    [stack] = [int(word.split(":")[1]) for word in said.split() if word.startswith("STACK:")]
    return stack


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_they_fit_a_gpu_without_spilling(
    site: tuple[int, int, int], dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from turbo4d.runtime.engines import triton_token_attention as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")  # without a choice Triton 3.9 warns
    cut = tuning_of(*site, dtype)
    both = {"BIAS": True, "ADD": True, "WIDEN": False}
    first, second = kernels.constants(*site, dtype, cut)
    wanted = [(kernels._attend, {**first, **both, "NORM": True, "AFFINE": True})]
    wanted += [] if cut.whole else [(kernels.project_rows, {**second, **both})]
    for function, known in wanted:
        kernel = built(function, KINDS[dtype], known, cut, capability=90)
        assert kernel.metadata.shared <= 99 * 1024  # so that the smallest GPU of today runs it
        assert spilled_bytes(kernel, tmp_path) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_feed_forward_fits_too(
    dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from turbo4d.runtime.engines.triton_gated_feed_forward import _gate

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    cut = untimed_rows(dtype)
    known = {
        "CHANNELS": 320, "WIDTH": 1280, "ROWS": cut.rows, "STEP": cut.step, "COLUMNS": cut.columns,
        "NORM": True, "AFFINE": True, "BIAS": True, "WIDEN": False,
        "PRECISION": "ieee" if dtype == torch.float32 else "tf32",
    }  # fmt: skip
    kernel = built(_gate, KINDS[dtype], known, cut, capability=90)
    assert kernel.metadata.shared <= 99 * 1024
    assert spilled_bytes(kernel, tmp_path) == 0

"""What a serving process loads: the runtime, and nothing of what built the bundle."""

import json
import subprocess
import sys

import torch
from safetensors.torch import save_file

from tests.compiler.denoisers import sv4d
from tests.runtime.bundle.conftest import LEVELS
from turbo4d import load, session

FORBIDDEN = [
    "onnx", "torch._dynamo", "torch._inductor", "turbo4d.compiler", "turbo4d.models",
    "turbo4d.passes", "turbo4d.tools",
]  # fmt: skip
_SERVE = f"""
import json, sys
import turbo4d
from safetensors.torch import load_file, save_file
folder, given, frames, out = sys.argv[1:]
denoiser = turbo4d.load(folder)
call, levels = {{**load_file(given), "num_video_frames": int(frames)}}, {LEVELS!r}
with turbo4d.session(denoiser, levels=levels) as run:
    for step in range(len(levels)):
        run.step(step)
        result = denoiser(**call)
save_file({{"result": result}}, out)
loaded = [name for name in {FORBIDDEN!r} if name in sys.modules]
print(json.dumps([loaded, run.report()["events"], run.report()["calls_by_variant"]]))
"""


def test_a_whole_run_loads_neither_the_compiler_nor_dynamo(real_bundle, tmp_path):
    _, call = sv4d("mini")
    frames = call.pop("num_video_frames")
    given = tmp_path / "call.safetensors"
    save_file(call, given)
    arguments = [str(each) for each in (real_bundle, given, frames, tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", _SERVE, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    loaded, events, calls = json.loads(done.stdout)
    assert loaded == []
    assert events == []
    assert calls["prologue"] == 1
    assert sum(calls.values()) == len(LEVELS) + 1
    assert len(calls) > 2


def test_a_computed_step_is_the_modules(real_bundle):
    model, call = sv4d("mini")
    denoiser = load(real_bundle)
    with session(denoiser, levels=LEVELS) as run, torch.no_grad():
        run.step(0)
        torch.testing.assert_close(denoiser(**call), model(**call), rtol=1e-4, atol=1e-4)

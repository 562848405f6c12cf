"""Target aot-inductor: a package that computes what the graph does, and does not run unasked."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from turbo4d.compiler.bundle.targets import BuildRequest, Built, target_of
from turbo4d.compiler.errors import LowerError
from turbo4d.compiler.lower.compat import inductor_lacks, without_input_checks
from turbo4d.runtime.bundle.manifest import TensorRow, WeightRow
from turbo4d.runtime.engines.aot_inductor import AotInductorSession, code_for, why_not_here
from turbo4d.runtime.errors import EngineError, OptionError

LACKING = inductor_lacks(torch.device("cpu"))


class Small(nn.Module):
    """A step of a few operators: a weight, an input, a slot."""

    def forward(self, w_linear: Tensor, i_x: Tensor, slot_mid: Tensor) -> tuple[Tensor, Tensor]:
        y = F.linear(i_x, w_linear)
        return F.gelu(y) + slot_mid, y


def request(folder: Path) -> BuildRequest:
    generator = torch.Generator().manual_seed(0)
    weight, x, slot = (torch.randn(s, generator=generator) for s in ((8, 8), (4, 8), (4, 8)))
    module = fx.symbolic_trace(Small())
    for node, value in zip(
        module.graph.find_nodes(op="placeholder"), (weight, x, slot), strict=True
    ):
        node.meta["val"] = value
    takes = (
        TensorRow("i_x", "input", "x", (4, 8), "float32"),
        TensorRow("slot_mid", "slot", "mid", (4, 8), "float32"),
    )
    gives = (
        TensorRow("output_0", "output", "0", (4, 8), "float32"),
        TensorRow("new_slot_mid", "slot", "mid", (4, 8), "float32"),
    )
    return BuildRequest(
        name="compute",
        graph=folder / "none.onnx",
        weights=folder / "none.bin",
        held={"w_linear": WeightRow("linear.weight", 0, 256, (8, 8), "float32")},
        takes=takes,
        gives=gives,
        module=module,
        values={"w_linear": weight},
        given=[x, slot],
        wanted=[Small()(weight, x, slot)[0], None],  # as of a slot that a variant does not write
        scratch=folder,
        flops=0,
        say=lambda text: None,
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[BuildRequest, Built]:
    if LACKING is not None:
        pytest.skip(LACKING)
    asked = request(tmp_path_factory.mktemp("package"))
    return asked, target_of("aot-inductor").build(asked)


def test_a_package_computes_what_the_graph_does(built: tuple[BuildRequest, Built]) -> None:
    asked, made = built
    assert made.executed
    assert made.error is not None
    assert made.error < 1e-6
    assert [(row.kind, row.source) for row in made.takes] == [
        ("weight", "linear.weight"),
        ("input", "x"),
        ("slot", "mid"),
    ]
    assert made.gives == asked.gives
    assert made.engine is not None
    session = AotInductorSession(made.engine, "cpu")
    given = [asked.values["w_linear"], *(2 * value for value in asked.given)]
    for got, want in zip(session(given), Small()(*given), strict=True):
        torch.testing.assert_close(got, want)
    with pytest.raises(EngineError, match=r"^the package failed \("):
        session(given[:2])


def test_opening_loads_no_compiler(built: tuple[BuildRequest, Built]) -> None:
    code = (
        "import sys, torch\n"
        "from turbo4d.runtime.engines.aot_inductor import AotInductorSession\n"
        "run = AotInductorSession(sys.argv[1], 'cpu')\n"
        "run([torch.ones(8, 8), torch.ones(4, 8), torch.ones(4, 8)])\n"
        "bad = ('torch._dynamo', 'torch._inductor', 'turbo4d.compiler', 'turbo4d.passes')\n"
        "print([name for name in sys.modules if name.startswith(bad)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(built[1].engine)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == "[]\n"


def test_a_file_that_is_no_package_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "engine.pt2"
    path.write_bytes(b"no package")
    with pytest.raises(EngineError, match=r"^engine\.pt2 is no package that torch "):
        AotInductorSession(path, "cpu")


@pytest.mark.parametrize(
    ("settings", "made_with", "said"),
    [
        ({"code": code_for("cpu")}, {"torch": torch.__version__}, None),
        ({"code": code_for("cpu")}, {"torch": "2.0"}, "the package was built with torch 2.0, and"),
        ({"code": "z80"}, {"torch": torch.__version__}, "the package is code for z80, and this is"),
        ({}, {}, "the package was built with torch None"),
    ],
)
def test_code_for_another_machine_does_not_run(
    settings: dict[str, str], made_with: dict[str, str], said: str | None
) -> None:
    found = why_not_here(settings, made_with, "cpu")
    assert (found or "").startswith(said or "")
    assert (found is None) == (said is None)


@pytest.mark.skipif(torch.cuda.is_available(), reason="wants a machine without a GPU")
def test_without_a_gpu_it_builds_for_none() -> None:
    assert target_of("aot-inductor:cuda").reasons() == ("torch sees no CUDA device",)


def test_what_it_does_not_know_is_refused() -> None:
    with pytest.raises(OptionError, match="choose 'aot-inductor:cpu', 'aot-inductor:cuda'"):
        target_of("aot-inductor:tpu")
    with pytest.raises(OptionError, match="target 'aot-inductor' has no setting 'speed'"):
        target_of("aot-inductor", {"speed": "most"})


def test_a_graph_that_does_not_compile_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError("\nno such operator\nmore")

    monkeypatch.setattr("turbo4d.compiler.bundle.aot_inductor.compile_ahead", failing)
    asked = dataclasses.replace(request(tmp_path), name="core.reuse")
    with pytest.raises(
        LowerError, match=r"^Inductor cannot compile 'core\.reuse': no such operator;"
    ):
        target_of("aot-inductor").build(asked)


def test_a_package_holds_no_checks_of_its_weights(built: tuple[BuildRequest, Built]) -> None:
    assert built[1].engine is not None
    with zipfile.ZipFile(built[1].engine) as package:
        [code] = [package.read(name).decode() for name in package.namelist()
                  if name.endswith(".wrapper.cpp")]  # fmt: skip
    assert "run_impl" in code
    assert "check_input_0" not in code
    assert "unmatched dtype" not in code


def test_the_builder_is_left_as_it_was() -> None:
    pytest.importorskip("torch._inductor.codegen.cpp_wrapper_cpu")
    from torch._inductor.codegen.cpp_wrapper_cpu import CppWrapperCpu

    before = CppWrapperCpu.generate_input_output_runtime_checks
    with without_input_checks():
        assert CppWrapperCpu.generate_input_output_runtime_checks is not before
    assert CppWrapperCpu.generate_input_output_runtime_checks is before

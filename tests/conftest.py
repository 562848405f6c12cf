"""What every test shares: which of them need a device, how hypothesis runs, a clean Dynamo."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

GPU_TESTS = Path(__file__).parent / "gpu"

# No deadline: the first call of a torch operator is slow. In CI the same examples at every run.
hypothesis.settings.register_profile("turbo4d", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("turbo4d")
# A test traces what it compiles, whatever an earlier run left on this machine.
os.environ["TURBO4D_GRAPH_STORE"] = "0"


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    """Nothing is compiled before or stays compiled after; no gradients."""
    import torch

    torch._dynamo.reset()
    with torch.no_grad():
        yield
    torch._dynamo.reset()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks all of tests/gpu, and skips what is so marked where there is no CUDA device."""
    for item in items:
        if GPU_TESTS in item.path.parents:
            item.add_marker(pytest.mark.gpu)
    need_gpu = [item for item in items if item.get_closest_marker("gpu")]
    if not need_gpu:
        return
    import torch

    if not torch.cuda.is_available():
        for item in need_gpu:
            item.add_marker(pytest.mark.skip(reason=f"{item.name} needs a CUDA device"))

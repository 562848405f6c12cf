# pyright: reportPrivateUsage=false
"""What the runtime uses of torch that torch calls private, with what it relies on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor


def versions_of(tensors: Sequence[Tensor]) -> list[int | None]:
    """How often each tensor was written to; None for one that was made under inference mode.

    Relies on `Tensor._version`, the count behind autograd's check of in-place writes, which raises
    for a tensor of inference mode. A write through `tensor.data` is not counted.
    """
    try:
        return [tensor._version for tensor in tensors]
    except RuntimeError:
        return [None if tensor.is_inference() else tensor._version for tensor in tensors]


def open_package(path: str, device_index: int) -> Callable[[list[Tensor]], Sequence[Tensor]]:
    """What a package of AOTInductor computes, as a function of its flat inputs.

    Relies on `AOTIModelPackageLoader`: it unpacks the file and loads the library inside, and
    imports nothing. The name is the one that `aoti_compile_and_package` gives.

    Args:
        path: of the package; its code runs in this process.
        device_index: of the GPU, -1 for the CPU.
    """
    from torch._C._aoti import AOTIModelPackageLoader

    return AOTIModelPackageLoader(path, "model", False, 1, device_index).run

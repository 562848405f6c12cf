# pyright: reportPrivateUsage=false
"""Everything private of Dynamo's graphs and frames that the compiler uses, with what it relies on.

Written against torch 2.13.
"""

from __future__ import annotations

import inspect
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from torch import _refs, fx
from torch._dynamo.exc import ShortenTraceback
from torch._dynamo.symbolic_convert import InstructionTranslator
from torch._subclasses.fake_tensor import FakeTensor

_TORCH_ITSELF: Any = torch
_FUNCTIONS = ("sqrt", "log", "log2", "exp", "sin", "cos", "tan", "tanh", "atan")
_TORCH = str(Path(torch.__file__).parent) + os.sep


def is_python_float(node: fx.Node) -> bool:
    """Whether a placeholder of Dynamo's graph holds a float of the caller's, as a tensor.

    Relies on `meta["grapharg"].pass_arg_as_tensor`, which Dynamo sets for floats that it was not
    told to take for constants.
    """
    return bool(getattr(node.meta.get("grapharg"), "pass_arg_as_tensor", False))


def number_like(example_inputs: Sequence[Any], dtype: torch.dtype) -> torch.Tensor:
    """A tensor without axes or data, of the mode that a graph's other arguments are of."""
    modes = [value.fake_mode for value in example_inputs if isinstance(value, FakeTensor)]
    with modes[0] if modes else nullcontext():
        return torch.empty((), dtype=dtype)


def tensor_function_of(target: Any) -> Callable[..., Any] | None:
    """What of torch computes on tensors what a function computes on Dynamo's numbers.

    Relies on the names of `torch.sym_sqrt` and its kin, and on `torch.sym_float`.
    """
    if target is _TORCH_ITSELF.sym_float:
        return torch.Tensor.double
    name = str(getattr(target, "__name__", ""))
    plain = name.removeprefix("_sym_")
    homes = (math, torch)
    known = plain in _FUNCTIONS and any(getattr(home, name, None) is target for home in homes)
    return getattr(torch, plain) if known else None


def makes_tensor(target: object) -> bool:
    """Whether a node's target is torch.tensor, or what Dynamo puts in its place for its numbers."""
    its, replacement = _TORCH_ITSELF, cast("Any", _refs).tensor
    return target in (its.tensor, its.as_tensor, its.scalar_tensor, replacement)


def is_checkpoint(target: object) -> bool:
    """Whether a node's target is Dynamo's call of torch.utils.checkpoint."""
    return target is torch.ops.higher_order.tag_activation_checkpoint


def marked_open(tensor: torch.Tensor) -> tuple[int, ...]:
    """Axes of a tensor whose size Dynamo was told to leave open.

    Relies on the attributes that `mark_dynamic` and `mark_unbacked` set.
    """
    names = ("_dynamo_dynamic_indices", "_dynamo_unbacked_indices")
    return tuple(sorted({axis for name in names for axis in getattr(tensor, name, ())}))


def source_of(node: fx.Node) -> str | None:
    """Where Dynamo read a placeholder from, as a Python expression; None for a foreign graph.

    Relies on `meta["grapharg"].source.name`: a property in 2.13, a method before.
    """
    argument = node.meta.get("grapharg")
    source = getattr(argument, "source", None)
    if source is None:
        return None
    name: Any = source.name
    return str(name()) if callable(name) else name


def module_of(node: fx.Node) -> str | None:
    """The path of the module whose forward made a traced call; None where the trace has no say.

    Relies on `meta["nn_module_stack"]`, outermost first: the last entry's path is Dynamo's
    expression (`L['self'].down[0].norm`) or torch.export's dotted name.
    """
    stack: Mapping[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    if not stack:
        return None
    path = str([*stack.values()][-1][0])
    named = re.sub(r"\._modules\['([^']*)'\]|\[['\"]?([^]'\"]*)['\"]?\]", r".\1\2", path)
    return re.sub(r"^L?\.?(self|fn)\b\.?", "", named).strip(".") or None


def compiling_module() -> torch.nn.Module | None:
    """Inside a torch.compile backend, the module being compiled, where Dynamo shows it.

    Relies on the current translator's frame: the module is its only local that is one (`self`, or
    `fn` of Dynamo's own wrapper), or the first of the `args` of a decorator around forward.
    """
    try:
        translator: Any = InstructionTranslator.current_tx()
    except AttributeError:
        return None
    held: Mapping[str, Any] = getattr(translator, "f_locals", {})
    first = tuple(held.get("args") or ())[:1]
    modules = [value for value in (*held.values(), *first) if isinstance(value, torch.nn.Module)]
    return modules[0] if len(modules) == 1 else None


@dataclass(frozen=True)
class Frame:
    """The frame whose graph Dynamo hands to a backend.

    Args:
        name: of its function, as the user wrote it.
        line: at which the graph begins, where that is not the function's first; else None.
        inner: whether a frame of the same compiled call stands around it.
        broken: whether the graph ends where Dynamo could not go on.
    """

    name: str
    line: int | None
    inner: bool
    broken: bool


def compiling_frame() -> Frame | None:
    """Inside a torch.compile backend, the frame being compiled; None elsewhere.

    Relies on the names of resumed functions, `torch_dynamo_resume_in_<function>_at_<line>`; on
    `compile_subgraph_reason.graph_break`; and on `compile_wrapper` being the frame that calls what
    is compiled, with nothing but torch's own frames between where that is the outermost.
    """
    try:
        translator: Any = InstructionTranslator.current_tx()
    except AttributeError:
        return None
    name = str(translator.f_code.co_name)
    resumed = re.fullmatch(r"torch_dynamo_resume_in_(.*)_at_(\d+)", name)
    reason = getattr(translator.output, "compile_subgraph_reason", None)
    return Frame(
        name=resumed[1] if resumed else name,
        line=int(resumed[2]) if resumed else None,
        inner=_stands_within(inspect.currentframe()),
        broken=bool(reason is not None and reason.graph_break),
    )


def _stands_within(frame: FrameType | None) -> bool:
    between: bool | None = None  # None below Dynamo's own frames
    while frame is not None:
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if file.endswith("_dynamo/convert_frame.py"):
            between = False
        elif name == "compile_wrapper" and file.endswith("_dynamo/eval_frame.py"):
            return bool(between)
        elif between is not None and not file.startswith(_TORCH):
            between = True
        frame = frame.f_back
    return False


def through_dynamo(error: Exception, frame: FrameType | None) -> Exception:
    """The same error, of a type that torch.compile lets pass instead of wrapping it.

    An exception of a backend reaches the caller as `BackendCompilerFailed`, ours only in its text.
    What is also a `ShortenTraceback` passes as it is, its traceback cut down to `frame` and below;
    so `except NoSitesError` works around a compiled call.

    Relies on `OutputGraph.call_user_compiler` and `_convert_frame` re-raising `ShortenTraceback`.
    """
    kind = type(error)
    bases: Any = (kind, ShortenTraceback)
    both: Any = type(kind.__name__, bases, {"__module__": kind.__module__})
    passing = both(*error.args, first_useful_frame=frame)
    for note in getattr(error, "__notes__", ()):
        passing.add_note(note)
    return passing

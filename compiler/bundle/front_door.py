"""front-door: `turbo4d.build` makes a bundle of a module, a plan and a target."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from turbo4d.compiler.compat import flatten_with_path
from turbo4d.compiler.lower.onnx_export import dtypes_of
from turbo4d.runtime.errors import BundleError, OptionError
from turbo4d.runtime.levels import LevelUnit, check_levels
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.plan_source import Schedule

from . import graphs
from .assembly import Assembly, Kept
from .build_report import BuildReport
from .fixed_shapes import refuse_open
from .folder_lock import FolderLock
from .memory import check_memory, memory_need
from .parts import take_apart
from .recording import Run
from .store_size import bound_bytes
from .targets import refuse_dtypes, refuse_unable, target_of
from .wanted import Form, Wanted
from .writer import BundleWriter, refuse_folder


def build(
    module: nn.Module,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    target: str,
    out: str | os.PathLike[str],
    plan: str | os.PathLike[str] | Plan = "balanced",
    levels: Sequence[float] | Tensor | None = None,
    level_unit: LevelUnit | None = None,
    geometry: Mapping[str, int | str] | None = None,
    invariant: Mapping[str, str | bool] | None = None,
    streams: Sequence[str] | Mapping[str, Collection[int] | None] | None = None,
    use: Collection[str] | None = None,
    max_cache_bytes: int | None = None,
    max_memory_bytes: int | None = None,
    form: Form = "variants",
    settings: Mapping[str, str] | None = None,
    dynamic_shapes: object = None,
    name: str = "",
    references: bool = True,
    run: Run | None = None,
    calibration: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Callable[[str], None] | None = None,
) -> BuildReport:
    """Build engines for every variant of a plan, as a bundle that `turbo4d.load` opens.

        turbo4d.build(unet, kwargs=call, plan="balanced", levels=sigmas,
                      target="onnxruntime", out="unet.turbo4d")

    The folder becomes a bundle at once, when all of it is there; until then an old bundle in it is
    what it was.

    Args:
        module: the denoiser, in eval mode.
        args: positional arguments of one call, whose shapes the bundle is for.
        kwargs: keyword arguments of it.
        target: NAME or NAME:DEVICE; an unknown one is refused with those that there are.
        out: folder of the bundle.
        plan: a preset's name, a plan or its file.
        levels: noise level of each step, falling; a preset needs them.
        level_unit: of the levels, None to infer it.
        geometry: any of batch, views, frames, height, width; the rest is inferred.
        invariant: for an input, the channels that stay the same during a run, such as "4:8", or
            whether the whole of it does.
        streams: that a preset is planned for: names, or for each name the steps at which it runs.
        use: kinds of regions that a preset may reuse.
        max_cache_bytes: bound on all slots together.
        max_memory_bytes: of the device: more than running the bundle takes, or nothing is built.
        form: "variants" for an engine each, "conditional" for one that flags tell what to skip,
            whose slots hold whole residuals where a variant's hold what is behind a gate.
        settings: of the target.
        dynamic_shapes: refused: a bundle is for the shapes of this call.
        name: what people call the model.
        references: whether what plain torch gives is recorded, so that engines can be held against
            it, now and by `turbo4d verify`.
        run: samples once with what it is given in the module's place, so that what is recorded is
            of a real run; None for the same call at each step.
        calibration: report of the calibration that found the plan, kept in the bundle.
        force: whether a bundle that is there is replaced.
        progress: told a line at each change.

    Raises:
        OptionError: an unknown target, device or setting, open sizes, an option that matches
            nothing, or a bound of the engine store that is none.
        BundleError: the folder holds something else, is being built in, or cannot be written.
        CaptureError: a forward that is no pure graph.
        PlanError: a plan that does not fit the model.
        MemoryPlanError: more memory is needed than there is.
        LowerError: the target cannot be built here, or does not take an operator.
    """
    say = progress or _unsaid
    _refuse_no_module(module)
    builder = target_of(target, settings)
    refuse_open(target, module, args, kwargs, dynamic_shapes)
    bound_bytes()
    if levels is not None:  # before the capture, which may take minutes
        schedule = Schedule.of(levels, level_unit)
        check_levels(schedule.levels, schedule.unit)
    refuse_unable(builder, graphs.reasons())
    wanted = Wanted(
        plan, levels, level_unit, geometry, invariant, streams, use, max_cache_bytes, form
    )
    kept = Kept(name, references, run, _text(calibration))
    folder = Path(out)
    refuse_folder(folder, force=force)
    made = _made(folder)
    try:
        with FolderLock(folder):
            refuse_folder(folder, force=force)
            _refuse_meta(module)
            refuse_dtypes(builder, _dtypes(module, args, kwargs))
            say("capturing the module")
            parts = take_apart(module, args, kwargs, wanted)
            refuse_dtypes(
                builder, {each for part in parts.graphs for each in dtypes_of(part.module)}
            )
            need = memory_need(parts)
            check_memory(need, max_memory_bytes, parts.plan.name)
            with BundleWriter(folder) as writer:
                assembly = Assembly(module, args, dict(kwargs or {}), parts, builder, kept, say)
                return assembly.build(writer, need, folder)
    finally:
        for path in made:  # those that hold nothing, where the build came to nothing
            if not any(path.iterdir()):
                path.rmdir()


def _unsaid(text: str) -> None:
    """What progress is told where nobody listens."""


def _made(folder: Path) -> list[Path]:
    """Makes a folder; gives those that were not there, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BundleError(
            f"bundle {str(folder)!r} cannot be made: {error.strerror}; name another folder."
        ) from error
    return missing


def _text(calibration: str | os.PathLike[str] | None) -> str | None:
    """The report of a calibration, read before any work is done."""
    if calibration is None:
        return None
    try:
        return Path(calibration).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(
            f"calibration {os.fspath(calibration)!r} cannot be read ({error}); name the report "
            "that `turbo4d calibrate` wrote."
        ) from error


def _dtypes(
    module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any] | None
) -> set[torch.dtype]:
    """Of a module's weights and a call's tensors."""
    given = [leaf for _, leaf in flatten_with_path((list(args), dict(kwargs or {})))]
    held = (*module.state_dict().values(), *given)
    return {value.dtype for value in held if isinstance(value, Tensor)}


def _refuse_no_module(given: object) -> None:
    if not isinstance(given, nn.Module):
        raise OptionError(f"module is a {type(given).__name__}; wanted an nn.Module in eval mode.")


def _refuse_meta(module: nn.Module) -> None:
    for name, value in module.state_dict().items():
        if value.is_meta:
            raise OptionError(
                f"weight {name!r} is on the device 'meta' and has no values; a bundle holds the "
                "weights. Load them first."
            )

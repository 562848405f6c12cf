"""assembly: the work of a build, in order: weights, graphs, what is recorded, engines, manifest."""

from __future__ import annotations

import inspect
import resource
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from turbo4d.compiler.compat import unflattened
from turbo4d.passes.base import returned
from turbo4d.runtime.bundle.dtypes import name_of
from turbo4d.runtime.bundle.manifest import EngineRow, Manifest, Target, WeightRow
from turbo4d.runtime.bundle.manifest_file import to_json
from turbo4d.runtime.bundle.recorded_call import form_of_call

from .build_report import BuildReport, EngineReport
from .example import example_of
from .graphs import SUFFIX, write_part
from .memory import MemoryNeed
from .part import PROLOGUE, Part
from .parts import Parts
from .recording import Run, record
from .reference import STEM, Reference, reference_bytes
from .store import EngineStore, key_of, store_folder
from .targets import BuildRequest, Built, CompletingTarget, TargetBuilder
from .wanted import notes_on
from .weights_file import write_weights
from .writer import BundleWriter


@dataclass(frozen=True)
class Kept:
    """What a bundle holds besides its engines.

    Args:
        name: what people call the model.
        references: whether what plain torch gives is recorded.
        run: what is recorded, None for the same call at each step.
        calibration: the report of the calibration that found the plan.
    """

    name: str = ""
    references: bool = True
    run: Run | None = None
    calibration: str | None = None


class Assembly:
    """One build, whose folder is locked.

    Args:
        module: that is built.
        args: positional arguments of its call.
        kwargs: keyword arguments of it.
        parts: of module and plan.
        target: that engines are for.
        kept: what else goes into the bundle.
        say: told what is being done.
    """

    def __init__(
        self,
        module: nn.Module,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        parts: Parts,
        target: TargetBuilder,
        kept: Kept,
        say: Callable[[str], None],
    ) -> None:
        self._module = module
        self._args = args
        self._kwargs = kwargs
        self._parts = parts
        self._target = target
        self._kept = kept
        self._say = say
        self._store = EngineStore(store_folder())
        self._seconds: dict[str, float] = {}
        self._notes = [*notes_on(parts.plan, parts.analysis)]

    def build(self, writer: BundleWriter, need: MemoryNeed, folder: Path) -> BuildReport:
        """Write everything; the folder is a bundle when this returns.

        Args:
            writer: of the folder.
            need: that was found, for the report.
            folder: of the bundle.
        """
        parts = self._parts
        with self._timed("weights"):
            weights, rows = writer.write(
                "weights", ".bin", lambda file: write_weights(parts.weights, file, self._say)
            )
        held = {row.name: row for row in rows}
        with self._timed("graphs"):
            graphs = {
                part.name: self._graph(writer, part, folder / weights, held)
                for part in parts.graphs
            }
        with self._timed("reference"):
            reference = self._record(writer)
        engines: list[EngineRow] = []
        reports: list[EngineReport] = []
        for at, part in enumerate(parts.graphs):
            request = self._request(
                part, folder / graphs[part.name], folder / weights, held, reference
            )
            place = f"engine {at + 1} of {len(parts.graphs)}"
            request = replace(request, say=partial(self._say_of, place))
            row, report = self._engine(writer, request)
            engines.append(row)
            reports.append(report)
        manifest = self._manifest(writer, engines, reports, weights, rows)
        self._say("writing the manifest")
        writer.finish(to_json(manifest))
        return BuildReport(
            path=folder,
            model=self._kept.name,
            plan=parts.plan.name,
            target=manifest.target,
            engines=tuple(reports),
            weights_bytes=writer.files[weights].size_bytes,
            files_bytes=sum(row.size_bytes for row in manifest.files.values()),
            need=need,
            peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            seconds=self._seconds,
            notes=tuple(self._notes),
        )

    def _say_of(self, place: str, text: str) -> None:
        self._say(f"{place}, {text}")

    def _graph(
        self, writer: BundleWriter, part: Part, weights: Path, held: Mapping[str, WeightRow]
    ) -> str:
        self._say(f"{part.name}: writing its graph")
        with writer.partial(part.name, SUFFIX) as path:
            write_part(part, path, weights, held, self._parts.weights)
        return writer.keep(path, part.name, SUFFIX)

    def _record(self, writer: BundleWriter) -> Reference | None:
        if not self._kept.references:
            return None
        self._say("recording what plain torch gives")
        parts = self._parts
        reference = record(
            self._module, parts.analysis, parts.plan, parts.made, parts.prologue, self._args,
            self._kwargs, self._kept.run,
        )  # fmt: skip
        writer.write(STEM, ".safetensors", lambda file: file.write(reference_bytes(reference)))
        return reference

    def _request(
        self,
        part: Part,
        graph: Path,
        weights: Path,
        held: Mapping[str, WeightRow],
        reference: Reference | None,
    ) -> BuildRequest:
        given, wanted = example_of(part, self._parts.variants, reference)
        return BuildRequest(
            name=part.name,
            graph=graph,
            weights=weights,
            held={placeholder: held[name] for placeholder, name in part.held.items()},
            takes=part.takes,
            gives=part.gives,
            module=part.module,
            values={
                placeholder: self._parts.weights[name] for placeholder, name in part.held.items()
            },
            given=given,
            wanted=wanted,
            scratch=Path(),
            flops=part.flops,
            say=self._say,
        )

    def _engine(
        self, writer: BundleWriter, request: BuildRequest
    ) -> tuple[EngineRow, EngineReport]:
        request.say(f"{request.name}: building for {self._target.name}")
        start_s, name = time.perf_counter(), ""
        with writer.scratch() as scratch:
            built, stored = self._built(replace(request, scratch=scratch))
            if built.engine is not None:
                name = writer.keep(built.engine, request.name, self._target.suffix)
        seconds = time.perf_counter() - start_s
        size = {path: row.size_bytes for path, row in writer.files.items()}
        graph = request.graph.name
        keeps = self._target.keeps_graphs or built.engine is None
        if not keeps:
            writer.leave_out(graph)
        row = EngineRow(
            request.name, built.takes, built.gives, graph if keeps else "", name, request.flops
        )
        report = EngineReport(
            request.name, size[graph], size.get(name, 0), request.flops, seconds, built.executed,
            stored, built.layers, built.error, built.facts,
        )  # fmt: skip
        return row, report

    def _built(self, request: BuildRequest) -> tuple[Built, bool]:
        """An engine, and whether it came from the store."""
        key = key_of(request.graph, self._target, _versions())
        found = self._store.take(key, request, self._target.suffix)
        if found is not None:
            return found, True
        built = self._target.build(request)
        try:
            self._store.put(key, request, built)
        except OSError as error:
            said = f"the engine store cannot be written ({error.strerror}); engines are not kept."
            if said not in self._notes:
                self._notes.append(said)
        return built, False

    def _manifest(
        self,
        writer: BundleWriter,
        engines: Sequence[EngineRow],
        reports: Sequence[EngineReport],
        weights: str,
        rows: Sequence[WeightRow],
    ) -> Manifest:
        parts, target = self._parts, self._target
        plan = _text(writer, "plan", parts.plan.to_json())
        if self._kept.calibration is not None:
            _text(writer, "calibration", self._kept.calibration)
        manifest = Manifest(
            model=self._kept.name,
            signature=parts.signature,
            call=self._call(),
            dtype=name_of(parts.dtype),
            target=Target(
                target.name,
                target.device,
                all(each.executed for each in reports),
                dict(target.settings()),
            ),
            plan=plan,
            variants=parts.variants,
            engines=tuple(engines),
            prologue=None if parts.prologue is None else PROLOGUE,
            weights_file=weights,
            weights=tuple(rows),
            files=dict(writer.files),
            made_with={**_versions(), **target.versions()},
            built_in_s={each.name: round(each.seconds, 3) for each in reports},
        )
        if isinstance(target, CompletingTarget):
            for name, data in target.further_files(manifest).items():
                writer.put(name, data)
            manifest = replace(manifest, files=dict(writer.files))
        return manifest

    def _call(self) -> dict[str, object]:
        capture = self._parts.analysis.capture
        outputs: list[Tensor] = [node.meta["val"] for node in returned(capture.module.graph)]
        return form_of_call(
            inspect.signature(self._module.forward).parameters,
            self._args,
            self._kwargs,
            capture.input_paths,
            self._parts.signature.names,
            unflattened(capture.out_spec, outputs, capture.out_literals),
        )

    @contextmanager
    def _timed(self, name: str) -> Generator[None]:
        start_s = time.perf_counter()
        yield
        self._seconds[name] = round(time.perf_counter() - start_s, 3)


def _text(writer: BundleWriter, stem: str, text: str) -> str:
    return writer.write(stem, ".json", lambda file: file.write(text.encode()))[0]


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("turbo4d", "torch", "onnx")}

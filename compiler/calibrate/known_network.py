"""A network under torch.compile, whose calls go where they are told, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from turbo4d.compiler.analysis import Analysis
from turbo4d.compiler.backend import CompiledDenoiser, build_engine
from turbo4d.compiler.backend import turbo4d as backend
from turbo4d.compiler.errors import CalibrationError
from turbo4d.compiler.lower import get_lowering
from turbo4d.runtime.engine import Engine
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.region_info import RegionInfo
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.variant_key import VariantKey
from turbo4d.runtime.weights_digest import weights_digest

Route = Callable[[str, int, Sequence[Tensor]], Sequence[Tensor]]


class KnownNetwork:
    """A network of one geometry, compiled at its first call.

    Args:
        network: the denoiser, in eval mode.
        options: of the backend.
    """

    def __init__(self, network: nn.Module, options: Mapping[str, Any]) -> None:
        self._network = network
        self._options = options
        self._compiled: list[CompiledDenoiser] = []
        self._runner: Runner | None = None
        self._fast: Callable[..., Any] = cast("Any", torch).compile(
            network, backend=self._backend, fullgraph=True, dynamic=False
        )
        self._route: Route | None = None
        self._now: tuple[str, int] = ("main", 0)

    @property
    def analysis(self) -> Analysis:
        """Of the network."""
        if not self._compiled or self._compiled[0].analysis is None:
            raise CalibrationError("calibration: the network is not known yet; call learn first.")
        return self._compiled[0].analysis

    @property
    def regions(self) -> tuple[RegionInfo, ...]:
        """Of the network."""
        return self._known().signature.regions

    @property
    def model(self) -> str:
        """Fingerprint of the captured graph."""
        return self._known().signature.model

    @property
    def geometry(self) -> Geometry:
        """What the network was captured for."""
        return self._known().signature.geometry

    @cached_property
    def weights_sha256(self) -> str:
        """Digest of the weights that the network computes with."""
        # Buffers that no checkpoint keeps are computed with as well.
        held = {**self._network.state_dict(), **dict(self._network.named_buffers())}
        used = [row.target for row in self.analysis.capture.table if row.kind == "weight"]
        return weights_digest((name, held[name]) for name in used)

    def sample_of(self, args: Sequence[Tensor]) -> Tensor:
        """The sample among all flat arguments."""
        return args[self._known().signature.sample]

    def sample_in(self, inputs: Sequence[Tensor]) -> Tensor:
        """The sample among a recording's inputs."""
        signature = self._known().signature
        return inputs[signature.sample - signature.kinds.index("input")]

    @property
    def constant_channels(self) -> Sequence[tuple[int, int]]:
        """Channels [start, stop) of the sample that are declared not to change."""
        signature = self._known().signature
        return signature.invariant.get(signature.sample, ())

    def _backend(self, gm: torch.fx.GraphModule, inputs: Sequence[Any]) -> CompiledDenoiser:
        built = backend(gm, inputs, options=self._options)
        if not isinstance(built, CompiledDenoiser) or not isinstance(built.call, Runner):
            raise CalibrationError("calibration: the network has no regions that a plan can name.")
        runner = built.call
        self._runner = self._runner or runner
        self._compiled.append(built)
        built.call = partial(self._called, runner)
        return built

    def _called(self, runner: Runner, *args: Tensor) -> Sequence[Tensor]:
        known = self._known()
        if runner.signature != known.signature:
            raise CalibrationError(
                f"calibration: an example is of geometry {runner.signature.geometry}; the first "
                f"was of {known.signature.geometry}. Calibrate each geometry by itself."
            )
        if self._route is not None:
            return self._route(*self._now, args)
        return known(*args)

    def _known(self) -> Runner:
        if self._runner is None:
            raise CalibrationError("calibration: the network is not known yet; call learn first.")
        return self._runner

    def _plain(self, args: Sequence[Tensor]) -> Sequence[Tensor]:
        return self._uncached(args, (), ())[0]

    @cached_property
    def _uncached(self) -> Engine:
        return build_engine(self.analysis, get_lowering("eager"), VariantKey((), (), exact=False))

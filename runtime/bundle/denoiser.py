"""A loaded bundle: called like the module that it was built from."""

from __future__ import annotations

import threading
from typing import Any

from turbo4d.runtime.conditional_engine import ConditionalEngine, SharedEngine
from turbo4d.runtime.engine import Engine, Prologue
from turbo4d.runtime.errors import BundleError
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.prebuilt import Prebuilt
from turbo4d.runtime.report import Report
from turbo4d.runtime.runner import Runner
from turbo4d.runtime.variant_key import VariantKey

from .bound_engine import BoundEngine, BoundPrologue, shared_engine
from .bundle_files import Bundle
from .call_form import flatten, read_call, unflatten
from .ladder import Ladder
from .manifest import EngineRow, Manifest


class BundleDenoiser:
    """The denoiser of a bundle; `turbo4d.session` takes it, and it runs without one too.

    Engines are opened where a run first needs them: those of a stream before its first step.

    Args:
        bundle: whose files have been checked.
        plan: of it.
        ladder: opens its engines.

    Attributes:
        manifest: what the bundle says of itself.
        plan: that it was built for.
        runner: that carries it out.
    """

    def __init__(self, bundle: Bundle, plan: Plan, ladder: Ladder) -> None:
        self.manifest: Manifest = bundle.manifest
        self.plan = plan
        self._folder = bundle.folder
        self._ladder = ladder
        self._call = read_call(bundle.manifest.call)
        self._variants = {row.key: row for row in bundle.manifest.variants}
        self._engines = {row.name: row for row in bundle.manifest.engines}
        self._shared: dict[str, SharedEngine] = {}
        self._lock = threading.Lock()
        prologue = bundle.manifest.prologue
        self.runner = Runner(
            bundle.manifest.signature,
            self.engine,
            plan=plan,
            prologue=None if prologue is None else self.prologue,
            prebuilt=Prebuilt(plan.name, self._variants, lambda: ladder.notes),
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One call of the denoiser.

        Raises:
            CallError: a call of another form, shape, dtype or device than it was built for.
        """
        inputs = flatten(self._call, args, kwargs, self.device.partition(":")[0])
        return unflatten(self._call, self.runner(*inputs))

    @property
    def device(self) -> str:
        """Where its engines run, and where inputs must be."""
        return self._ladder.device

    def report(self) -> Report:
        """What ran in this thread outside sessions, as JSON takes it."""
        return self.runner.report()

    def open(self) -> None:
        """Opens every engine now, where a later step would else wait for one.

        Raises:
            BundleError: where one opens on no rung.
        """
        for row in self.manifest.engines:
            self._ladder.open(row)

    def __repr__(self) -> str:
        target, name = self.manifest.target, self.manifest.model or self.manifest.signature.model
        return (
            f"BundleDenoiser({str(self._folder)!r}, model {name!r}, plan {self.plan.name!r}, "
            f"target {target.name} on {target.device}, {len(self._variants)} variants, here on "
            f"{self.device})"
        )

    def engine(self, key: VariantKey) -> Engine:
        """What runs a variant, opened.

        Raises:
            BundleError: the bundle has no such variant, or its engine opens on no rung.
        """
        variant = self._variants.get(key)
        if variant is None:
            raise BundleError(
                f"{self._folder}: variant {key.name!r} is not in the bundle, which was built for "
                f"plan {self.plan.name!r}; leave adaptive off, or build one for a plan that has it."
            )
        row = self._engines[variant.engine]
        if any(each.kind == "flag" for each in row.takes):
            self._open_shared(row)
            return ConditionalEngine(
                key, variant.reads, variant.writes, lambda: self._shared[row.name]
            )
        names = self.manifest.signature.names
        return BoundEngine(variant, row, names, self._ladder.open(row))

    def _open_shared(self, row: EngineRow) -> None:
        with self._lock:
            if row.name not in self._shared:
                names = self.manifest.signature.names
                self._shared[row.name] = shared_engine(row, names, self._ladder.open(row))

    def prologue(self) -> Prologue:
        """What runs the prologue, opened.

        Raises:
            BundleError: its engine opens on no rung.
        """
        row = self._engines[str(self.manifest.prologue)]
        return BoundPrologue(row, self.manifest.signature.names, self._ladder.open(row))

"""A plan made ready to run on one stream: its engines, its slots, and what watches them."""

from __future__ import annotations

from collections.abc import Collection

from .adaptive import Bounds
from .cell import Cell
from .conditioning_watch import ConditioningWatch
from .constants import Constants
from .engine_shelf import CallCounts, EngineShelf
from .errors import OptionError
from .events import Events
from .finite_watch import FiniteWatch, Nonfinite
from .held_slots import held_slots
from .holding import Holding
from .lane import Lane
from .levels import log_sigma
from .plan import Plan
from .plan_check import PlanCheck
from .plan_source import PlanSource
from .policy import ANALYTIC
from .prologue_values import PrologueValues
from .steering import Steering
from .weights_digest import fitted_to_others


class Opening:
    """Opens the streams of one run.

    Args:
        source: of the plan.
        shelf: the denoiser's engines.
        counts: where calls are counted.
        events: where departures from the plan are noted.
        debug: whether what the run takes for constant is compared at every call.
        adaptive: bounds of a run that leaves the plan's rows; None where it keeps to them.
        nonfinite: what is done about slots that hold NaN or infinity.
        holding: how slots are held.
        watches_conditioning: whether a change of it during a run is looked for.

    Raises:
        OptionError: where slots are to wait on the host in an adaptive run.
    """

    def __init__(
        self,
        source: PlanSource,
        shelf: EngineShelf,
        counts: CallCounts,
        events: Events,
        *,
        debug: bool,
        adaptive: Bounds | None,
        nonfinite: Nonfinite,
        holding: Holding,
        watches_conditioning: bool,
    ) -> None:
        if holding.offload and adaptive is not None:
            raise OptionError(
                "offload and adaptive are both on; an adaptive run cannot tell what its next step "
                "reads. Leave one off."
            )
        self._source = source
        self._shelf = shelf
        self._counts = counts
        self._events = events
        self._debug = debug
        self._adaptive = adaptive
        self._nonfinite: Nonfinite = nonfinite
        self._holding = holding
        self._watches_conditioning = watches_conditioning

    def lane(self, stream: str, plan: Plan, check: PlanCheck, others_bytes: int) -> Lane:
        """A stream that has run no step yet.

        Args:
            stream: its name.
            plan: that has it.
            check: the plan's proof.
            others_bytes: what the slots of the run's other streams hold.
        """
        used = {name for key in check.keys[stream] if key is not None for name in key.reads}
        self._check_weights(plan)
        if plan.origin == ANALYTIC and not any(plan.rows(stream)):
            self._events.add_once(
                "nothing-reused",
                f"preset {plan.name!r} reuses nothing in {plan.steps} steps: too much of the run "
                "passes between one and the next. Take a preset that reuses more, or calibrate a "
                "plan.",
            )
        steering = None
        if self._adaptive is not None:
            steering = self._steering(plan, check, stream, self._adaptive)
            cells = steering.planned
        else:
            proof = check.keys, check.live, check.orders, check.fits
            cells = tuple(
                None if key is None else Cell(key.name, self._shelf.get(key), live, orders, fits)
                for key, live, orders, fits in zip(*(of[stream] for of in proof), strict=True)
            )
        slots, bounds = held_slots(plan, check, stream, steering, self._holding, others_bytes)
        return Lane(
            stream,
            cells,
            tuple(log_sigma(level, plan.level_unit) for level in plan.levels),
            tuple(sorted(used)),
            PrologueValues(self._shelf, self._counts),
            Constants(self._source.signature) if self._debug else None,
            slots,
            bounds,
            None if self._nonfinite == "ignore" else FiniteWatch(),
            self._conditioning_watch(plan, used),
            steering=steering,
        )

    def _conditioning_watch(self, plan: Plan, used: Collection[str]) -> ConditioningWatch | None:
        """Where something of a step outlives it."""
        holds = used or (plan.exact and self._shelf.has_prologue)
        if not holds or not self._watches_conditioning:
            return None
        return ConditioningWatch(self._source.signature)

    def _check_weights(self, plan: Plan) -> None:
        """Notes that a fitted plan is another network's; reads the weights, once for a denoiser."""
        digest = self._source.digest
        if digest is None:
            return
        if said := fitted_to_others(plan.name, plan.weights_sha256, digest):
            self._events.add_once("other-weights", said)

    def _steering(self, plan: Plan, check: PlanCheck, stream: str, bounds: Bounds) -> Steering:
        regions = self._source.signature.regions
        steering = Steering(plan, check, stream, regions, self._shelf.get, bounds)
        if steering.watched is None:
            self._events.add_once(
                "adaptive-blind",
                f"plan {plan.name!r} keeps no slot of the core, whose change would tell how this "
                "scene differs from a typical one; the run follows the plan.",
            )
        return steering

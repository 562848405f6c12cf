"""What a runner must know whose engines were built ahead: which there are, and for what plan."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from .errors import PlanError
from .events import Event
from .plan import Plan
from .variant_key import VariantKey


@dataclass(frozen=True)
class Prebuilt:
    """The engines of a bundle, beyond which none can be built.

    Args:
        plan: name of the plan that they were built for.
        variants: that there are.
        notes: what was opened otherwise than it was built, so far; each report begins with it.
    """

    plan: str
    variants: Collection[VariantKey]
    notes: Callable[[], Sequence[Event]] = tuple

    def check(self, plan: Plan, needed: Collection[VariantKey]) -> None:
        """Refuse a plan that needs other engines.

        Raises:
            PlanError: naming both plans.
        """
        if missing := [key.name for key in needed if key not in self.variants]:
            raise PlanError(
                f"plan {plan.name!r} needs {len(missing)} variants that the bundle of plan "
                f"{self.plan!r} does not hold, {missing[0]!r} first; build a bundle for it."
            )

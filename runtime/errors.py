"""What the runtime refuses, as exceptions whose text is the explanation."""

from __future__ import annotations


class Turbo4DError(Exception):
    """Anything turbo4d refuses; every error of the runtime and the compiler is one."""


class BundleError(Turbo4DError):
    """A bundle that is damaged, of a newer schema, or that cannot run here."""


class CallError(Turbo4DError):
    """A call of another form than the one that a bundle was built for."""


class OptionError(Turbo4DError):
    """An option that is unknown, of the wrong kind, or that matches nothing."""


class MemoryPlanError(Turbo4DError):
    """Slots that hold more than the plan's proof says: an engine gave larger ones."""


class PlanError(Turbo4DError):
    """A plan that contradicts itself, or was made for another model, geometry or schedule."""


class SessionError(Turbo4DError):
    """Calls that do not fit the session: steps out of order, a call without a step."""


class NonfiniteSlotError(SessionError):
    """A slot that holds NaN or infinity, in a session that was told to raise."""


class StaleSlotError(SessionError):
    """A slot that is older than the plan allows."""


class EngineError(Turbo4DError):
    """An engine that cannot be built, opened or run on this machine."""

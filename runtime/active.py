"""The sessions that are open in this context, which a denoiser's calls look for."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .session import Session

# A new thread starts without sessions, so two threads never share one by accident.
ACTIVE: ContextVar[tuple[Session, ...]] = ContextVar("turbo4d_sessions", default=())


def active_sessions() -> tuple[Session, ...]:
    """The sessions of this context, the innermost first."""
    return ACTIVE.get()

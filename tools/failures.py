"""How a command fails: its own exceptions, and the exit status of everyone else's."""

from __future__ import annotations

import sys

DONE, FAILED, WRONG_CALL = 0, 1, 2

# Where a known exception lives and what it means for the caller. Looked up among the modules
# already loaded: whoever raised it has imported its class, and `--help` must not import torch.
_KNOWN: tuple[tuple[str, str, int], ...] = (
    ("turbo4d.runtime.errors", "OptionError", WRONG_CALL),
    ("turbo4d.runtime.errors", "PlanError", WRONG_CALL),
    ("turbo4d.compiler.errors", "GeometryError", WRONG_CALL),
    ("turbo4d.models.errors", "CheckpointError", WRONG_CALL),
    ("turbo4d.models.errors", "ConditioningError", WRONG_CALL),
    ("turbo4d.models.errors", "ConfigError", WRONG_CALL),
    ("turbo4d.models.errors", "InputError", FAILED),
    ("turbo4d.runtime.errors", "Turbo4DError", FAILED),
    ("turbo4d.passes.base", "PassError", FAILED),
)


class CallError(Exception):
    """The call was wrong: exit status 2. The text is one sentence: got, wanted, what to do."""


class JobError(Exception):
    """The call was right and the job failed: exit status 1."""


def status_of(error: BaseException) -> int | None:
    """Exit status of an exception that has a clear sentence, None for one that nobody foresaw."""
    if isinstance(error, CallError):
        return WRONG_CALL
    if isinstance(error, JobError | OSError | KeyboardInterrupt):
        return FAILED
    for module, name, status in _KNOWN:
        kind = getattr(sys.modules.get(module), name, None)
        if kind is not None and isinstance(error, kind):
            return status
    return None


def foreseen(error: BaseException) -> BaseException | None:
    """The exception to report: `error`, or the foreseen one that torch.compile wrapped."""
    seen: BaseException | None = error
    while seen is not None and status_of(seen) is None:
        seen = getattr(seen, "inner_exception", None) or seen.__cause__
    return seen


def sentence(error: BaseException) -> str:
    """The one line that stderr gets."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; nothing was written."
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror.lower()}."
    return " ".join(str(error).split()) or type(error).__name__


def remedies(error: BaseException) -> list[str]:
    """The lines after the first: how to repeat the pass that failed, where one did."""
    notes: list[str] = getattr(error, "__notes__", [])
    return [note for note in notes if note.startswith(("repeat with: ", "set TURBO4D_DUMP="))]

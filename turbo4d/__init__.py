"""turbo4d: the front door. Public names only, each imported when it is first asked for.

`import turbo4d` loads neither torch nor any other part of turbo4d, so a serving process pays for
`turbo4d.runtime` alone and never for the compiler.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from turbo4d import models as models
    from turbo4d.compiler.bundle.front_door import build as build
    from turbo4d.compiler.calibrate.front_door import calibrate as calibrate
    from turbo4d.compiler.explain import explain as explain
    from turbo4d.runtime.bare_report import report as report
    from turbo4d.runtime.bundle.load import load as load
    from turbo4d.runtime.plan import Plan as Plan
    from turbo4d.runtime.session import session as session

    __version__: str

# Public name -> the module that defines it; `models` is itself a module.
_HOME = {
    "Plan": "turbo4d.runtime.plan",
    "build": "turbo4d.compiler.bundle.front_door",
    "calibrate": "turbo4d.compiler.calibrate.front_door",
    "explain": "turbo4d.compiler.explain",
    "load": "turbo4d.runtime.bundle.load",
    "models": "turbo4d",
    "report": "turbo4d.runtime.bare_report",
    "session": "turbo4d.runtime.session",
}

__all__ = [
    "Plan",
    "__version__",
    "build",
    "calibrate",
    "explain",
    "load",
    "models",
    "report",
    "session",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = version("turbo4d")
    elif name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    elif _HOME[name] == __name__:
        value = import_module(f"{__name__}.{name}")
    else:
        value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""What a command hands back to the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """The mapping that --json prints, the text that people read, and why the job failed if so."""

    data: Mapping[str, Any]
    text: str
    failure: str | None = None

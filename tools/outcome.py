"""What a command hands back to the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Outcome(NamedTuple):
    """The mapping that --json prints, and the text that people read."""

    data: Mapping[str, Any]
    text: str

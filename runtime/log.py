"""What is printed on stderr with TURBO4D_LOG: 0 nothing, 1 a summary, 2 each decision, 3 graphs.

At 1 there is a line for each engine that is built and each session that closes, at 2 also one for
each step and each event. The variable is read at each line, so it may be set at any time.
"""

from __future__ import annotations

import os
import sys

from .errors import OptionError

_LEVELS = ("0", "1", "2", "3")


def wants(level: int) -> bool:
    """Whether lines of this level are printed.

    Raises:
        OptionError: where TURBO4D_LOG is no level.
    """
    text = os.environ.get("TURBO4D_LOG", "")
    if not text:
        return False
    if text not in _LEVELS:
        raise OptionError(f"TURBO4D_LOG is {text!r}; wanted one of {', '.join(_LEVELS)}.")
    return level <= int(text)


def say(level: int, text: str) -> None:
    """Prints one line where lines of this level are wanted.

    Args:
        level: 1 to 3.
        text: a sentence.
    """
    if wants(level):
        print(f"turbo4d: {text}", file=sys.stderr, flush=True)

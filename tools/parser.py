"""argparse with errors of one sentence, and the nearest spelling of what was meant."""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from turbo4d.tools.failures import CallError

LARGEST = 2**63 - 1  # that torch takes for a seed or a size


class Parser(argparse.ArgumentParser):
    """A parser that raises CallError instead of printing its usage and leaving."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise CallError(f"{message}; see '{self.prog} --help'.")

    def refuse_unknown(self, words: Sequence[str]) -> None:
        """Raise CallError for words that no argument took.

        Args:
            words: what `parse_known_args` left over; empty is fine.
        """
        if not words:
            return
        if not words[0].startswith("-"):
            raise CallError(f"argument {words[0]!r} was not expected; see '{self.prog} --help'.")
        option = words[0].partition("=")[0]
        hint = did_you_mean(option, self._option_string_actions)
        raise CallError(f"option {option!r} is unknown{hint}; see '{self.prog} --help'.")


class PrintVersion(argparse.Action):
    """`--version`: looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        print(f"turbo4d {version('turbo4d')}")
        parser.exit()


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the nearest choice, or nothing where none is near."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def choose(what: str, word: str, choices: Sequence[str]) -> str:
    """`word` if it is one of the choices.

    Raises:
        CallError: it is not; names the choices, sorted, and the nearest.
    """
    if word in choices:
        return word
    listed = ", ".join(repr(choice) for choice in sorted(choices))
    raise CallError(f"{what} {word!r} is unknown{did_you_mean(word, choices)}; choose {listed}.")


def whole_number(least: int, most: int = LARGEST) -> Any:
    """An argparse type: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = most + 1 if text.isdecimal() else least - 1  # more digits than Python reads
        if not least <= value <= most:
            up = f" to {most}" if value > most else ""
            raise argparse.ArgumentTypeError(
                f"got {shortened(text)!r}, wanted a whole number from {least}{up}"
            )
        return value

    return parse


def shortened(text: str) -> str:
    """What was typed, as an error repeats it."""
    return text if len(text) <= 40 else f"{text[:40]}..."


def decibels(text: str) -> float:
    """An argparse type: a number of dB from 0."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"got {shortened(text)!r}, wanted a number of dB from 0")
    return value

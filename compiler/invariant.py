"""The option `invariant`: what of the inputs stays the same during a run, as declared."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

from turbo4d.passes.split_invariant_input import CHANNELS, complement
from turbo4d.runtime.errors import OptionError

from .ir import Capture
from .roles import Roles

Declared = Mapping[str, "str | bool"]


def declare(roles: Roles, capture: Capture, invariant: Declared | None) -> Roles:
    """Roles as found in the graph, corrected by what the caller knows.

    Args:
        roles: as found.
        capture: of the model.
        invariant: for an input, False where it changes at every step; True where it does not,
            though the graph could not tell it from a sample or a level; or the ranges of channels
            that do not ("4:8", or several: "0:2,4:8"), whereas all others do. Channels are the
            second axis of an input.

    Raises:
        OptionError: a name that is no input; a range that is malformed, outside the channels,
            empty or overlapping; nothing left that changes; False for what changes anyway, True for
            what does not or must.
    """
    targets = {row.target: index for index, row in enumerate(capture.table) if row.kind == "input"}
    channels = dict(roles.channels)
    conditioning = {*roles.conditioning}
    for name, given in (invariant or {}).items():
        if name not in targets:
            close = difflib.get_close_matches(name, targets, n=1)
            meant = f" Did you mean {close[0]!r}?" if close else ""
            known = ", ".join(map(repr, sorted(targets)))
            raise OptionError(
                f"option 'invariant' names {name!r}; the model's inputs are {known}.{meant}"
            )
        index = targets[name]
        if isinstance(given, bool):
            _check_flag(roles, index, name, given)
            (conditioning.add if given else conditioning.remove)(index)
            continue
        conditioning.discard(index)
        shape = capture.table[index].shape
        count = shape[CHANNELS] if len(shape) > CHANNELS else 0
        channels[index] = read_channels(name, given, count)
    return replace(roles, conditioning=tuple(sorted(conditioning)), channels=channels)


def _check_flag(roles: Roles, index: int, name: str, given: bool) -> None:
    if given == (index in roles.conditioning):
        now = "is taken to stay the same" if given else "changes at every step without that"
    elif given and index in (roles.sample, roles.level):
        now = "changes at every step"
    else:
        return
    what = {roles.sample: ", the sample", roles.level: ", the noise level"}.get(index, "")
    raise OptionError(
        f"option 'invariant' has {given} for {name!r}{what}, which {now}; leave it out."
    )


def read_channels(name: str, given: object, count: int) -> tuple[tuple[int, int], ...]:
    """Ranges of channels, in order.

    Args:
        name: of the input, for messages.
        given: "start:stop", several separated by commas.
        count: how many channels the input has; 0 where it has no axis of channels.

    Raises:
        OptionError: see `declare`.
    """
    said = f"option 'invariant' gives {name!r} as {given!r}"
    if not isinstance(given, str) or not re.fullmatch(r"\s*\d+:\d+\s*(,\s*\d+:\d+\s*)*", given):
        raise OptionError(
            f"{said}; wanted channels such as '4:8', or False for an input that changes at every "
            "step."
        )
    pairs = (part.split(":") for part in given.split(","))
    ranges = sorted((int(start), int(stop)) for start, stop in pairs)
    for start, stop in ranges:
        if not start < stop <= count:
            raise OptionError(f"{said}: {start}:{stop} is no range within its {count} channels.")
    for (start, stop), (after, end) in pairwise(ranges):
        if after < stop:
            raise OptionError(f"{said}: {start}:{stop} and {after}:{end} overlap.")
    if not complement(ranges, count):
        raise OptionError(
            f"{said}: that is all its {count} channels; an input that never changes is known as "
            "such without the option."
        )
    return tuple(ranges)

"""What the watches of a stream found, and what is done about it: dropped aloud, or an error."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .errors import NonfiniteSlotError, SessionError
from .events import Events
from .finite_watch import Nonfinite
from .lane import Lane


class Watches:
    """Looks at streams, and acts on what is found.

    Args:
        events: where departures from the plan are noted.
        strict: whether a departure is an error.
        nonfinite: what is done about slots that hold NaN or infinity.
    """

    def __init__(self, events: Events, strict: bool, nonfinite: Nonfinite) -> None:
        self._events = events
        self._strict = strict
        self._nonfinite: Nonfinite = nonfinite

    def look_at_slots(self, lane: Lane, step: int | None) -> None:
        """Drops the slots that turned out not to be finite, aloud.

        Args:
            lane: the stream.
            step: that comes next; None after the last, when a run that was told to raise waits for
                the device.

        Raises:
            NonfiniteSlotError: where a slot held NaN or infinity and the run was told to raise.
        """
        raises = self._nonfinite == "raise"
        if lane.watch is None or not (found := lane.watch.found(wait=step is None and raises)):
            return
        (name, at), *more = found
        others = f" and {len(more)} more" if more else ""
        message = (
            f"slot {name!r}{others} held NaN or infinity, written at step {at} of stream "
            f"{lane.name!r}"
        )
        if self._strict or raises:
            lane.drop()
            raise NonfiniteSlotError(f"{message}; the model gave them, or its input held them.")
        lane.slots.discard([name for name, at in found if at in lane.slots.steps(name)])
        self._events.add(
            "nonfinite-slot", f"{message}; it is computed anew.", step=step, stream=lane.name
        )

    def look_at_conditioning(self, lane: Lane, step: int, args: Sequence[Tensor]) -> None:
        """Drops what was computed under other conditioning, aloud.

        Args:
            lane: the stream.
            step: that comes next.
            args: all flat arguments, in the signature's order.

        Raises:
            SessionError: where it changed and the run is strict; in debug mode, where anything did
                that the run takes for constant.
        """
        if lane.constants is not None:
            lane.constants.refuse_change(args, step, lane.name)
        watch = lane.conditioning
        if watch is None:
            return
        watch.look(args, step)
        if (found := watch.found()) is None:
            return
        name, at = found
        said = f"conditioning {name!r} of stream {lane.name!r} changed at step {at}, within a run"
        lane.drop()
        if self._strict:
            raise SessionError(f"{said}; {_to_say(name)}, or leave strict off.")
        watch.look(args, step)
        late = "; the steps from there to this one had what was held of the old one"
        self._events.add(
            "new-conditioning",
            f"{said}{late if at < step else ''}; what was held was dropped. To say so, "
            f"{_to_say(name)}.",
            step=step,
            stream=lane.name,
        )


def _to_say(name: str) -> str:
    return (
        "call run.new_conditioning() before such a step, or compile with "
        f"invariant={{{name!r}: False}} where it changes at every step"
    )

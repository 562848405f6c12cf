"""geometry: how the flat image axis factors into guidance branches, frames and views.

What is given is trusted and checked against the graph; the rest follows from where the graph cuts
the axis. A choice that the graph leaves open is an error that names the candidates.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import SupportsIndex

from turbo4d.compiler.axes import AxisMap
from turbo4d.compiler.errors import GeometryError
from turbo4d.compiler.factors import Root
from turbo4d.compiler.ir import Capture
from turbo4d.compiler.roles import Roles
from turbo4d.runtime.geometry import Geometry

Given = Mapping[str, int | str]
NAMES = ("batch", "views", "frames", "height", "width")
ORDERS = ("BFV", "BVF")


@dataclass(frozen=True)
class Layout:
    """A geometry with the order of its image axis.

    Args:
        geometry: the sizes.
        order: the letters of the image axis, outermost first.
    """

    geometry: Geometry
    order: str

    def intervals(self, images: Root) -> dict[Root, tuple[tuple[str, int, int], ...]]:
        """Which part of an image's index each letter is, as `letters_of` wants it."""
        found: list[tuple[str, int, int]] = []
        inner = 1
        sizes = {"B": self.geometry.batch, "F": self.geometry.frames, "V": self.geometry.views}
        for letter in reversed(self.order):
            found.insert(0, (letter, inner, inner * sizes[letter]))
            inner *= sizes[letter]
        return {images: tuple(found)}


def resolve(capture: Capture, roles: Roles, axes: AxisMap, given: Given | None) -> Layout:
    """Settle the geometry of a capture.

    Args:
        capture: with the module's own hints.
        roles: of the inputs.
        axes: of the graph.
        given: sizes by name, and "order"; they win over the module's hints.

    Raises:
        GeometryError: an unknown name, sizes that the graph contradicts, or a choice it leaves
            open.
    """
    wanted = {**capture.hints, **(given or {})}
    order = wanted.pop("order", None)
    _check_names(wanted, order)
    for name, got in (("height", axes.height), ("width", axes.width)):
        if wanted.get(name, got) != got:
            raise GeometryError(f"geometry: {name} is {wanted[name]}; the sample has {got}.")
    found = [layout for layout in _candidates(axes, wanted) if order in (None, layout.order)]
    if not found:
        said = wanted if order is None else {**wanted, "order": order}
        raise GeometryError(_contradiction(capture, roles, axes, said))
    found = _plainest(_with_batch_of(capture, found), axes)
    sizes = dict.fromkeys(layout.geometry for layout in found)
    if len(sizes) > 1:
        raise GeometryError(_open_sizes(axes, sizes))
    if len(found) > 1:
        raise GeometryError(
            f"geometry: {axes.images.size} images of {found[0].geometry.frames} frames and "
            f"{found[0].geometry.views} views may lie in the order (batch, frames, views) or "
            "(batch, views, frames); the graph fits both. "
            'Say which with geometry={"order": "BFV"} or {"order": "BVF"}.'
        )
    return found[0]


def _check_names(wanted: Given, order: int | str | None) -> None:
    unknown = sorted(set(wanted) - set(NAMES))
    if unknown:
        choices = ", ".join(sorted((*NAMES, "order")))
        raise GeometryError(f"geometry: {unknown[0]!r} is unknown; choose from {choices}.")
    for name, size in wanted.items():
        if not isinstance(size, SupportsIndex) or operator.index(size) < 1:
            raise GeometryError(
                f"geometry: {name} is {size!r}; wanted a whole number of at least 1, or leave it "
                "out to have it inferred."
            )
    if order not in (None, *ORDERS):
        raise GeometryError(
            f"geometry: order is {order!r}; wanted {' or '.join(map(repr, ORDERS))}, the letters "
            "of the image axis, outermost first."
        )


def _candidates(axes: AxisMap, wanted: Given) -> list[Layout]:
    images = axes.images.size
    found: list[Layout] = []
    for batch in _choices(wanted, "batch", images):
        for views in _choices(wanted, "views", images // batch):
            rest = images // (batch * views)
            frames = axes.frames if axes.frames is not None else rest
            if wanted.get("frames", frames) != frames or batch * views * rest != images:
                continue
            if axes.frames is not None and rest != 1:
                continue
            geometry = Geometry(batch, views, frames, axes.height, axes.width)
            both = axes.frames is None and views > 1 and frames > 1
            layouts = (Layout(geometry, order) for order in ORDERS[: 1 + both])
            found += [layout for layout in layouts if _fits(layout, axes)]
    return found


def _fits(layout: Layout, axes: AxisMap) -> bool:
    """Whether the graph cuts between factors only, and attends to no other guidance branch."""
    apart = axes.images.size // layout.geometry.batch
    return axes.cuts <= _cuts(layout, axes) and all(end <= apart for _, end in axes.attended)


def _choices(wanted: Given, name: str, limit: int) -> Iterable[int]:
    if name in wanted:
        size = int(wanted[name])
        return (size,) if size > 0 and limit % size == 0 else ()
    return (size for size in range(1, limit + 1) if limit % size == 0)


def _cuts(layout: Layout, axes: AxisMap) -> frozenset[int]:
    """Where the graph may cut the image axis of a layout."""
    [intervals] = layout.intervals(axes.images).values()
    ends = (min(end, axes.images.size) for _, _, end in intervals)
    return frozenset(ends) - {1, axes.images.size}


def _with_batch_of(capture: Capture, found: list[Layout]) -> list[Layout]:
    """Every conditioning tensor has whole guidance branches."""
    leading = [row.shape[0] for row in capture.inputs if len(row.shape) > 1]
    fitting = [
        layout
        for layout in found
        if all(length % layout.geometry.batch == 0 or length == 1 for length in leading)
    ]
    return fitting or found


def _plainest(found: list[Layout], axes: AxisMap) -> list[Layout]:
    """The layouts with the fewest factors that nothing in the graph asks for."""

    def spare(layout: Layout) -> int:
        return len(_cuts(layout, axes) - axes.cuts)

    least = min(map(spare, found))
    found = [layout for layout in found if spare(layout) == least]
    # One axis beside the branches is a video's, not a set of views, unless someone says so.
    least_views = min(min(layout.geometry.views, 2) for layout in found)
    found = [layout for layout in found if min(layout.geometry.views, 2) == least_views]
    # Where the graph treats all images alike, each is a branch of its own.
    single = [layout for layout in found if layout.geometry.frames == 1]
    return single if not axes.cuts and single else found


def _open_sizes(axes: AxisMap, sizes: Iterable[Geometry]) -> str:
    listed = "; ".join(
        sorted(f"batch={g.batch}, frames={g.frames}, views={g.views}" for g in sizes)
    )
    return (
        f"geometry: the {axes.images.size} images of a call may be {listed}. "
        'Say which with geometry={"views": ..., "frames": ...}.'
    )


def _contradiction(capture: Capture, roles: Roles, axes: AxisMap, wanted: Given) -> str:
    said = ", ".join(f"{name}={size}" for name, size in sorted(wanted.items()))
    cuts = ", ".join(str(cut) for cut in sorted(axes.cuts, reverse=True))
    whose = f", whose axis the graph cuts at multiples of {cuts}" if cuts else ""
    return (
        f"geometry: {said or 'no factorisation'} does not fit the sample "
        f"{capture.table[roles.sample].target!r} of {axes.images.size} images{whose}. "
        "Correct the geometry option."
    )

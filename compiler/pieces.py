"""pieces: a forward that Dynamo could not trace whole comes as several graphs, one at a time.

A print, or a number read from a tensor, breaks the graph: the backend is called for what stands
before it, and again for what follows when that is first reached. Each piece with regions gets the
plan, on slots of its own; any other runs as it is, and an event says why.

What enters a later piece was computed by the earlier ones, so nothing of it is taken to stay the
same from step to step, and no number of it need be the level.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import fx
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.dynamo_compat import compiling_frame
from turbo4d.compiler.errors import CaptureError, NoSitesError
from turbo4d.compiler.ir import Capture
from turbo4d.compiler.roles import Roles, find_level, find_roles, numbers, reached

_IMAGE_RANKS = (5, 4, 3)  # with frames; images; tokens


@dataclass(frozen=True)
class Piece:
    """One of the graphs of a forward.

    Args:
        name: for a reader: the function, and the line where the piece begins.
        first: whether it begins where the forward does, so that its inputs are the call's.
    """

    name: str
    first: bool


def current_piece() -> Piece | None:
    """Inside a torch.compile backend, the piece that it is given; None for a whole forward."""
    frame = compiling_frame()
    if frame is None or not (frame.inner or frame.broken or frame.line is not None):
        return None
    name = frame.name if frame.line is None else f"{frame.name}, from line {frame.line}"
    return Piece(name, first=not frame.inner and frame.line is None)


def analyse_piece(
    capture: Capture,
    piece: Piece,
    geometry: Mapping[str, int | str] | None,
    use: Collection[str] | None = None,
    *,
    gates: bool = True,
) -> Analysis:
    """As `analyse`, for one graph of several.

    Args:
        capture: of the piece.
        piece: which it is.
        geometry: of the whole forward.
        use: kinds of region that a preset may use, None for any.
        gates: as of `analyse`.

    Raises:
        CaptureError: where the piece has no regions, or the main stream cannot be told.
        GeometryError: where its axes cannot be told, or contradict the geometry.
    """
    if not piece.first:
        # A later piece may begin at any level of a UNet: its sides are not the latent's.
        capture = replace(capture, hints=_without_sides(capture.hints))
        geometry = _without_sides(geometry or {})
    roles = piece_roles(capture, piece)
    analysis = analyse(capture, geometry, roles, gates=gates)
    entry = capture.table[roles.sample]
    if len(entry.shape) == 3 and analysis.geometry.width == 1:
        raise CaptureError(
            f"it begins at tokens {entry.target!r} {entry.shape}, and nothing tells whether they "
            "are of one image or of several."
        )
    if not analysis.regions:
        raise NoSitesError(f"none of its {len(analysis.sites)} attentions is in a region.")
    if use is not None and not {region.kind for region in analysis.regions} & {*use}:
        raise NoSitesError(f"it has no region of kind {' or '.join(map(repr, use))}.")
    return analysis


def piece_roles(capture: Capture, piece: Piece) -> Roles:
    """The roles of a piece's inputs.

    Raises:
        CaptureError: where no input can be the one that the main stream begins with.
    """
    nodes = list(capture.module.graph.find_nodes(op="placeholder"))
    inputs = [index for index, row in enumerate(capture.table) if row.kind == "input"]
    alike = _of_latent_rank(capture, inputs)
    sample = _entry(capture, alike, nodes)
    if piece.first and (whole := _as_whole(capture)) in alike:
        sample = whole
    changing = {*alike, *numbers(capture, inputs)} if piece.first else set(inputs)
    return Roles(
        sample=sample,
        level=find_level(capture, {index: nodes[index] for index in inputs if index != sample}),
        conditioning=tuple(index for index in inputs if index not in changing),
        stream=frozenset(node.name for node in reached([nodes[sample]])),
    )


def _of_latent_rank(capture: Capture, inputs: Sequence[int]) -> list[int]:
    """The inputs that lie as a latent may; where none lies as images do, those of tokens."""
    for rank in _IMAGE_RANKS:
        rows = {index: capture.table[index] for index in inputs}
        found = [
            i for i, row in rows.items() if len(row.shape) == rank and row.dtype.is_floating_point
        ]
        if found:
            return found
    raise CaptureError("no input lies as images or tokens do, so it holds no main stream.")


def _entry(capture: Capture, alike: Sequence[int], nodes: Sequence[fx.Node]) -> int:
    """That of them on which most depends."""
    reach = {index: len(reached([nodes[index]])) for index in alike}
    best = [index for index in alike if reach[index] == max(reach.values())]
    if len(best) > 1:
        names = ", ".join(repr(capture.table[index].target) for index in best)
        raise CaptureError(f"the main stream may begin at {names}; nothing tells at which.")
    return best[0]


def _as_whole(capture: Capture) -> int | None:
    """The sample, where the piece gives a latent, as the whole forward does."""
    try:
        return find_roles(capture).sample
    except CaptureError:
        return None


def _without_sides(sizes: Mapping[str, int | str]) -> dict[str, int | str]:
    return {name: size for name, size in sizes.items() if name not in ("height", "width")}

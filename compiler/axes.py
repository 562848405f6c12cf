"""axes: an abstract interpretation that says what every dimension of every value is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from turbo4d.compiler.attentions import Attention
from turbo4d.compiler.axis_rules import carry
from turbo4d.compiler.errors import GeometryError
from turbo4d.compiler.factors import Axes, Axis, Root, fresh, pieces, whole
from turbo4d.compiler.flops import MULTIPLIERS
from turbo4d.compiler.ir import Capture
from turbo4d.compiler.node_values import shape_of
from turbo4d.compiler.roles import Roles
from turbo4d.compiler.token_grid import grid_by_positions, grid_of_tokens

aten = torch.ops.aten
_CONVOLUTIONS_3D = (aten.conv3d.default, aten.conv3d.padding)


@dataclass(frozen=True)
class AxisMap:
    """The axes of every value, before the image axis is resolved.

    Args:
        of: axes by node name.
        images: the root of the flat image axis.
        cuts: where the graph cuts it: each product of trailing sizes, without 1 and the whole.
        attended: the intervals of its index that some attention runs over.
        frames: length of a frame axis of its own, of a sample of rank 5 or of tokens, else None.
        height: of the latent; of tokens that nothing tells more of, how many there are.
        width: of the latent.
    """

    of: Mapping[str, Axes]
    images: Root
    cuts: frozenset[int]
    attended: frozenset[tuple[int, int]]
    frames: int | None
    height: int
    width: int


def map_axes(
    capture: Capture,
    roles: Roles,
    attentions: Sequence[Attention],
    given: Mapping[str, int | str] | None = None,
) -> AxisMap:
    """Follow every axis of the inputs through the graph.

    Args:
        capture: of the graph.
        roles: of its inputs.
        attentions: of the graph.
        given: sizes by name; of a sample of tokens they say what its tokens are made of.

    Raises:
        GeometryError: for a sample whose axes cannot be told apart.
    """
    nodes = list(capture.module.graph.find_nodes(op="placeholder"))
    sample = nodes[roles.sample]
    sizes_given = {**capture.hints, **(given or {})}
    roots = _sample_roots(capture, roles, sample, sizes_given)
    start = tuple(map(whole, roots))
    of = _follow(capture, roles, start)
    if len(roots) == 3:
        grid = grid_of_tokens(sizes_given, roots[1])
        grid = grid or grid_by_positions(capture.module.graph, of, roles.stream, roots[1])
        if grid:
            roots[1:2] = grid
            of = _follow(
                capture, roles, (start[0], tuple(whole(r)[0] for r in grid if r.size > 1), start[2])
            )
    everywhere = (axis for axes in of.values() for axis in axes)
    cuts = {cut for interval in _intervals(everywhere, roots[0]) for cut in interval}
    keys = (of[attention.key.name][attention.key_axis] for attention in attentions)
    attended = frozenset(_intervals(keys, roots[0]))
    sizes = {root.letter: root.size for root in roots}
    return AxisMap(
        of,
        roots[0],
        frozenset(cuts - {1, roots[0].size}),
        attended,
        sizes.get("F"),
        sizes.get("H") or sizes["S"],
        sizes.get("W", 1),
    )


def _follow(capture: Capture, roles: Roles, sample: Axes) -> dict[str, Axes]:
    graph = capture.module.graph
    of: dict[str, Axes] = {}
    for index, node in enumerate(graph.find_nodes(op="placeholder")):
        row = capture.table[index]
        outside = index != roles.sample
        of[node.name] = _outside(row.kind, row.target, row.shape) if outside else sample

    def known(operand: Any) -> Axes:
        return of[operand.name]

    for node in graph.nodes:
        if node.op == "call_function":
            of[node.name] = carry(node, known, roles.stream)
    return of


def _intervals(axes: Iterable[Axis], root: Root) -> Iterator[tuple[int, int]]:
    for axis in axes:
        for atom in pieces(axis):
            if atom.root is root:
                yield atom.inner, atom.inner * atom.size


def _outside(kind: str, target: str, shape: tuple[int, ...]) -> Axes:
    """Axes of a weight, or of conditioning: its images lie in lower-case h and w."""
    if kind != "input":
        return tuple(fresh("C", side, target) for side in shape)
    letters = ["?"] * len(shape)
    if len(shape) >= 4:
        letters[-2:] = "h", "w"
    elif len(shape) == 3:
        letters[1:] = "context", "C"
    return tuple(fresh(letter, side, target) for letter, side in zip(letters, shape, strict=True))


def _sample_roots(
    capture: Capture, roles: Roles, sample: fx.Node, given: Mapping[str, int | str]
) -> list[Root]:
    shape, target = shape_of(sample), capture.table[roles.sample].target
    letters = {3: "NSC", 4: "NCHW"}.get(len(shape))
    if len(shape) == 5:
        letters = "NCFHW" if _channels_first(capture, roles, sample, given) else "NFCHW"
    if letters is None:
        raise GeometryError(
            f"the sample {target!r} has {len(shape)} axes {shape}; wanted 3 (images, tokens, "
            "channels), 4 (images, channels, height, width) or 5 (with frames). Compile a module "
            "that takes its images on one axis, and reshapes them for the network."
        )
    return [Root(letter, side) for letter, side in zip(letters, shape, strict=True)]


def _channels_first(
    capture: Capture, roles: Roles, sample: fx.Node, sizes: Mapping[str, int | str]
) -> bool:
    """Whether a rank-5 sample is (N, C, F, H, W) and not (N, F, C, H, W)."""
    outputs: Any = capture.module.graph.output_node().args[0]
    given, made = shape_of(sample), shape_of(outputs[0])
    if len(made) == 5 and (given[1] != made[1]) != (given[2] != made[2]):
        return given[1] != made[1]
    if (frames := sizes.get("frames")) in given[1:3] and given[1] != given[2]:
        return frames == given[2]
    # What is joined to the sample or scales it lies as the sample does.
    waiting = [sample]
    for value in waiting:
        if any(user.target in _CONVOLUTIONS_3D for user in value.users):
            return True
        # A 2D network takes the channels of one image, which a reshape leaves beside H and W.
        for user in value.users:
            if user.target is aten.reshape.default and len(shape_of(user)) == 4:
                return shape_of(user)[1] != shape_of(value)[2]
            if user.target is aten.permute.default:
                return [int(axis) for axis in user.args[1]][:3] != [0, 1, 2]  # type: ignore[union-attr]
        alike = (user for user in value.users if user.op == "call_function")
        waiting += [
            user for user in alike if shape_of(user)[-2:] == given[-2:] and user not in waiting
        ]
    if (first := _contracted_axis(capture, roles, given)) is not None:
        return first == 1
    raise GeometryError(
        f"the sample has shape {given}: which of axes 1 and 2 are the frames is not told by the "
        'graph. Say how many there are with geometry={"frames": ...}, or pass the sample as '
        "(images, channels, height, width)."
    )


def _contracted_axis(capture: Capture, roles: Roles, shape: tuple[int, ...]) -> int | None:
    """Which of axes 1 and 2 the network's first weight multiplies, as it does channels."""
    roots = [Root(letter, side) for letter, side in zip("NFCHW", shape, strict=True)]
    of = _follow(capture, roles, tuple(map(whole, roots)))
    for node in capture.module.graph.nodes:
        if node.target not in MULTIPLIERS or node.args[0].name not in roles.stream:
            continue
        channels = of[node.args[0].name][1 if "conv" in str(node.target) else -1]
        held = {atom.root for atom in pieces(channels)}
        found = [axis for axis in (1, 2) if roots[axis] in held]
        return found[0] if len(found) == 1 else None
    return None


def letters_of(axis: Axis, resolve: Mapping[Root, tuple[tuple[str, int, int], ...]]) -> str:
    """The letters an axis runs over, outermost first, each once.

    Args:
        axis: any.
        resolve: for the image axis, its letters with the interval of index they occupy, outermost
            first, as `(letter, inner, inner * size)`.
    """
    found: list[str] = []
    for atom in pieces(axis):
        if atom.root in resolve:
            low, high = atom.inner, atom.inner * atom.size
            found += [
                letter
                for letter, start, end in resolve[atom.root]
                if max(low, start) < min(high, end)
            ]
        else:
            found.append(atom.root.letter)
    return " ".join(dict.fromkeys(found))

"""sink-expand: compute on a value before it is repeated, not on each of its copies.

    rewrite:  %y = linear(reshape(expand(%v)), %w)        # %v: [R, 1, E], each row T times
       ->     %y = reshape(expand(linear(%v, %w)))        # and so on through what comes after
    rewrite:  %z = add(%x, reshape(expand(%c)))
       ->     %z = reshape(add(reshape(%x), %c))          # %c broadcasts; no copy is made

Requires  between the two, operators that treat every copy alike: reshape, permute, unsqueeze,
          clone, linear over an axis that is not repeated, element-wise functions of one value.
Ensures   a product of repeated rows is taken once for all copies. Where the repeated value meets
          one of its full size it broadcasts, as it is, or, where an axis is repeated in part,
          against a view of the other value. Where there is no such view, and for a copy of at
          most `small_bytes`, that axis alone is repeated: hoisted, a small copy costs nothing at
          a step, two views of the other value do.
Error     rounding: a product of fewer rows may be summed in another order.
Source    algebra. SV4D repeats the context of a frame for each of its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from .base import Pass, PassReport, aten, become, emit, erase_unused

_UNARY = (
    aten.silu.default,
    aten.gelu.default,
    aten.relu.default,
    aten.tanh.default,
    aten.sigmoid.default,
    aten.neg.default,
    aten.exp.default,
    aten._to_copy.default,
)
_BINARY = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)


@dataclass(frozen=True)
class _Atom:
    """A factor of an axis: its size, and whether the value is the same all along it."""

    size: int
    repeated: bool


_Axis = tuple[_Atom, ...]


@dataclass(frozen=True)
class _Form:
    """A value as a small one, repeated.

    Args:
        compact: the small one; its elements in row-major order are those of the factors that are
            not repeated, whatever its shape.
        axes: of the whole value: the factors of each, outermost first.
        copied: whether the whole value takes a copy that broadcasting would do without.
        computed: whether the whole value takes a computation that is now done on the small one.
    """

    compact: fx.Node
    axes: tuple[_Axis, ...]
    copied: bool = False
    computed: bool = False

    def shaped(self, shape: Sequence[int]) -> fx.Node:
        """The small value in another shape."""
        if tuple(self.compact.meta["val"].shape) == tuple(shape):
            return self.compact
        return emit(self.compact.graph, aten.reshape.default, self.compact, list(shape))

    def repeat(self, axes: Iterable[int]) -> fx.Node:
        """The small value with some axes repeated, as a view; one dimension for each factor."""
        chosen = set(axes)
        atoms = [(atom, i in chosen) for i, axis in enumerate(self.axes) for atom in axis]
        thin = self.shaped([1 if atom.repeated else atom.size for atom, _ in atoms])
        wide = [atom.size if full or not atom.repeated else 1 for atom, full in atoms]
        if wide == list(thin.meta["val"].shape):
            return thin
        return emit(thin.graph, aten.expand.default, thin, wide)


@dataclass(frozen=True)
class SinkExpand(Pass):
    """Moves repeats behind what is computed from the repeated.

    Args:
        small_bytes: up to this size an axis is repeated by a copy.
        keep: names of nodes that must stay what they are.
    """

    name: ClassVar[str] = "sink-expand"
    small_bytes: int = 1 << 20
    keep: tuple[str, ...] = ()

    def rewrite(self, gm: fx.GraphModule, report: PassReport) -> None:
        """Follow each repeat as far as it goes; rewrite what it meets there."""
        forms: dict[fx.Node, _Form] = {}
        kept = frozenset(self.keep)
        for node in list(gm.graph.nodes):
            if node.op == "call_function" and node.name not in kept:
                with gm.graph.inserting_before(node):
                    form = _follow(node, forms)
                if form is not None:
                    forms[node] = form
        for node, form in forms.items():
            if form.copied or form.computed:
                self._meet(node, form, [user for user in node.users if user not in forms], report)
        erase_unused(gm.graph)  # what was followed in vain

    def _meet(
        self, node: fx.Node, form: _Form, users: Sequence[fx.Node], report: PassReport
    ) -> None:
        left = False
        for user in users:
            if _meets_its_size(node, user):
                self._broadcast(node, form, user)
                report.rewrote(user, f"broadcast of %{form.compact.name}")
            else:
                left = True
        if left and form.computed:
            with node.graph.inserting_before(node):
                whole = form.repeat(range(len(form.axes)))
            become(node, aten.reshape.default, whole, list(node.meta["val"].shape))
            report.rewrote(node, f"repeat of %{form.compact.name}")

    def _broadcast(self, node: fx.Node, form: _Form, user: fx.Node) -> None:
        """Let `user` read the small value where it read the repeated one."""
        shape = tuple(user.meta["val"].shape)
        mixed = [i for i, axis in enumerate(form.axes) if len({a.repeated for a in axis}) > 1]
        target: Any = user.target
        args: list[Any] = list(user.args)
        at = args.index(node)
        with user.graph.inserting_before(user):
            if mixed and self._by_view(form, mixed, args[1 - at]):
                split = [atom.size for axis in form.axes for atom in axis]
                args[1 - at] = emit(user.graph, aten.reshape.default, args[1 - at], split)
                args[at] = form.repeat(())
                met = emit(user.graph, target, *args)
                become(user, aten.reshape.default, met, list(shape))
                return
            small = form.repeat(mixed)
            if mixed:
                dense = torch.contiguous_format
                small = emit(user.graph, aten.clone.default, small, memory_format=dense)
            thin = [
                1 if _repeats(axis) else side for axis, side in zip(form.axes, shape, strict=True)
            ]
            args[at] = replace(form, compact=small).shaped(thin)
            become(user, target, *args)

    def _by_view(self, form: _Form, mixed: Sequence[int], other: fx.Node) -> bool:
        value: Tensor = other.meta["val"]
        copied = math.prod(
            atom.size
            for i, axis in enumerate(form.axes)
            for atom in axis
            if i in mixed or not atom.repeated
        )
        split = [atom.size for axis in form.axes for atom in axis]
        return copied * value.element_size() > self.small_bytes and _viewable(value, split)


def _follow(node: fx.Node, forms: dict[fx.Node, _Form]) -> _Form | None:
    """The form of a call's value, where its operator treats every copy alike."""
    source: Any = node.args[0] if node.args else None
    form = forms.get(source) if isinstance(source, fx.Node) else None
    if node.target is aten.expand.default:
        return _expanded(source, form, tuple(node.meta["val"].shape))
    if form is None or any(other in forms for other in node.all_input_nodes if other is not source):
        return None
    rule = _RULES.get(node.target)
    if rule is not None:
        return rule(node, form)
    alone = node.target in _BINARY and not isinstance(node.args[1], fx.Node)
    return _mapped(node, form) if node.target in _UNARY or alone else None


def _expanded(source: fx.Node, form: _Form | None, shape: tuple[int, ...]) -> _Form | None:
    before = tuple(source.meta["val"].shape)
    if form is None:
        form = _Form(source, tuple((_Atom(side, False),) if side > 1 else () for side in before))
    added = len(shape) - len(before)
    axes: list[_Axis] = [(_Atom(side, True),) if side > 1 else () for side in shape[:added]]
    for axis, old, new in zip(form.axes, before, shape[added:], strict=True):
        axes.append(axis if old == new else (_Atom(new, True),))
    return replace(form, axes=tuple(axes))


def _reshaped(node: fx.Node, form: _Form) -> _Form | None:
    source: Any = node.args[0]
    shape = tuple(node.meta["val"].shape)
    waiting = [atom for axis in form.axes for atom in axis][::-1]
    axes: list[_Axis] = []
    for side in shape:
        axis: list[_Atom] = []
        while side > 1:
            atom = waiting.pop()
            taken = math.gcd(atom.size, side)
            if taken not in (atom.size, side):
                return None
            if taken < atom.size:
                waiting.append(replace(atom, size=atom.size // taken))
            side //= taken
            if axis and axis[-1].repeated == atom.repeated:
                taken *= axis.pop().size
            axis.append(replace(atom, size=taken))
        axes.append(tuple(axis))
    copied = form.copied or not _viewable(source.meta["val"], shape)
    return replace(form, axes=tuple(axes), copied=copied)


def _permuted(node: fx.Node, form: _Form) -> _Form:
    order: list[int] = list(node.args[1])  # type: ignore[arg-type]
    real = [(i, a.size) for i, axis in enumerate(form.axes) for a in axis if not a.repeated]
    turned = sorted(range(len(real)), key=lambda at: order.index(real[at][0]))
    compact = form.compact
    if turned != list(range(len(real))):
        shaped = form.shaped([size for _, size in real])
        compact = emit(node.graph, aten.permute.default, shaped, turned)
    return replace(form, compact=compact, axes=tuple(form.axes[axis] for axis in order))


def _unsqueezed(node: fx.Node, form: _Form) -> _Form:
    at: Any = node.args[1]
    return replace(form, axes=(*form.axes[:at], (), *form.axes[at:]))


def _cloned(node: fx.Node, form: _Form) -> _Form:
    return replace(form, copied=True)


def _linear(node: fx.Node, form: _Form) -> _Form | None:
    if _repeats(form.axes[-1]) or any(atom.repeated for atom in form.axes[-1]):
        return None
    source: Any = node.args[0]
    value, side = form.compact.meta["val"], source.meta["val"].shape[-1]
    rows = form.compact
    if value.dim() == 0 or value.shape[-1] != side:
        rows = form.shaped([value.numel() // side, side])
    product = emit(node.graph, aten.linear.default, rows, *node.args[1:])
    out = node.meta["val"].shape[-1]
    last = (_Atom(out, False),) if out > 1 else ()
    return replace(form, compact=product, axes=(*form.axes[:-1], last), computed=True)


def _mapped(node: fx.Node, form: _Form) -> _Form | None:
    if "memory_format" in node.kwargs:
        return None
    target: Any = node.target
    mapped = emit(node.graph, target, form.compact, *node.args[1:], **node.kwargs)
    return replace(form, compact=mapped, computed=True)


_RULES: dict[Any, Any] = {
    aten.reshape.default: _reshaped,
    aten.permute.default: _permuted,
    aten.unsqueeze.default: _unsqueezed,
    aten.clone.default: _cloned,
    aten.linear.default: _linear,
}


def _repeats(axis: _Axis) -> bool:
    return bool(axis) and all(atom.repeated for atom in axis)


def _meets_its_size(node: fx.Node, user: fx.Node) -> bool:
    """Whether `user` combines the value, element by element, with another of the same shape."""
    if user.target not in _BINARY or user.kwargs or len(user.args) != 2:
        return False
    shapes = [tuple(a.meta["val"].shape) for a in user.args if isinstance(a, fx.Node)]
    return user.args.count(node) == 1 and shapes == [tuple(user.meta["val"].shape)] * 2


def _viewable(value: Tensor, shape: Sequence[int]) -> bool:
    try:
        value.view(list(shape))
    except (RuntimeError, ValueError):
        return False
    return True

"""onnx-ops: how each canonical operator is written in ONNX.

Shapes are fixed, so every shape is a constant, and what has no tensor argument is one too. Products
keep the weight as the state dict has it: `Gemm` with `transB`, between two reshapes that copy
nothing. Opset 20, whose `Gelu` and `LayerNormalization` are the same as torch's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, fx

aten = torch.ops.aten
Shape = tuple[int, ...]


class Writer(Protocol):
    """Where a rule writes to."""

    def name(self, value: fx.Node) -> str:
        """What a value of the graph is called."""
        ...

    def constant(self, value: Tensor) -> str:
        """The name of a constant."""
        ...

    def add(self, kind: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Write an ONNX node with one result; gives its name."""
        ...


Rule = Callable[[Writer, fx.Node], str]


def shape_of(node: Any) -> Shape:
    """Of a value, as fixed numbers."""
    return tuple(int(side) for side in node.meta["val"].shape)


def args_of(node: fx.Node) -> Sequence[Any]:
    """A call's positional arguments, each as the operator's schema has it."""
    return node.args


def _ints(w: Writer, values: Sequence[int]) -> str:
    return w.constant(torch.tensor([*values], dtype=torch.int64))


def _argument(node: fx.Node, position: int, name: str, default: Any) -> Any:
    if len(args_of(node)) > position:
        return args_of(node)[position]
    return node.kwargs.get(name, default)


def _operand(w: Writer, argument: Any, dtype: torch.dtype) -> str:
    """A tensor or a number, of this dtype."""
    if not isinstance(argument, fx.Node):
        return w.constant(torch.tensor(argument, dtype=dtype))
    name = w.name(argument)
    return name if argument.meta["val"].dtype == dtype else w.add("Cast", [name], to=dtype)


def _reshaped(w: Writer, name: str, shape: Sequence[int]) -> str:
    return w.add("Reshape", [name, _ints(w, shape)])


def _same(w: Writer, node: fx.Node) -> str:
    return w.add("Identity", [w.name(node.all_input_nodes[0])])


def _cast(w: Writer, node: fx.Node) -> str:
    return w.add("Cast", [w.name(node.all_input_nodes[0])], to=node.meta["val"].dtype)


def _unary(kind: str) -> Rule:
    return lambda w, node: w.add(kind, [w.name(node.all_input_nodes[0])])


def _binary(kind: str, *, swapped: bool = False) -> Rule:
    def rule(w: Writer, node: fx.Node) -> str:
        dtype = node.meta["val"].dtype
        first, second = (_operand(w, argument, dtype) for argument in args_of(node)[:2])
        alpha: Any = _argument(node, 2, "alpha", 1)
        if swapped:
            first, second = second, first
        if alpha != 1:
            second = w.add("Mul", [second, w.constant(torch.tensor(alpha, dtype=dtype))])
        return w.add(kind, [first, second])

    return rule


def _silu(w: Writer, node: fx.Node) -> str:
    x = w.name(node.all_input_nodes[0])
    return w.add("Mul", [x, w.add("Sigmoid", [x])])


def _rsqrt(w: Writer, node: fx.Node) -> str:
    return w.add("Reciprocal", [w.add("Sqrt", [w.name(node.all_input_nodes[0])])])


def _gelu(w: Writer, node: fx.Node) -> str:
    way = _argument(node, 1, "approximate", "none")
    return w.add("Gelu", [w.name(node.all_input_nodes[0])], approximate=way)


def _lerp(w: Writer, node: fx.Node) -> str:
    dtype = node.meta["val"].dtype
    start, end, weight = (_operand(w, argument, dtype) for argument in args_of(node)[:3])
    return w.add("Add", [start, w.add("Mul", [weight, w.add("Sub", [end, start])])])


def _reshape(w: Writer, node: fx.Node) -> str:
    return _reshaped(w, w.name(node.all_input_nodes[0]), shape_of(node))


def _permute(w: Writer, node: fx.Node) -> str:
    source, axes = args_of(node)[:2]
    rank = len(shape_of(node))
    return w.add("Transpose", [w.name(source)], perm=[axis % rank for axis in axes])


def _expand(w: Writer, node: fx.Node) -> str:
    return w.add("Expand", [w.name(node.all_input_nodes[0]), _ints(w, shape_of(node))])


def _slice(w: Writer, node: fx.Node) -> str:
    source: Any = args_of(node)[0]
    axis: int = _argument(node, 1, "dim", 0)
    start, end = _argument(node, 2, "start", None), _argument(node, 3, "end", None)
    step: int = _argument(node, 4, "step", 1)
    side: int = shape_of(source)[axis]
    first, last, _ = slice(start, end, step).indices(side)
    parts = (_ints(w, [value]) for value in (first, last, axis, step))
    return w.add("Slice", [w.name(source), *parts])


def _select(w: Writer, node: fx.Node) -> str:
    source: Any
    source, axis, index = args_of(node)[:3]
    shape = shape_of(source)
    where = w.constant(torch.tensor(index % shape[axis], dtype=torch.int64))
    return w.add("Gather", [w.name(source), where], axis=axis)


def _cat(w: Writer, node: fx.Node) -> str:
    dtype, parts = node.meta["val"].dtype, args_of(node)[0]
    axis = _argument(node, 1, "dim", 0)
    return w.add("Concat", [_operand(w, part, dtype) for part in parts], axis=axis)


def _repeat(w: Writer, node: fx.Node) -> str:
    """Each slice along an axis several times in a row."""
    source, times, axis = args_of(node)[:3]
    shape = shape_of(source)
    at = axis % len(shape)
    apart = _reshaped(w, w.name(source), [*shape[: at + 1], 1, *shape[at + 1 :]])
    wide = w.add("Expand", [apart, _ints(w, [*shape[: at + 1], times, *shape[at + 1 :]])])
    return _reshaped(w, wide, shape_of(node))


def _linear(w: Writer, node: fx.Node) -> str:
    x: Any = args_of(node)[0]
    inputs = [w.name(operand) for operand in args_of(node) if isinstance(operand, fx.Node)]
    shape = shape_of(x)
    if len(shape) != 2:
        inputs[0] = _reshaped(w, inputs[0], [math.prod(shape[:-1]), shape[-1]])
    product = w.add("Gemm", inputs, transB=1)
    return product if len(shape) == 2 else _reshaped(w, product, shape_of(node))


def _added_product(w: Writer, node: fx.Node) -> str:
    """What is added comes first, then the two factors: addmm and baddbmm."""
    added, first, second = (w.name(operand) for operand in args_of(node)[:3])
    dtype = node.meta["val"].dtype
    product = w.add("MatMul", [first, second])
    for side, factor in ((0, "beta"), (1, "alpha")):
        scale: Any = node.kwargs.get(factor, 1)
        if scale != 1:
            number = w.constant(torch.tensor(scale, dtype=dtype))
            if side:
                product = w.add("Mul", [product, number])
            else:
                added = w.add("Mul", [added, number])
    return w.add("Add", [added, product])


def _matmul(w: Writer, node: fx.Node) -> str:
    return w.add("MatMul", [w.name(operand) for operand in args_of(node)[:2]])


def _softmax(w: Writer, node: fx.Node) -> str:
    return w.add(
        "Softmax", [_operand(w, args_of(node)[0], node.meta["val"].dtype)], axis=args_of(node)[1]
    )


def _attention(w: Writer, node: fx.Node) -> str:
    query, key, value = (operand for operand in args_of(node)[:3])
    dtype, rank = node.meta["val"].dtype, len(shape_of(query))
    scale: Any = node.kwargs.get("scale")
    scale = 1 / math.sqrt(shape_of(query)[-1]) if scale is None else scale
    turned = [*range(rank - 2), rank - 1, rank - 2]
    keys = w.add("Transpose", [w.name(key)], perm=turned)
    # Torch scales both sides by the root, which overflows later; one factor costs one pass.
    scaled = w.add("Mul", [w.name(query), w.constant(torch.tensor(scale, dtype=dtype))])
    scores = w.add("MatMul", [scaled, keys])
    mask: Any = _argument(node, 3, "attn_mask", None)
    if mask is not None and mask.meta["val"].dtype == torch.bool:
        lowest = w.constant(torch.tensor(-math.inf, dtype=dtype))
        scores = w.add("Where", [w.name(mask), scores, lowest])
    elif mask is not None:
        scores = w.add("Add", [scores, _operand(w, mask, dtype)])
    weights = w.add("Softmax", [scores], axis=-1)
    return w.add("MatMul", [weights, w.name(value)])


def _layer_norm(w: Writer, node: fx.Node) -> str:
    source: Any = args_of(node)[0]
    sides: Any = args_of(node)[1]
    dtype = source.meta["val"].dtype
    weight, bias = (_argument(node, at, n, None) for at, n in ((2, "weight"), (3, "bias")))
    scale = w.constant(torch.ones(*sides, dtype=dtype)) if weight is None else w.name(weight)
    inputs = [w.name(source), scale, *([] if bias is None else [w.name(bias)])]
    epsilon = float(_argument(node, 4, "eps", 1e-5))
    return w.add("LayerNormalization", inputs, axis=-len(sides), epsilon=epsilon)


def _group_norm(w: Writer, node: fx.Node) -> str:
    source: Any
    groups: Any
    source, groups = args_of(node)[:2]
    shape, dtype = shape_of(source), source.meta["val"].dtype
    epsilon = float(_argument(node, 4, "eps", 1e-5))
    rows = _reshaped(w, w.name(source), [shape[0], groups, math.prod(shape[1:]) // groups])
    plain = [w.constant(fill(groups, dtype=dtype)) for fill in (torch.ones, torch.zeros)]
    normed = w.add("InstanceNormalization", [rows, *plain], epsilon=epsilon)
    found = _reshaped(w, normed, shape)
    for at, kind in ((2, "Mul"), (3, "Add")):
        affine = _argument(node, at, ("weight", "bias")[at - 2], None)
        if affine is not None:
            sides = [shape[1], *[1] * (len(shape) - 2)]
            found = w.add(kind, [found, _reshaped(w, w.name(affine), sides)])
    return found


def _convolution(w: Writer, node: fx.Node) -> str:
    rank = len(shape_of(node)) - 2
    defaults = (("stride", 1), ("padding", 0), ("dilation", 1))
    found = [_argument(node, at, *default) for at, default in enumerate(defaults, 3)]
    strides, pads, dilations = (_each(value, rank) for value in found)
    inputs = [w.name(operand) for operand in args_of(node)[:3] if isinstance(operand, fx.Node)]
    groups = _argument(node, 6, "groups", 1)
    return w.add(
        "Conv", inputs, strides=strides, pads=[*pads, *pads], dilations=dilations, group=groups
    )


def _transposed(w: Writer, node: fx.Node) -> str:
    rank = len(shape_of(node)) - 2
    defaults = (
        ("stride", 1),
        ("padding", 0),
        ("output_padding", 0),
        ("groups", 1),
        ("dilation", 1),
    )
    found = [_argument(node, at, *default) for at, default in enumerate(defaults, 3)]
    strides, pads, further, _, dilations = (_each(value, rank) for value in found)
    inputs = [w.name(operand) for operand in args_of(node)[:3] if isinstance(operand, fx.Node)]
    return w.add(
        "ConvTranspose", inputs, strides=strides, pads=[*pads, *pads], dilations=dilations,
        output_padding=further, group=found[3],
    )  # fmt: skip


def _each(value: Any, rank: int) -> list[int]:
    sides = [value] if isinstance(value, int) else [*value]
    return sides * rank if len(sides) == 1 else sides


def _nearest(w: Writer, node: fx.Node) -> str:
    return _resized(w, node, mode="nearest", nearest_mode="floor",
                    coordinate_transformation_mode="asymmetric")  # fmt: skip


def _bilinear(w: Writer, node: fx.Node) -> str:
    corners = bool(_argument(node, 2, "align_corners", False))
    where = "align_corners" if corners else "pytorch_half_pixel"
    return _resized(w, node, mode="linear", coordinate_transformation_mode=where)


def _resized(w: Writer, node: fx.Node, **attributes: Any) -> str:
    source = w.name(node.all_input_nodes[0])
    return w.add("Resize", [source, "", "", _ints(w, shape_of(node))], **attributes)


def _mean(w: Writer, node: fx.Node) -> str:
    source: Any = args_of(node)[0]
    axes: Any = args_of(node)[1]
    keep = int(len(shape_of(source)) == len(shape_of(node)))
    return w.add("ReduceMean", [w.name(source), _ints(w, axes)], keepdims=keep)


def _average(w: Writer, node: fx.Node) -> str:
    sides = [_each(_argument(node, at, n, d), 2) for at, n, d in
             ((1, "kernel_size", 2), (2, "stride", ()), (3, "padding", 0))]  # fmt: skip
    kernel, strides, pads = sides
    return w.add(
        "AveragePool", [w.name(node.all_input_nodes[0])], kernel_shape=kernel,
        strides=strides or kernel, pads=[*pads, *pads], count_include_pad=1,
    )  # fmt: skip


def refusal(node: fx.Node) -> str | None:
    """Why a call cannot be written; None where it can."""
    if node.target not in RULES:
        return None if not node.all_input_nodes else f"{node.target} has no ONNX form here"
    if node.target is aten.scaled_dot_product_attention.default:
        if _argument(node, 5, "is_causal", False) or node.kwargs.get("enable_gqa"):
            return "causal and grouped attention have no ONNX form here"
    return None


_UNARY = {
    aten.sigmoid.default: "Sigmoid", aten.exp.default: "Exp", aten.log.default: "Log",
    aten.sin.default: "Sin", aten.cos.default: "Cos", aten.tanh.default: "Tanh",
    aten.sqrt.default: "Sqrt", aten.neg.default: "Neg", aten.abs.default: "Abs",
    aten.relu.default: "Relu", aten.reciprocal.default: "Reciprocal",
}  # fmt: skip
_BINARY = {
    aten.add.Tensor: "Add", aten.sub.Tensor: "Sub", aten.mul.Tensor: "Mul", aten.div.Tensor: "Div",
    aten.pow.Tensor_Scalar: "Pow", aten.pow.Tensor_Tensor: "Pow",
}  # fmt: skip
RULES: dict[Any, Rule] = {
    **{target: _unary(kind) for target, kind in _UNARY.items()},
    **{target: _binary(kind) for target, kind in _BINARY.items()},
    **dict.fromkeys((aten.rsub.Scalar, aten.rsub.Tensor), _binary("Sub", swapped=True)),
    **dict.fromkeys((aten.lerp.Tensor, aten.lerp.Scalar), _lerp),
    **dict.fromkeys((aten.reshape.default, aten.unsqueeze.default, aten.squeeze.dim), _reshape),
    **dict.fromkeys((aten.matmul.default, aten.bmm.default, aten.mm.default), _matmul),
    **dict.fromkeys((aten.addmm.default, aten.baddbmm.default), _added_product),
    **dict.fromkeys((aten.conv1d.default, aten.conv2d.default, aten.conv3d.default), _convolution),
    **dict.fromkeys((aten.conv_transpose2d.input, aten.conv_transpose3d.input), _transposed),
    aten.clone.default: _same,
    aten._to_copy.default: _cast,
    aten.silu.default: _silu,
    aten.rsqrt.default: _rsqrt,
    aten.gelu.default: _gelu,
    aten.permute.default: _permute,
    aten.expand.default: _expand,
    aten.slice.Tensor: _slice,
    aten.select.int: _select,
    aten.cat.default: _cat,
    aten.repeat_interleave.self_int: _repeat,
    aten.linear.default: _linear,
    aten.softmax.int: _softmax,
    aten.scaled_dot_product_attention.default: _attention,
    aten.layer_norm.default: _layer_norm,
    aten.group_norm.default: _group_norm,
    aten.upsample_nearest2d.vec: _nearest,
    aten.upsample_bilinear2d.vec: _bilinear,
    aten.mean.dim: _mean,
    aten.avg_pool2d.default: _average,
}
"""The operators that can be written."""

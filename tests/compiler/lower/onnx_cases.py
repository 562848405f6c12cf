"""Calls of every operator that can be written to ONNX, in float32."""

from __future__ import annotations

import math
from typing import Any

import torch

from tests.compiler.lower.onnx_graphs import x

aten = torch.ops.aten
Case = tuple[Any, tuple[Any, ...], dict[str, Any]]

IMAGE, WEIGHT = x(2, 4, 6, 6), x(8, 4, 3, 3)
ROWS = torch.tensor([2, 0])
MIXED = x(2, 3) - 0.6
HIGH = torch.tensor([[-30.0, -1.0, 0.0], [1.0, 19.0, 60.0]])
WHOLE = torch.tensor([[7, -7, 5], [-5, 0, 3]])
BITS = torch.tensor([[True, False, True], [False, False, True]])
ODD = torch.tensor([[math.nan, math.inf, -math.inf], [1.0, -2.0, 0.0]])
TIES = torch.tensor([[3.0, 1.0, 3.0, 2.0], [0.0, 0.0, 5.0, 0.0]])
SDPA = aten.scaled_dot_product_attention.default

ELEMENTWISE: list[Case] = [
    *((target, (x(2, 3),), {}) for target in (
        aten.sigmoid.default, aten.exp.default, aten.log.default, aten.sin.default,
        aten.cos.default, aten.tanh.default, aten.sqrt.default, aten.neg.default,
        aten.abs.default, aten.relu.default, aten.reciprocal.default,
        aten.silu.default, aten.rsqrt.default, aten.gelu.default, aten.erf.default,
        aten.square.default,
    )),
    *((target, (HIGH,), {}) for target in (
        aten.softplus.default, aten.mish.default, aten.hardtanh.default, aten.leaky_relu.default,
        aten.elu.default, aten.hardswish.default, aten.floor.default, aten.ceil.default,
        aten.round.default, aten.sign.default,
    )),
    (aten.sin.default, (WHOLE,), {}),
    (aten.softplus.default, (HIGH, 2.0, 5.0), {}),
    (aten.leaky_relu.default, (MIXED, 0.2), {}),
    (aten.gelu.default, (x(2, 3),), {"approximate": "tanh"}),
    (aten.add.Tensor, (x(2, 3), x(3)), {}),
    (aten.add.Tensor, (x(2, 3), 0.5), {"alpha": 3}),
    (aten.add.Tensor, (WHOLE, 0.5), {}),
    (aten.add.Tensor, (BITS, BITS.flip(0)), {}),
    (aten.add.Scalar, (x(2, 3), 2), {}),
    (aten.sub.Tensor, (x(2, 3), x(2, 1)), {"alpha": 2}),
    (aten.sub.Scalar, (x(2, 3), 2), {}),
    (aten.mul.Tensor, (x(2, 3), 0.5), {}),
    (aten.mul.Tensor, (x(2, 3), torch.arange(3)), {}),
    (aten.mul.Tensor, (BITS, BITS.flip(0)), {}),
    (aten.mul.Scalar, (x(2, 3), 2), {}),
    (aten.div.Tensor, (x(2, 3), x(3)), {}),
    (aten.div.Tensor, (WHOLE, 2), {}),
    (aten.div.Scalar, (x(2, 3), 3), {}),
    *((target, (value, divisor), {"rounding_mode": way}) for way in ("floor", "trunc")
      for value, divisor in ((HIGH, 7.0), (WHOLE, 3), (WHOLE, -3))
      for target in (aten.div.Tensor_mode, aten.div.Scalar_mode)),
    (aten.pow.Tensor_Scalar, (x(2, 3), 2.0), {}),
    (aten.pow.Tensor_Tensor, (x(2, 3), x(3)), {}),
    (aten.pow.Scalar, (2.0, x(2, 3)), {}),
    (aten.rsub.Scalar, (x(2, 3), 1), {}),
    (aten.rsub.Tensor, (x(2, 3), x(3)), {"alpha": 2}),
    (aten.lerp.Tensor, (x(2, 3), x(2, 3) + 1, x(1)), {}),
    (aten.lerp.Scalar, (x(2, 3), x(2, 3) + 1, 0.3), {}),
    (aten.addcmul.default, (x(2, 3), x(3), x(2, 1)), {"value": 0.5}),
    (aten.addcdiv.default, (x(2, 3), x(3), x(2, 1)), {}),
    (aten.clamp.default, (MIXED, -0.1, 0.2), {}),
    (aten.clamp.default, (MIXED, None, 0.2), {}),
    (aten.clamp.Tensor, (MIXED, x(3) - 0.8), {}),
    (aten.clamp_min.default, (MIXED, 0.1), {}),
    (aten.clamp_max.default, (MIXED, 0.1), {}),
    (aten.maximum.default, (MIXED, x(3)), {}),
    (aten.minimum.default, (MIXED, x(3)), {}),
    (aten.nan_to_num.default, (ODD,), {}),
    (aten.nan_to_num.default, (ODD, 1.0, 2.0, -3.0), {}),
    *((form, (TIES, other), {}) for op in (
        aten.eq, aten.ne, aten.gt, aten.ge, aten.lt, aten.le,
    ) for form, other in ((op.Scalar, 2), (op.Tensor, TIES.flip(0)))),
    (aten.gt.Scalar, (WHOLE, 0.5), {}),
    *((target, (BITS, BITS.flip(0)), {}) for target in (
        aten.logical_and.default, aten.logical_or.default, aten.logical_xor.default,
        aten.bitwise_and.Tensor, aten.bitwise_or.Tensor, aten.__and__.Tensor, aten.__or__.Tensor,
    )),
    (aten.logical_and.default, (BITS, WHOLE), {}),
    (aten.logical_not.default, (BITS,), {}),
    (aten.logical_not.default, (WHOLE,), {}),
    (aten.bitwise_not.default, (BITS,), {}),
]  # fmt: skip

SHAPES: list[Case] = [
    (aten.clone.default, (x(2, 3),), {}),
    (aten.reshape.default, (x(2, 6), [3, 4]), {}),
    (aten.unsqueeze.default, (x(2, 3), -1), {}),
    (aten.squeeze.dim, (x(2, 1, 3), 1), {}),
    (aten.squeeze.default, (x(2, 1, 3, 1),), {}),
    (aten.squeeze.dims, (x(2, 1, 3, 1), [1]), {}),
    (aten.permute.default, (x(2, 3, 4), [0, -1, 1]), {}),
    (aten.expand.default, (x(2, 1, 4), [5, -1, 3, -1]), {}),
    (aten.slice.Tensor, (x(2, 8), 1, 1, 9223372036854775807), {}),
    (aten.slice.Tensor, (x(2, 8), -1, 0, -2, 3), {}),
    (aten.select.int, (x(2, 3, 4), 1, -1), {}),
    (aten.cat.default, ([x(2, 3), x(2, 1)], -1), {}),
    (aten.cat.default, ([torch.empty(0), x(2, 3)],), {}),
    (aten.stack.default, ([x(2, 3), x(2, 3) + 1], -1), {}),
    (aten.repeat_interleave.self_int, (x(2, 3), 4, 0), {}),
    (aten.repeat_interleave.self_int, (x(2, 3), 2), {}),
    (aten.repeat.default, (x(2, 3), [2, 1, 3]), {}),
    (aten.tile.default, (x(2, 3), [2]), {}),
    (aten.flip.default, (x(2, 3, 4), [0, -1]), {}),
    (aten.roll.default, (x(2, 5), [2, -1], [1, 0]), {}),
    (aten.roll.default, (x(2, 5), [3]), {}),
    (aten.pad.default, (IMAGE, [1, 2, 0, 1]), {}),
    (aten.pad.default, (IMAGE, [1, 2, 0, 1], "constant", 2.0), {}),
    (aten.pad.default, (IMAGE, [1, 2, 3, 1], "reflect"), {}),
    (aten.pad.default, (IMAGE, [1, 2, 3, 1], "replicate"), {}),
    (aten.constant_pad_nd.default, (x(2, 5), [1, -1], 0.5), {}),
    (aten.tril.default, (x(4, 4), -1), {}),
    (aten.triu.default, (x(4, 4),), {}),
    (aten.pixel_shuffle.default, (x(2, 8, 3, 3), 2), {}),
    (aten.pixel_unshuffle.default, (IMAGE, 2), {}),
    (aten.meshgrid.default, ([x(2), x(3)],), {}),
    (aten.meshgrid.indexing, ([x(2), x(3), x(4)],), {"indexing": "xy"}),
    (aten.copy.default, (x(2, 3), WHOLE[:1]), {}),
    (aten.fill.Tensor, (x(2, 3), torch.tensor(2.0)), {}),
    (aten.fill.Scalar, (x(2, 3), 2.5), {}),
    (aten._to_copy.default, (x(2, 3),), {"dtype": torch.int64}),
]  # fmt: skip

PRODUCTS: list[Case] = [
    (aten.linear.default, (x(2, 3), x(4, 3)), {}),
    (aten.linear.default, (x(2, 5, 3), x(4, 3), x(4)), {}),
    (aten.linear.default, (x(3), x(4, 3), x(4)), {}),
    (aten.matmul.default, (x(2, 5, 3), x(3, 4)), {}),
    (aten.mm.default, (x(5, 3), x(3, 4)), {}),
    (aten.bmm.default, (x(2, 5, 3), x(2, 3, 4)), {}),
    (aten.addmm.default, (x(4), x(5, 3), x(3, 4)), {"beta": 0.5}),
    (aten.baddbmm.default, (x(2, 5, 4), x(2, 5, 3), x(2, 3, 4)), {"alpha": 0.5, "beta": 0}),
    (aten.baddbmm.default, (x(2, 5, 4), x(2, 5, 3), x(2, 3, 4)), {}),
    (aten.outer.default, (x(3), x(4)), {}),
    (aten.einsum.default, ("bqd,bkd->bqk", [x(2, 5, 3), x(2, 4, 3)]), {}),
    (aten.conv1d.default, (x(2, 4, 9), x(6, 2, 3), None, [2], [1], [1], 2), {}),
    (aten.conv2d.default, (IMAGE, WEIGHT, x(8), [2, 1], [1, 0]), {}),
    (aten.conv3d.default, (x(2, 4, 3, 5, 5), x(8, 4, 3, 1, 1), x(8), [1], [1, 0, 0]), {}),
    (aten.conv1d.padding, (x(2, 4, 9), x(6, 4, 4), x(6), [1], "same", [2]), {}),
    (aten.conv2d.padding, (IMAGE, WEIGHT, x(8), [1], "same"), {}),
    (aten.conv3d.padding, (x(2, 4, 3, 5, 5), x(8, 4, 3, 1, 1), None, [1], "valid"), {}),
    (aten.conv_transpose1d.default, (x(2, 4, 6), x(4, 3, 3), x(3), [2], [1], [1]), {}),
    (aten.conv_transpose2d.input, (IMAGE, x(4, 3, 3, 3), x(3), [2], [1], [1]), {}),
    (aten.conv_transpose3d.input, (x(1, 4, 2, 3, 3), x(4, 3, 2, 2, 2), None, [2, 2, 2]), {}),
]  # fmt: skip

ATTENTION: list[Case] = [
    (aten.softmax.int, (x(2, 3, 4), 1), {}),
    (SDPA, (x(2, 2, 5, 8), x(2, 2, 3, 8), x(2, 2, 3, 4)), {}),
    (SDPA, (x(2, 5, 8), x(2, 3, 8), x(2, 3, 4), x(5, 3)), {"scale": 0.2}),
    (SDPA, (x(2, 5, 8), x(2, 3, 8), x(2, 3, 4), torch.arange(15).reshape(5, 3) % 4 > 0), {}),
    (SDPA, (x(2, 5, 8), x(2, 3, 8), x(2, 3, 4), torch.arange(15).reshape(5, 3) > 4), {}),
    (SDPA, (x(2, 5, 8), x(2, 6, 8), x(2, 6, 4), None, 0.0, True), {}),
]

NORMALISATIONS: list[Case] = [
    (aten.layer_norm.default, (x(2, 3, 4), [4]), {}),
    (aten.layer_norm.default, (x(2, 3, 4), [3, 4], x(3, 4), x(3, 4), 1e-3), {}),
    (aten.group_norm.default, (IMAGE, 2, x(4), x(4) + 1, 1e-3), {}),
    (aten.group_norm.default, (x(2, 64), 2), {}),
    (aten.instance_norm.default,
     (IMAGE, x(4), x(4) + 1, None, None, True, 0.1, 1e-3, False), {}),
    (aten.batch_norm.default,
     (IMAGE, x(4), x(4) + 1, x(4), x(4), False, 0.1, 1e-3, False), {}),
    (aten.batch_norm.default, (IMAGE, None, None, x(4), x(4), False, 0.1, 1e-3, False), {}),
    (aten.rms_norm.default, (x(2, 3, 4), [4], x(4), 1e-3), {}),
    (aten.rms_norm.default, (x(2, 3, 4), [3, 4]), {}),
]  # fmt: skip

REDUCTIONS: list[Case] = [
    (aten.mean.dim, (x(2, 3, 4), [-1], True), {}),
    (aten.mean.dim, (x(2, 3, 4), [0, 2]), {}),
    (aten.mean.default, (x(2, 3, 4),), {}),
    (aten.sum.dim_IntList, (x(2, 3, 4), [1]), {}),
    (aten.sum.dim_IntList, (BITS, [1]), {}),
    (aten.sum.default, (x(2, 3, 4),), {}),
    (aten.amax.default, (x(2, 3, 4), [-1], True), {}),
    (aten.amin.default, (x(2, 3, 4), [0, 1]), {}),
    (aten.max.default, (x(2, 3, 4),), {}),
    (aten.min.default, (x(2, 3, 4),), {}),
    (aten.any.default, (BITS,), {}),
    (aten.any.dim, (BITS, 0), {}),
    (aten.all.default, (BITS,), {}),
    (aten.all.dim, (BITS, 1, True), {}),
    (aten.argmax.default, (TIES, 1), {}),
    (aten.argmin.default, (x(3, 4),), {}),
    (aten.argmin.default, (x(4), -1, True), {}),
    (aten.argmax.default, (x(2, 3, 4), -2), {}),
    (aten.linalg_vector_norm.default, (x(2, 3, 4),), {}),
    (aten.linalg_vector_norm.default, (x(2, 3, 4), 1, [1], True), {}),
    (aten.var.correction, (x(2, 3, 4), [1]), {"correction": 0}),
    (aten.var.correction, (x(2, 3, 4), [0, 2]), {"keepdim": True}),
    (aten.cumsum.default, (x(2, 3), -1), {}),
    (aten.sort.default, (x(2, 7), -1, True), {}),
    (aten.sort.default, (torch.tensor([[5, 2, 9]]),), {}),
    (aten.sort.stable, (TIES,), {"stable": True, "dim": -1, "descending": True}),
    (aten.topk.default, (x(2, 7), 3, 1), {}),
    (aten.topk.default, (x(5, 2), 2, 0, False), {}),
]

RESIZING: list[Case] = [
    (aten.upsample_nearest1d.vec, (x(2, 4, 5), [9], None), {}),
    (aten.upsample_nearest2d.vec, (IMAGE, None, [2.0, 2.0]), {}),
    (aten.upsample_nearest2d.vec, (IMAGE, None, [1.6, 1.6]), {}),
    (aten.upsample_nearest3d.vec, (x(1, 2, 3, 4, 4), None, [1.0, 2.0, 2.0]), {}),
    (aten._upsample_nearest_exact1d.vec, (x(2, 4, 5), [9], None), {}),
    (aten._upsample_nearest_exact2d.vec, (IMAGE, [4, 9], None), {}),
    (aten._upsample_nearest_exact3d.vec, (x(1, 2, 3, 4, 4), None, [1.0, 2.0, 2.0]), {}),
    (aten.upsample_linear1d.vec, (x(2, 4, 5), [9], False, None), {}),
    (aten.upsample_bilinear2d.vec, (IMAGE, [9, 12], False, None), {}),
    (aten.upsample_bilinear2d.vec, (IMAGE, [9, 12], True, None), {}),
    (aten.upsample_bilinear2d.vec, (IMAGE, None, False, [1.4, 1.4]), {}),
    (aten.upsample_trilinear3d.vec, (x(1, 2, 3, 4, 4), [3, 6, 8], False, None), {}),
    (aten.upsample_bicubic2d.vec, (IMAGE, [9, 12], False, None), {}),
    (aten.avg_pool1d.default, (x(2, 4, 6), [2]), {}),
    (aten.avg_pool2d.default, (IMAGE, [2, 2]), {}),
    (aten.avg_pool2d.default, (IMAGE, [3], [2], [1]), {}),
    (aten.avg_pool2d.default, (IMAGE, [3], [2], [1], False, False), {}),
    (aten.avg_pool3d.default, (x(1, 2, 4, 4, 4), [1, 2, 2]), {}),
    (aten.max_pool2d.default, (IMAGE, [3], [2], [1]), {}),
    (aten.max_pool3d.default, (x(1, 2, 4, 4, 4), [1, 2, 2]), {}),
    (aten.adaptive_avg_pool1d.default, (x(2, 4, 6), [3]), {}),
    (aten.adaptive_avg_pool2d.default, (IMAGE, [1, 3]), {}),
    (aten.adaptive_avg_pool2d.default, (IMAGE, [4, 6]), {}),
    (aten.adaptive_avg_pool2d.default, (x(1, 2, 3, 5), [4, 3]), {}),
]

SELECTIONS: list[Case] = [
    (aten.where.self, (BITS, x(2, 3), x(3)), {}),
    (aten.where.ScalarOther, (BITS, x(2, 3), -1), {}),
    (aten.where.ScalarSelf, (BITS, 2, x(2, 3)), {}),
    (aten.where.Scalar, (BITS, 2.0, 3.0), {}),
    (aten.where.self, (BITS, BITS.flip(0), BITS[:1]), {}),
    (aten.masked_fill.Scalar, (BITS.flip(0), BITS, 1), {}),
    (aten.masked_fill.Scalar, (x(2, 3), BITS, -1), {}),
    (aten.masked_fill.Tensor, (x(2, 3), BITS, torch.tensor(2.0)), {}),
    (aten.index_select.default, (x(2, 3, 4), 1, ROWS), {}),
    (aten.embedding.default, (x(5, 4), torch.tensor([[1, 4], [0, 1]])), {}),
    (aten.gather.default, (x(2, 3), 1, torch.tensor([[2, 0], [1, 1]])), {}),
    (aten.index_copy.default, (x(3, 4), 0, ROWS, x(2, 4) + 2), {}),
    (aten.index_copy.default, (x(2, 3, 4), 1, ROWS, x(2, 2, 4) + 2), {}),
    (aten.index.Tensor, (x(5, 4), [torch.tensor([[1, -1], [0, 1]])]), {}),
    (aten.index.Tensor, (x(2, 3, 4), [None, ROWS]), {}),
    (aten.select_scatter.default, (x(2, 3, 4), x(2, 4) + 2, 1, -1), {}),
    (aten.select_scatter.default, (x(2, 3, 4), x(3, 4) + 2, 0, 0), {}),
    (aten.slice_scatter.default, (x(2, 6), x(2, 2) + 2, 1, 2, 4), {}),
    (aten.slice_scatter.default, (x(2, 6), x(2, 2) + 2, -1, 4, 99), {}),
    (aten.slice_scatter.default, (x(2, 6, 3), x(2, 3, 3) + 2, 1, 1, 99, 2), {}),
    (aten.slice_scatter.default, (x(2, 6), x(2, 2) + 2, 1, 0, 4, 2), {}),
    (aten.scatter.src, (x(2, 3), 1, torch.tensor([[2, 0], [1, 0]]), x(2, 2)), {}),
    (aten.scatter.value, (x(2, 3), 1, torch.tensor([[2], [1]]), 5.0), {}),
]

CASES: list[Case] = [
    *ELEMENTWISE, *SHAPES, *PRODUCTS, *ATTENTION, *NORMALISATIONS, *REDUCTIONS, *RESIZING,
    *SELECTIONS,
]  # fmt: skip

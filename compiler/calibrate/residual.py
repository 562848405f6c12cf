"""residual: how well a value is a weighted sum of others, from their scalar products alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

# Of the normal equations of unit vectors: terms that nearly coincide must not cancel to a perfect
# fit, which the plan's own run would not have.
_RIDGE = 1e-6


def residual(products: Sequence[Sequence[float]], terms: Sequence[int], of: int) -> float:
    """The length of a value less its best weighted sum, relative to the value's.

    Args:
        products: scalar products of all values [values, values].
        terms: indices of what is summed.
        of: index of the value.
    """
    matrix = torch.tensor(products, dtype=torch.float64)
    index = torch.tensor([*dict.fromkeys(terms)])
    scale = matrix.diagonal()[index].clamp_min(torch.finfo(torch.float64).tiny).sqrt()
    gram = matrix[index][:, index] / scale[:, None] / scale[None]
    right = matrix[index, of] / scale
    weights = solve(gram + _RIDGE * torch.eye(len(index)).to(gram), right)
    left = matrix[of, of] - 2 * weights @ right + weights @ gram @ weights
    return float((left.clamp_min(0) / matrix[of, of]).sqrt())


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """The solution of a system of linear equations [n, n], [n]."""
    return cast("Any", torch.linalg).solve(matrix, right)

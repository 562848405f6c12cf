"""Weights that are exact for polynomials, and the kernels that apply them."""

from fractions import Fraction
from itertools import accumulate

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from turbo4d.runtime.extrapolation import predict, weights

# ln(sigma) of falling levels; the last is where a value is wanted.
FALLING = st.lists(st.integers(-60, 65), min_size=2, max_size=6, unique=True).map(
    lambda places: [place / 10 for place in sorted(places, reverse=True)]
)


@given(FALLING, st.data())
def test_weights_are_exact_for_polynomials(falling, data):
    *places, u = falling
    degree = data.draw(st.integers(0, len(places) - 1))
    terms = [data.draw(st.integers(-9, 9)) for _ in range(degree + 1)]

    def value(at: float) -> Fraction:
        return sum((term * Fraction(at) ** n for n, term in enumerate(terms)), Fraction(0))

    found = weights(tuple(places), u)
    assert sum(found) == pytest.approx(1, rel=1e-9)
    summed = sum(Fraction(w) * value(place) for w, place in zip(found, places, strict=True))
    size = sum(abs(w * value(place)) for w, place in zip(found, places, strict=True))
    assert abs(summed - value(u)) <= 1e-14 * float(size)


# As of a schedule: from one level to the next it is never more than four times as far as elsewhere.
STEPS = st.lists(st.integers(2, 8), min_size=1, max_size=3)


@given(STEPS, st.sampled_from(["float64", "float32", "bfloat16", "float16"]))
def test_a_prediction_is_the_weighted_sum(steps, name):
    """Off by no more than roundings of its parts in their own precision, and of their means."""
    places = tuple(float(place) for place in accumulate((-step for step in steps), initial=9))[:-1]
    mix = weights(places, places[-1] - steps[-1])
    dtype = getattr(torch, name)
    generator = torch.Generator().manual_seed(len(places))
    history = [torch.randn(50, generator=generator).to(dtype) for _ in places]
    found = predict(history, mix)
    assert found.dtype is dtype
    parts = [w * value.double() for w, value in zip(mix, history, strict=True)]
    size = sum(max(abs(w), 1) * v.double().abs() for w, v in zip(mix, history, strict=True))
    error = (found.double() - torch.stack(parts).sum(0)).abs()
    assert (error <= 4 * torch.finfo(dtype).eps * size).all()


class Kernels(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.called = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.called.append(str(func))
        return func(*args, **(kwargs or {}))


def test_one_kernel_for_each_value_but_the_first():
    history = [torch.randn(2, 3, 4).to(memory_format=torch.contiguous_format) for _ in range(3)]
    with Kernels() as seen:
        assert predict(history[:1], (1.0,)) is history[0]
        assert seen.called == []
        predict(history[1:], weights((2.0, 1.0), 0.0))
        assert seen.called == ["aten.lerp.Scalar"]
        predict(history, weights((2.0, 1.0, 0.0), -1.0))
    assert seen.called == ["aten.lerp.Scalar"] * 3


def test_equal_steps_have_the_weights_of_finite_differences():
    assert weights((3.0,), 0.0) == (1.0,)
    assert weights((2.0, 1.0), 0.0) == (-1.0, 2.0)
    assert weights((3.0, 2.0, 1.0), 0.0) == (1.0, -3.0, 3.0)


def test_the_layout_stays():
    last = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert predict([last, last + 1], (-1.0, 2.0)).stride() == last.stride()

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.slot_storage import STORAGES, decode, encode, stored_bytes, stored_parts

SMALLER = STORAGES[1:]
# Of the largest number of a block: half a step where steps are even, of e4m3 half its coarsest,
# 32 of 448; of float16 half a step of 2**-10.
WORST = {"float16": 2.0**-11, "float8": 16 / 448, "int8": 0.5 / 127}


def random(*shape: int, dtype=torch.float32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("storage", SMALLER)
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=4),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    st.integers(0, 99),
    st.sampled_from([1e-30, 1.0, 1e30]),
    st.randoms(),
)
def test_no_number_is_off_by_more_than_half_a_step(storage, shape, dtype, seed, size, shuffle):
    order = list(range(len(shape)))
    shuffle.shuffle(order)
    tensor = (random(*shape, dtype=torch.float64, seed=seed) * size).to(dtype).permute(order)
    stored = encode(tensor, storage)
    found = decode(stored)
    assert (found.shape, found.stride(), found.dtype) == (
        tensor.shape,
        tensor.stride(),
        tensor.dtype,
    )
    assert stored.size_bytes == stored_bytes(tensor.shape, dtype, storage)
    parts = tuple(each.nbytes for each in stored.tensors)
    assert parts == stored_parts(tensor.shape, dtype, storage)
    order = sorted(range(tensor.ndim), key=lambda axis: -tensor.stride(axis))
    flat, back = (t.permute(order).reshape(-1).to(torch.float64) for t in (tensor, found))
    rounded = torch.finfo(dtype).eps  # of the dtype that it comes back in, and of float32
    for one, other in zip(flat.split(64), back.split(64), strict=True):
        top = float(one.abs().max())
        bound = top * (WORST[storage] + rounded + 2e-7)
        assert float((one - other).abs().max()) <= bound


@pytest.mark.parametrize("storage", SMALLER)
def test_it_takes_as_little_as_it_says(storage):
    tensor = random(4, 64, 8)
    numbers = tensor.numel()
    per_number = {"float16": 2, "float8": 1, "int8": 1}[storage]
    assert encode(tensor, storage).size_bytes == per_number * numbers + 4 * numbers // 64


def test_the_compute_dtype_is_not_copied():
    tensor = random(3, 5)
    assert decode(encode(tensor, "compute")) is tensor
    assert stored_bytes((3, 5), torch.float32, "compute") == 60


@pytest.mark.parametrize(
    ("tensor", "storage"),
    [
        (torch.arange(200), "int8"),
        (torch.ones(200, dtype=torch.complex64), "int8"),
        (random(200, dtype=torch.bfloat16), "float16"),
        (random(5), "int8"),  # a whole block for five numbers would be more
        (torch.empty(0), "int8"),
    ],
)
def test_what_would_not_get_smaller_stays_as_it_is(tensor, storage):
    assert decode(encode(tensor, storage)) is tensor
    assert stored_bytes(tensor.shape, tensor.dtype, storage) == tensor.nbytes


@pytest.mark.parametrize("storage", SMALLER)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_so_and_spoils_its_block_alone(storage, bad):
    tensor = random(192)
    tensor[70] = bad
    found = decode(encode(tensor, storage))
    assert not found[70].isfinite()
    assert found[:64].isfinite().all()
    assert found[128:].isfinite().all()


@pytest.mark.parametrize("storage", SMALLER)
def test_zeros_come_back_as_zeros(storage):
    assert torch.equal(decode(encode(torch.zeros(130), storage)), torch.zeros(130))


@pytest.mark.parametrize("storage", SMALLER)
def test_a_tensor_with_gaps_comes_back_without(storage):
    tensor = random(6, 200)[:, ::2]
    found = decode(encode(tensor, storage))
    assert torch.allclose(found, tensor, rtol=0, atol=4 * 16 / 448)
    assert found.is_contiguous()
    assert decode(encode(random(1, 9).expand(40, 9), storage)).shape == (40, 9)


def test_an_unknown_storage_is_named():
    text = "slot: storage is 'int4'; wanted one of 'compute', 'float16', 'float8', 'int8'."
    with pytest.raises(PlanError, match=f"^{re.escape(text)}$"):
        encode(torch.ones(2), "int4")
    with pytest.raises(PlanError, match=f"^{re.escape(text)}$"):
        stored_bytes((2,), torch.float32, "int4")

"""Which steps the schedules compute."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from turbo4d.tools.rivals.schedule import around, evenly, every


def text(computed):
    return "".join("C" if cell else "K" for cell in computed)


@pytest.mark.parametrize(
    ("interval", "warmup", "wanted"),
    [(1, 1, "CCCCCCCC"), (3, 1, "CKKCKKCK"), (3, 3, "CCCKKCKK"), (9, 1, "CKKKKKKK")],
)
def test_every_counts_from_the_end_of_the_warmup(interval, warmup, wanted):
    assert text(every(8, interval, warmup)) == wanted


@given(st.integers(1, 40), st.data())
def test_evenly_computes_as_many_as_asked_and_leaves_even_gaps(steps, data):
    count = data.draw(st.integers(1, steps))
    computed = evenly(steps, count)
    places = [step for step, cell in enumerate(computed) if cell]
    assert len(computed) == steps
    assert len(places) == count
    assert places[0] == 0
    gaps = [b - a for a, b in zip(places, [*places[1:], steps], strict=True)]
    assert max(gaps) - min(gaps) <= 2


@given(st.integers(2, 40), st.data(), st.floats(1.05, 3.0), st.floats(0.1, 0.9))
def test_around_computes_as_many_as_asked_or_refuses(steps, data, power, share):
    count = data.draw(st.integers(1, steps))
    computed = around(steps, count, round(share * steps), power)
    assert computed is None or (computed[0] and sum(computed) == count and len(computed) == steps)


def test_around_lies_denser_the_larger_the_power():
    loose, dense = around(100, 10, 60, 1.2), around(100, 10, 60, 2.0)
    assert loose is not None
    assert dense is not None
    assert sum(dense[50:70]) > sum(loose[50:70]) > 2
    assert text(around(20, 4, 15, 2.0)) == "CKKKKKKKKCKKKKCCKKKK"

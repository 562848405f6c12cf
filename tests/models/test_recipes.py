import pytest
import torch
from turbo4d.models.recipes import RECIPES, draw_noise, sv4d2_passes, sv4d_passes


def test_sv4d_order():
    anchor, *dense = RECIPES["sv4d"].passes
    assert (anchor.name, anchor.frames, anchor.view_frames) == (
        "anchor",
        (4, 8, 12, 16, 20),
        {"forward": 0},
    )
    assert [(p.name, p.frames) for p in dense] == [
        (f"dense{k}", tuple(range(t, t + 5))) for k, t in enumerate([0, 4, 8, 12, 16])
    ]
    assert [p.view_frames for p in dense] == [
        {"backward": t + 4, "forward": t} for t in (0, 4, 8, 12, 16)
    ]
    assert [dense[0].direction(i) for i in range(4)] == ["backward", "forward"] * 2
    assert [anchor.direction(i) for i in range(3)] == ["forward"] * 3


def test_sv4d2_order():
    first, second = RECIPES["sv4d2"].passes
    assert (first.frames, first.view_frames) == (tuple(range(12)), {"forward": None})
    assert (second.frames, second.view_frames) == (tuple(range(9, 21)), {"forward": 9})
    chunks = RECIPES["sv4d2_8views"].passes
    assert [p.frames for p in chunks] == [tuple(range(t, t + 5)) for t in (0, 4, 8, 12, 16)]
    assert [p.view_frames for p in chunks] == [{"forward": t} for t in (None, 4, 8, 12, 16)]


@pytest.mark.parametrize(("name", "calls"), [("sv4d", 120), ("sv4d2", 100), ("sv4d2_8views", 250)])
def test_recipes_sample_every_frame_in_the_published_number_of_calls(name, calls):
    recipe = RECIPES[name]
    assert recipe.steps * len(recipe.passes) == calls
    assert sorted({frame for p in recipe.passes for frame in p.frames}) == list(range(21))
    assert len(set(recipe.streams)) == len(recipe.streams)


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_a_pass_is_conditioned_only_on_frames_already_there(name):
    """SV4D's frame 0 comes from SV3D; everything else must have been sampled before."""
    there = {0} if name == "sv4d" else set()
    for p in RECIPES[name].passes:
        assert {f for f in p.view_frames.values() if f is not None} <= there
        there |= set(p.frames)


def test_totals_that_no_pass_fits_are_refused():
    with pytest.raises(
        ValueError, match=r"^SV4D with 5 frames per pass samples 21 frames, not 20\.$"
    ):
        sv4d_passes(20)
    with pytest.raises(
        ValueError, match=r"^SV4D 2\.0 samples 12 frames per chunk; 11 are too few\.$"
    ):
        sv4d2_passes(11)


def test_noise_follows_the_seed_alone():
    first, again, other = (draw_noise(RECIPES["sv4d"], 2, 2, seed=s) for s in (0, 0, 1))
    assert sorted(first) == ["anchor", *(f"dense{k}" for k in range(5))]
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    assert not torch.equal(first["dense0"], first["dense1"])

import re

import pytest
import torch
from safetensors.torch import save_file
from turbo4d.models.branches import KEYS, Branches, load_conditioning
from turbo4d.models.errors import ConditioningError

FRAMES, VIEWS = 3, 2
DIRECTIONS = (("backward", 2.0), ("forward", 3.0))


def branch(fill: float = 1.0) -> dict[str, torch.Tensor]:
    return {
        "concat": torch.full((6, 4, 8, 8), fill),
        "cond_motion": torch.full((3, 4, 8, 8), fill),
        "cond_view": torch.full((2, 4, 8, 8), fill),
        "crossattn": torch.full((1, 3, 16), fill),
        "vector": torch.full((6, 10), fill),
    }


def named(stream: str, c: dict, uc: dict) -> dict[str, torch.Tensor]:
    pairs = (("c", c), ("uc", uc))
    return {f"{stream}.{name}.{key}": value for name, one in pairs for key, value in one.items()}


def test_joined_puts_the_unconditional_branch_first():
    joined = Branches(branch(1.0), branch(0.0), FRAMES, VIEWS).joined()
    assert sorted(joined) == sorted([*KEYS, "image_only_indicator"])
    for key in KEYS:
        uncond, cond = joined[key].chunk(2)
        assert not uncond.any()
        assert bool((cond == 1).all())
    assert torch.equal(joined["image_only_indicator"], torch.ones(2, 6))


def test_to_casts_every_tensor():
    cast = Branches(branch(), branch(), FRAMES, VIEWS).to(dtype=torch.bfloat16)
    assert {value.dtype for one in (cast.c, cast.uc) for value in one.values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            lambda c, uc: uc.pop("vector"),
            "branch 'uc' lacks 'vector'; its keys are "
            "'concat', 'cond_motion', 'cond_view', 'crossattn', 'vector'.",
        ),
        (
            lambda c, uc: c.update(extra=c.pop("concat")),
            "branch 'c' lacks 'concat' and has unknown 'extra'; its keys are "
            "'concat', 'cond_motion', 'cond_view', 'crossattn', 'vector'.",
        ),
        (
            lambda c, uc: c.update(concat=torch.zeros(5, 4, 8, 8)),
            "c.concat has shape (5, 4, 8, 8); 3 frames x 2 views want (6, 4, 8, 8).",
        ),
        (
            lambda c, uc: c.update(concat=torch.zeros(6, 8)),
            "c.concat has shape (6, 8); 3 frames x 2 views want (6, 4, h, w).",
        ),
        (
            lambda c, uc: uc.update(cond_view=torch.zeros(2, 4, 8, 9)),
            "uc.cond_view has shape (2, 4, 8, 9); 3 frames x 2 views want (2, 4, 8, 8).",
        ),
        (
            lambda c, uc: c.update(crossattn=torch.zeros(3, 16)),
            "c.crossattn has shape (3, 16); 3 frames x 2 views want (1, 3, K).",
        ),
        (
            lambda c, uc: uc.update(vector=torch.zeros(6, 11)),
            "uc.vector has shape (6, 11); 3 frames x 2 views want (6, 10).",
        ),
        (
            lambda c, uc: c.update(vector=torch.zeros(6, 10).double()),
            "c.vector is float64 on cpu and c.concat is float32 on cpu; "
            "all tensors must share one floating dtype and one device.",
        ),
        (
            lambda c, uc: c.update(concat=torch.zeros(6, 4, 8, 8, dtype=torch.int32)),
            "c.concat is int32 on cpu and c.concat is int32 on cpu; "
            "all tensors must share one floating dtype and one device.",
        ),
    ],
)
def test_wrong_branches_are_refused(change, text):
    c, uc = branch(), branch()
    change(c, uc)
    with pytest.raises(ConditioningError, match=f"^{re.escape(text)}$"):
        Branches(c, uc, FRAMES, VIEWS)


def test_a_file_is_read_by_stream(tmp_path):
    path = tmp_path / "conditioning.safetensors"
    backward, forward = (named(f"dense0.{d}", branch(f), branch(0.0)) for d, f in DIRECTIONS)
    save_file(backward | forward, path)
    loaded = load_conditioning(path, FRAMES, VIEWS)
    assert sorted(loaded) == ["dense0.backward", "dense0.forward"]
    assert bool((loaded["dense0.backward"].c["concat"] == 2).all())
    assert bool((loaded["dense0.forward"].c["concat"] == 3).all())


def refused(path) -> str:
    with pytest.raises(ConditioningError) as caught:
        load_conditioning(path, FRAMES, VIEWS)
    return str(caught.value).replace(str(path), "FILE")


def test_wrong_files_are_refused(tmp_path):
    path = tmp_path / "conditioning.safetensors"
    assert re.match(r"conditioning file 'FILE' cannot be read: .*\.$", refused(path))
    path.write_bytes(b"not a tensor file")
    assert re.match(r"conditioning file 'FILE' cannot be read: .*\.$", refused(path))
    save_file({}, path)
    assert refused(path) == "conditioning file 'FILE' holds no tensor."
    save_file({"c.concat": torch.zeros(1)}, path)
    wanted = "conditioning file 'FILE': 'c.concat' is not named '<stream>.<c|uc>.<key>'."
    assert refused(path) == wanted
    uc = branch() | {"crossattn": torch.zeros(1, 2, 16)}
    save_file(named("anchor.forward", branch(), uc), path)
    assert refused(path) == (
        "conditioning file 'FILE', stream 'anchor.forward': uc.crossattn has shape (1, 2, 16); "
        "3 frames x 2 views want (1, 3, 16)."
    )

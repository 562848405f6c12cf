from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from turbo4d.compiler.analysis import analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import NoSitesError

from tests.compiler.captures import analysed
from tests.compiler.foreign import Attention

Row = tuple[str, str, int, int, int, int]


def rows(name: str) -> list[Row]:
    return [
        (s.name, s.kind, s.query_tokens, s.key_tokens, s.heads, s.groups)
        for s in analysed(name).sites
    ]


def test_the_sites_of_sv4d() -> None:
    # Two branches, three frames, two views, 8 x 8 latents; 32 channels in heads of 16.
    assert rows("chain")[:6] == [
        ("stack.0.spatial", "spatial", 64, 64, 2, 12),
        ("stack.0.spatial.cross", "cross", 64, 1, 2, 12),
        ("stack.0.camera", "camera", 2, 2, 2, 2 * 3 * 64),
        ("stack.0.camera.cross", "cross", 2, 1, 2, 2 * 3 * 64),
        ("stack.0.motion", "motion", 3, 3, 2, 2 * 2 * 64),
        ("stack.0.motion.cross", "cross", 3, 1, 2, 2 * 2 * 64),
    ]
    assert len(rows("chain")) == 6


def test_kinds_follow_the_axis_not_the_order_of_the_images() -> None:
    # (b v f): the camera attention runs over the three views, the motion one over two frames.
    assert rows("multi_view") == [
        ("stack.0.spatial", "spatial", 64, 64, 2, 12),
        ("stack.0.spatial.cross", "cross", 64, 5, 2, 12),
        ("stack.0.camera", "camera", 3, 3, 2, 2 * 2 * 64),
        ("stack.0.motion", "motion", 2, 2, 2, 2 * 3 * 64),
    ]


def test_a_factorised_video_network() -> None:
    kinds = [(name, kind) for name, kind, *_ in rows("video_unet")]
    assert kinds[:3] == [
        ("down.0.0.spatial", "spatial"),
        ("down.0.0.spatial.cross", "cross"),
        ("down.0.1.motion", "motion"),
    ]
    assert [kind for _, kind in kinds] == ["spatial", "cross", "motion"] * 3


def test_attention_written_out_over_text_and_video() -> None:
    assert rows("joint_dit") == [
        (f"stack.{block}.joint", "joint", 53, 53, 2, 2) for block in range(2)
    ]
    assert {site.note for site in analysed("joint_dit").sites} == {"over context F H W"}


def test_groups_of_pixels_are_spatial_and_say_so() -> None:
    sites = [site for site in analysed("chain_of_groups").sites if site.kind != "cross"]
    assert [site.kind for site in sites[:3]] == ["spatial", "spatial", "motion"]
    assert sites[1].note == "groups of 2 consecutive entries along W"
    assert sites[1].name == "stack.0.spatial.1"


def test_attention_over_views_and_pixels_is_joint() -> None:
    sites = [site for site in analysed("chain_of_volumes").sites if site.kind != "cross"]
    assert [site.kind for site in sites[:3]] == ["spatial", "joint", "motion"]
    assert sites[1].note == "over V H W"


class _Cat(nn.Module):
    """Attention whose keys include a reference image's pixels, and one over nothing known."""

    def __init__(self) -> None:
        super().__init__()
        self.reference = Attention(4)
        self.strange = Attention(4)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.reference(tokens, image.flatten(2).transpose(1, 2))
        strange = self.strange(tokens.repeat(1, 2, 1))
        tokens = tokens + strange[:, : tokens.shape[1]]
        return tokens.transpose(1, 2).reshape(x.shape)


def test_reference_and_unclassified() -> None:
    capture = capture_export(_Cat().eval(), (torch.zeros(3, 4, 2, 2), torch.zeros(3, 4, 4, 4)))
    analysis = analyse(capture, {"batch": 3})
    assert [(site.kind, site.note) for site in analysis.sites] == [
        ("reference", ""),
        ("unclassified", "its sequence runs over ?, made by aten.repeat.default"),
    ]


def test_a_network_without_attention_is_refused() -> None:
    capture = capture_export(nn.Conv2d(4, 4, 1).eval(), (torch.zeros(2, 4, 8, 8),))
    with pytest.raises(NoSitesError) as caught:
        analyse(capture)
    assert str(caught.value) == (
        "no attention depends on the sample 'input'; the graph has 0 attentions in 2 nodes on "
        "its path."
    )

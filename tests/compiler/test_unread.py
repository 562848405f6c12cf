"""What may be an attention and cannot be read as one is named, with the reason."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention
from turbo4d.compiler.analysis import Analysis, analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import CaptureError
from turbo4d.compiler.explain import explain

C = 8


class Tokens(nn.Module):
    """A network whose one part works on the tokens of an image, beside an attention.

    Args:
        part: takes and gives tokens [B, S, C].
        text: the text is refined by an attention of its own, and joined to each token.
    """

    def __init__(self, part: nn.Module, text: bool = False) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(4, C, 3, padding=1), nn.Conv2d(C, 4, 3, padding=1)
        self.part, self.attention = part, nn.MultiheadAttention(C, 2, batch_first=True)
        self.refine = nn.MultiheadAttention(C, 2, batch_first=True) if text else None

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        hidden = self.first(x)
        tokens = hidden.flatten(2).mT
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        tokens = tokens + self.part(tokens)
        if self.refine is not None:
            tokens = tokens + self.refine(text, text, text)[0].mean(1, keepdim=True)
        return self.last(tokens.mT.reshape(hidden.shape))


class LinearAttention(nn.Module):
    """Keys and values are multiplied first: no map from queries to keys exists."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) @ (F.relu(x).mT @ x)


class Experts(nn.Module):
    """A softmax over experts, not over keys."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.experts = nn.Linear(C, 2), nn.Linear(C, 2 * C)

    def forward(self, x: Tensor) -> Tensor:
        made = self.experts(x).unflatten(-1, (2, C))
        return (self.router(x).softmax(dim=-1)[..., None] * made).sum(dim=-2)


class Folded(nn.Module):
    """A softmax over keys in two dimensions at once."""

    def forward(self, x: Tensor) -> Tensor:
        scores = (x @ x.mT).unflatten(-1, (4, 4)).softmax(dim=-1)
        return scores.flatten(2) @ x


class Late(nn.Module):
    """The weights are normed after the values are summed."""

    def forward(self, x: Tensor) -> Tensor:
        weights = (x @ x.mT).exp()
        return (weights @ x) / weights.sum(dim=-1, keepdim=True)


def found(part: nn.Module, text: bool = False) -> Analysis:
    net = Tokens(part, text).eval()
    return analyse(capture_export(net, (torch.zeros(2, 4, 4, 4), torch.zeros(2, 3, C))))


def reasons(part: nn.Module) -> list[str]:
    """Why each is unread; the attention beside it is found all the same."""
    analysis = found(part)
    assert [(site.kind, site.heads) for site in analysis.sites] == [("spatial", 2)]
    return [one.reason for one in analysis.unread]


def test_a_product_that_no_softmax_follows() -> None:
    product = "it multiplies two values, and no softmax is between"
    assert reasons(LinearAttention()) == [product] * 2
    assert reasons(Late()) == [product] * 2


def test_a_softmax_that_no_product_leads_to() -> None:
    assert reasons(Experts()) == ["no product of queries and keys leads to its softmax"]
    assert reasons(Folded())[0] == "no product of queries and keys leads to its softmax"


def test_what_is_off_the_path_of_the_sample_is_no_site() -> None:
    analysis = found(nn.Linear(C, C), text=True)
    assert [site.kind for site in analysis.sites] == ["spatial"]
    assert [one.over for one in analysis.aside] == ["context"]
    assert not analysis.unread


def test_explain_says_both() -> None:
    call = (torch.zeros(2, 4, 4, 4), torch.zeros(2, 3, C))
    info = explain(Tokens(Experts(), text=True).eval(), call, plan="none")
    said = info.to_json()
    [one] = said["unclassified"]
    assert one == {
        "name": "softmax",
        "reason": "no product of queries and keys leads to its softmax",
    }
    assert [row["over"] for row in said["aside"]] == ["context"]
    assert f"unclassified: {one['name']}: {one['reason']}" in str(info)
    assert f"off the sample's path, so no sites: {said['aside'][0]['name']} over context" in str(
        info
    )


class Flexible(nn.Module):
    """Attention whose scores a function of one's own changes."""

    def forward(self, x: Tensor) -> Tensor:
        heads = x.unflatten(-1, (2, -1)).transpose(1, 2)
        y = flex_attention(heads, heads, heads, score_mod=lambda s, b, h, i, j: s - (i - j).abs())
        assert isinstance(y, Tensor)
        return y.transpose(1, 2).flatten(2)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_an_operator_that_takes_a_function_is_refused() -> None:
    with pytest.raises(CaptureError) as caught:
        found(Flexible())
    assert str(caught.value) == (
        "%flex_attention is flex_attention, whose score function torch cannot trace again; write "
        "it as F.scaled_dot_product_attention with attn_mask."
    )

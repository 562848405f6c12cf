"""Which axis of a sample of rank 5 the frames are, where its last two axes are images."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from turbo4d.compiler.analysis import analyse
from turbo4d.compiler.capture import capture_export
from turbo4d.compiler.errors import GeometryError

C = 8


class Tokens(nn.Module):
    """Attention over all tokens of patches that `cut` makes and `join` puts together again.

    Args:
        width: of a patch.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.qkv, self.last = (
            nn.Linear(width, C),
            nn.Linear(C, 3 * C),
            nn.Linear(C, width),
        )

    def cut(self, x: Tensor) -> Tensor:
        """A sample as tokens."""
        raise NotImplementedError

    def join(self, y: Tensor, x: Tensor) -> Tensor:
        """Tokens as a sample."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.first(self.cut(x))
        q, k, v = self.qkv(tokens).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
        tokens = tokens + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.join(self.last(tokens), x)


class ChannelsFirst(Tokens):
    """[B, C, F, H, W], each pixel a token."""

    def cut(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)

    def join(self, y: Tensor, x: Tensor) -> Tensor:
        return y.transpose(1, 2).reshape(x.shape)


class Patches(Tokens):
    """[B, F, C, H, W], each square of four a token."""

    def cut(self, x: Tensor) -> Tensor:
        b, f, c, h, w = x.shape
        squares = x.reshape(b, f, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return squares.reshape(b, f * h * w // 4, 4 * c)

    def join(self, y: Tensor, x: Tensor) -> Tensor:
        b, f, c, h, w = x.shape
        squares = y.reshape(b, f, h // 2, w // 2, c, 2, 2).permute(0, 1, 4, 2, 5, 3, 6)
        return squares.reshape(x.shape)


class Together(Tokens):
    """Channels and frames in one axis, which the network's first weight multiplies."""

    def cut(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1, x.shape[-2] * x.shape[-1]).transpose(1, 2)

    def join(self, y: Tensor, x: Tensor) -> Tensor:
        return y.transpose(1, 2).reshape(x.shape)


@pytest.mark.parametrize(
    ("model", "shape"),
    [(ChannelsFirst(4), (1, 4, 3, 4, 4)), (Patches(16), (2, 3, 4, 4, 4))],
)
def test_the_axis_that_the_first_weight_multiplies_is_channels(
    model: nn.Module, shape: tuple[int, ...]
) -> None:
    capture = capture_export(model.eval(), (torch.zeros(shape),))
    assert analyse(capture, gates=False).geometry.frames == 3


def test_what_stays_open_can_be_said() -> None:
    capture = capture_export(Together(12).eval(), (torch.zeros(1, 4, 3, 4, 4),))
    text = r'Say how many there are with geometry=\{"frames": \.\.\.\}, or pass the sample as'
    with pytest.raises(GeometryError, match=text):
        analyse(capture, gates=False)
    for frames in (3, 4):
        assert analyse(capture, {"frames": frames}, gates=False).geometry.frames == frames

import re

import pytest
import torch
from turbo4d.models.sampler import sample_euler
from turbo4d.models.windows import frame_windows, windowed_denoiser


def test_windows_overlap_and_end_at_the_last_frame():
    assert frame_windows(10, 4, 1) == (range(4), range(3, 7), range(6, 10))
    assert frame_windows(9, 4, 2) == (range(4), range(2, 6), range(4, 8), range(5, 9))
    assert frame_windows(8, 4, 0) == (range(4), range(4, 8))
    assert frame_windows(4, 4, 2) == (range(4),)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((3, 4, 1), "a window holds 4 frames; 3 are too few."),
        ((9, 4, 4), "windows of 4 frames cannot overlap by 4."),
        ((9, 4, -1), "windows of 4 frames cannot overlap by -1."),
    ],
)
def test_windows_that_cannot_be_are_refused(sizes, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        frame_windows(*sizes)


def test_what_windows_share_is_the_mean_of_theirs():
    told, seen = [], []

    def constant(value):
        def denoiser(x, i):
            seen.append(x)
            return torch.full_like(x, value)

        return denoiser

    x = torch.randn(10, 4, 2, 2, dtype=torch.float64)  # 5 frames of 2 views
    windows = (range(3), range(2, 5))
    denoiser = windowed_denoiser(
        [constant(1.0), constant(4.0)], windows, 2, x, lambda i, k: told.append((i, k))
    )
    found = denoiser(x, 7)
    assert told == [(7, 0), (7, 1)]
    assert torch.equal(seen[0], x[:6])
    assert torch.equal(seen[1], x[4:])
    wanted = torch.tensor([1.0] * 4 + [2.5] * 2 + [4.0] * 4, dtype=torch.float64)
    assert torch.equal(found, wanted.view(-1, 1, 1, 1).expand_as(x))


def test_windows_of_one_denoiser_sample_what_it_does():
    x = torch.randn(10, 4, 2, 2, dtype=torch.float64)
    sigmas = torch.tensor([9.0, 3.0, 1.0, 0.0], dtype=torch.float64)

    def denoiser(x, i):
        return 0.5 * x / (1 + sigmas[i])

    whole = windowed_denoiser([denoiser] * 2, frame_windows(5, 3, 1), 2, x)
    found, wanted = (sample_euler(each, x, sigmas) for each in (whole, denoiser))
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("windows", "count", "text"),
    [
        ((range(2), range(3, 5)), 2, "frame 2 is in no window."),
        ((range(5),), 2, "1 windows have 2 denoisers."),
    ],
)
def test_windows_that_do_not_fit_are_refused(windows, count, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        windowed_denoiser([lambda x, i: x] * count, windows, 2, torch.zeros(10, 4, 2, 2))

"""How close a sample is to another: to the uncached one, and to the scene it should show."""

from __future__ import annotations

from torch import Tensor
from turbo4d.models.metrics import psnr, ssim
from turbo4d.models.trivial import trivial_predictions
from turbo4d.tools.failures import JobError
from turbo4d.tools.scene_input import SceneInput

PSNR_CEILING_DB = 200.0  # reported for images that are equal in every bit, whose PSNR is infinite
_GROUND = 0.95  # a pixel whose darkest channel is below this shows the object, on a white ground


def capped(decibels: float) -> float:
    """A PSNR that JSON can hold."""
    return min(decibels, PSNR_CEILING_DB)


def refuse_nonfinite(latent: Tensor, what: str = "the sample") -> None:
    """Refuse what no figure can be given of, and no picture.

    Raises:
        JobError: the latent holds NaN or infinity.
    """
    if not bool(latent.isfinite().all()):
        raise JobError(
            f"{what} holds NaN or infinity, so nothing can be shown or said of it; see that the "
            "weights are finite, and try --dtype fp32."
        )


def to_reference(sample: Tensor, reference: Tensor, mask: Tensor) -> dict[str, float]:
    """Figures of a sample against the uncached one.

    Args:
        sample: [V, F, 3, H, W] in [0, 1].
        reference: the same.
        mask: [V, F, 1, H, W], 1 inside the object.
    """
    views = [psnr(ours, theirs) for ours, theirs in zip(sample, reference, strict=True)]
    return {
        "psnr_db": capped(psnr(sample, reference)),
        "psnr_mask_db": capped(psnr(sample, reference, mask)),
        "ssim": ssim(sample, reference),
        "psnr_min_view_db": capped(min(views)),
    }


def to_truth(sample: Tensor, scene: SceneInput | None) -> dict[str, float | None]:
    """PSNR of a sample against its scene, all pixels and the object's; None without a truth."""
    if scene is None or scene.truth is None or scene.mask is None:
        return {"gt_psnr_db": None, "gt_psnr_mask_db": None}
    return {
        "gt_psnr_db": capped(psnr(sample, scene.truth)),
        "gt_psnr_mask_db": capped(psnr(sample, scene.truth, scene.mask)),
    }


def of_trivial(scene: SceneInput | None) -> dict[str, dict[str, float | None]]:
    """The same figures for predictors that need no model."""
    if scene is None or scene.truth is None:
        return {}
    predictions = trivial_predictions(scene.frames, scene.views)
    return {name: to_truth(images, scene) for name, images in predictions.items()}


def object_mask(scene: SceneInput, baseline: Tensor) -> Tensor:
    """The scene's mask; without one, the pixels where the uncached sample is not white."""
    if scene.mask is not None:
        return scene.mask
    return (baseline.amin(2, keepdim=True) < _GROUND).float()

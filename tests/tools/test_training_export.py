"""What the card says is computed from the rows, and frozen weights are not written over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from turbo4d.models.config import SV4DConfig
from turbo4d.models.nano import load_nano
from turbo4d.models.unet import SV4DUNet
from turbo4d.models.vae import NanoVAE
from turbo4d.tools.training.evaluate import summarise
from turbo4d.tools.training.export import export


def _row(nano: float, white: float, nearest: float) -> dict[str, float]:
    row = {"scene": 0, "object_share": 0.25}
    for name, value in {"nano": nano, "white": white, "nearest": nearest}.items():
        row |= {f"{name}_mask_db": value, f"{name}_unseen_db": value - 1}
        row |= {f"{name}_db": value + 4, f"{name}_ssim": 0.5}
    return row


def test_margin_is_over_the_best_trivial_predictor() -> None:
    found = summarise([_row(20.0, 9.0, 11.0), _row(22.0, 12.0, 11.0)])
    assert found["best_trivial"] == "nearest"
    assert found["margin_db"] == 10.0
    assert found["margin_unseen_db"] == 10.0
    assert found["margin_to_best_of_each_scene_db"] == 9.5
    assert found["smallest_margin_of_a_scene_db"] == 9.0


def test_export_is_what_load_nano_reads_and_keeps_what_is_there(tmp_path: Path) -> None:
    network, vae = SV4DUNet(SV4DConfig.named("nano")), NanoVAE()
    average = dict(network.state_dict())
    torch.save({"average": average, "step": 7}, tmp_path / "unet.pt")
    torch.save(vae.state_dict(), tmp_path / "vae.pt")
    path = tmp_path / "weights.safetensors"
    export(tmp_path, tmp_path, path)
    loaded, loaded_vae = load_nano(path)
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, average[key].half().float())
    for key, value in loaded_vae.state_dict().items():
        assert torch.equal(value, vae.state_dict()[key].half().float())
    with pytest.raises(SystemExit) as caught:
        export(tmp_path, tmp_path, path)
    assert str(caught.value) == (
        "export: weights.safetensors is there and frozen; give --weights or --force."
    )

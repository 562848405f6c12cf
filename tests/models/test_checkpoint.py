"""Weight files: what is read, what is refused and in which words, and what a write leaves."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from turbo4d.models.checkpoint import checkpoint_sha256, load_checkpoint, save_checkpoint
from turbo4d.models.config import SV4DConfig
from turbo4d.models.errors import CheckpointError
from turbo4d.models.random_weights import fill_random
from turbo4d.models.unet import SV4DUNet

SMALL = replace(SV4DConfig.named("tiny"), channel_mult=(1,), attention_resolutions=())
PREFIX = "model.diffusion_model."


@pytest.fixture(scope="module")
def model() -> SV4DUNet:
    built = SV4DUNet(SMALL)
    fill_random(built)
    return built


@pytest.fixture(scope="module")
def weights(model: SV4DUNet) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_holds(model: SV4DUNet, weights: dict[str, Tensor]) -> None:
    held = model.state_dict()
    assert held.keys() == weights.keys()
    assert all(torch.equal(held[key], weights[key].to(held[key].dtype)) for key in weights)


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, SMALL)
    return str(caught.value)


def test_what_is_saved_is_loaded(
    tmp_path: Path, model: SV4DUNet, weights: dict[str, Tensor]
) -> None:
    save_checkpoint(tmp_path / "a.safetensors", model, {"steps": "7"})
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]
    loaded = load_checkpoint(tmp_path / "a.safetensors", SMALL)
    assert_holds(loaded, weights)
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_the_public_prefix_is_taken_off_and_other_parts_left(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    public = {PREFIX + key: value for key, value in weights.items()}
    others = {
        "first_stage_model.decoder.conv_in.weight": torch.ones(2),
        "conditioner.embedders.0.x": torch.ones(2),
    }
    save_file({**public, **others}, tmp_path / "public.safetensors")
    assert_holds(load_checkpoint(tmp_path / "public.safetensors", SMALL), weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_given_network_keeps_its_tensors_and_dtype(
    tmp_path: Path, weights: dict[str, Tensor], dtype: torch.dtype
) -> None:
    save_file(weights, tmp_path / "a.safetensors")
    given = SV4DUNet(SMALL, dtype=dtype)
    before = given.out[-1].weight
    assert load_checkpoint(tmp_path / "a.safetensors", given) is given
    assert given.out[-1].weight is before
    assert_holds(given, weights)


def test_a_network_without_weights_is_given_them(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    save_file(weights, tmp_path / "a.safetensors")
    bare = SV4DUNet(SMALL, device="meta", dtype=torch.bfloat16)
    assert_holds(load_checkpoint(tmp_path / "a.safetensors", bare), weights)
    assert {parameter.dtype for parameter in bare.parameters()} == {torch.bfloat16}


def test_wrong_weights_are_named_and_counted(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    wrong = dict(weights)
    for key in ("out.0.bias", "out.0.weight", "time_embed.0.bias", "time_embed.2.bias"):
        del wrong[key]
    wrong["extra.weight"] = torch.ones(1)
    wrong["out.2.bias"] = torch.ones(5)
    wrong["time_embed.0.weight"] = torch.ones(128, 32, dtype=torch.int8)
    path = tmp_path / "wrong.safetensors"
    save_file(wrong, path)
    assert refusal(path) == (
        f"load_checkpoint: {path} does not hold this network's {len(weights)} tensors: "
        f"4 missing ('out.0.bias', 'out.0.weight', 'time_embed.0.bias', ...); "
        f"1 unexpected ('extra.weight'); 1 mis-shaped ('out.2.bias' is [5], wanted [4]); "
        f"1 not floating point ('time_embed.0.weight' is I8)."
    )


def test_a_refused_file_changes_nothing(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    path = tmp_path / "wrong.safetensors"
    save_file({**weights, "out.2.bias": torch.ones(5)}, path)
    given = SV4DUNet(SMALL)
    before = {key: value.clone() for key, value in given.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_checkpoint(path, given)
    assert_holds(given, before)


def test_another_networks_weights_are_refused(tmp_path: Path, model: SV4DUNet) -> None:
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, SV4DUNet(replace(SMALL, separate_motion_merge_factor=True)))
    assert refusal(path) == (
        f"load_checkpoint: {path} does not hold this network's {len(model.state_dict())} tensors: "
        f"1 unexpected ('middle_block.1.time_mixer_motion.mix_factor')."
    )


@pytest.mark.parametrize("name", ["model.ckpt", "model.PT", "model.pth", "zip.safetensors"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    torch.save({"a": torch.ones(1)}, path)
    assert refusal(path) == (
        f"load_checkpoint: {path} is a pickle, which can run code when it is read; "
        f"convert it to safetensors."
    )


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_bare_pickles_are_refused_under_any_name(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes([0x80, protocol]) + b"}q\x00(X\x01\x00\x00\x00a.")
    assert "is a pickle" in refusal(path)


@pytest.mark.parametrize("second", [2, 3, 4, 5])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, second: int) -> None:
    small = SV4DUNet(SMALL)
    path = tmp_path / "unlucky.safetensors"
    save_checkpoint(path, small)
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    wanted = (length // 0x10000 + 1) * 0x10000 + second * 0x100 + 0x80
    padded = json.dumps(header).encode().ljust(wanted)
    path.write_bytes(struct.pack("<Q", wanted) + padded + raw[8 + length :])
    assert path.read_bytes()[:2] == bytes([0x80, second])
    assert_holds(load_checkpoint(path, SMALL), small.state_dict())


def test_a_truncated_file_is_refused(tmp_path: Path, model: SV4DUNet) -> None:
    path = tmp_path / "cut.safetensors"
    save_checkpoint(path, model)
    path.write_bytes(path.read_bytes()[:-100])
    assert refusal(path) == (
        f"load_checkpoint: {path} is not a readable safetensors file "
        f"(Error while deserializing header: incomplete metadata, file not fully covered)."
    )


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08" + b"\x00" * 7 + b"{]------"])
def test_what_is_not_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "text.safetensors"
    path.write_bytes(content)
    assert refusal(path).startswith(
        f"load_checkpoint: {path} is not a readable safetensors file (Error while deserializing"
    )


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"
    assert refusal(path) == f"load_checkpoint: {path} cannot be read (No such file or directory)."
    assert refusal(tmp_path) == f"load_checkpoint: {tmp_path} cannot be read (Is a directory)."


def test_a_failed_write_leaves_the_older_file(
    tmp_path: Path, model: SV4DUNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"older")

    def full(self: Path, target: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CheckpointError) as caught:
        save_checkpoint(path, model)
    assert str(caught.value) == (
        f"save_checkpoint: {path} cannot be written (No space left on device)."
    )
    assert path.read_bytes() == b"older"
    assert [held.name for held in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path, model: SV4DUNet) -> None:
    with pytest.raises(CheckpointError, match="cannot be written"):
        save_checkpoint(tmp_path / "nowhere" / "a.safetensors", model)


def test_the_same_weights_give_the_same_bytes(tmp_path: Path, model: SV4DUNet) -> None:
    for name in ("a", "b"):
        save_checkpoint(tmp_path / name, model)
    digest = hashlib.sha256((tmp_path / "a").read_bytes()).hexdigest()
    assert checkpoint_sha256(tmp_path / "a") == checkpoint_sha256(tmp_path / "b") == digest
    assert load_file(tmp_path / "a").keys() == model.state_dict().keys()


def test_a_digest_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="none cannot be read"):
        checkpoint_sha256(tmp_path / "none")

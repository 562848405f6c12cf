"""Configurations: the public names are taken, and what they ask for is built or refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from turbo4d.models.config import SV4DConfig
from turbo4d.models.errors import ConfigError
from turbo4d.models.scm import SCMModule
from turbo4d.models.unet import SV4DUNet

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"dropout": 0.1}, "dropout is 0.1; only 0 is implemented."),
    ({"legacy": True}, "legacy is True; only False is implemented."),
    ({"num_classes": None}, "num_classes is None; only 'sequential' is implemented."),
    ({"time_kernel_size": [5, 1, 1]}, "time_kernel_size is (5, 1, 1); only (3, 1, 1) is "
     "implemented."),
    ({"transformer_depth": 2}, "transformer_depth is 2; only 1 is implemented."),
    ({"use_motion_attention": False}, "use_motion_attention is False; only True is implemented."),
    ({"time_block_merge_strategy": "fixed"}, "time_block_merge_strategy is 'fixed'; only "
     "'learned_with_images' is implemented."),
    ({"spatial_transformer_attn_type": "sparse"}, "spatial_transformer_attn_type is 'sparse'; "
     "only 'softmax' or 'softmax-xformers' is implemented."),
    ({"attention_3d": "windowed"}, "attention_3d is 'windowed'; only 'shipped' or 'full' is "
     "implemented."),
    ({"attention_3d": "full"}, "attention_3d is 'full' but use_3d_attention is False; set "
     "use_3d_attention=True or leave attention_3d at 'shipped'."),
    ({"in_channels": 0}, "in_channels is 0; wanted a positive whole number."),
    ({"views": 2.5}, "views is 2.5; wanted a positive whole number."),
    ({"frames": True}, "frames is True; wanted a positive whole number."),
    ({"channel_mult": (1, -2)}, "channel_mult is -2; wanted a positive whole number."),
    ({"use_camera_emb": 1}, "use_camera_emb is 1; wanted True or False."),
    ({"time_block_merge_factor": "half"}, "time_block_merge_factor is 'half'; wanted a number."),
    ({"attention_resolutions": (8, 3)}, "attention_resolutions has 3; with 4 levels the "
     "downsampling factors are [1, 2, 4, 8]."),
    ({"model_channels": 80, "adm_in_channels": 320}, "a level has 80 channels (model_channels "
     "80 x 1); wanted a multiple of the norm groups 32."),
    ({"num_head_channels": 96}, "a level has 320 channels (model_channels 320 x 1); wanted a "
     "multiple of the head size 96."),
    ({"use_camera_emb": True, "adm_in_channels": 768}, "adm_in_channels is 768; use_camera_emb "
     "feeds the view embedding with the time embedding and wants 4 x model_channels = 1280."),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), REFUSED, ids=lambda value: str(value)[:40])
def test_another_network_is_refused(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SV4DConfig(**change)
    assert str(caught.value) == f"SV4DConfig: {sentence}"


def test_an_unknown_name_lists_the_choices() -> None:
    with pytest.raises(ConfigError) as caught:
        SV4DConfig.named("sv5d")
    assert str(caught.value) == (
        "SV4DConfig: no configuration is named 'sv5d'; "
        "choose 'nano', 'sv4d', 'sv4d2', 'sv4d2_8views', 'tiny'."
    )


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="use_rope"):
        SV4DConfig(use_rope=True)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("field", dataclasses.fields(SV4DConfig), ids=lambda field: field.name)
def test_no_option_is_left_unread(field: dataclasses.Field[Any]) -> None:
    wrong: dict[str, Any] = {field.name: ("none such",)}
    with pytest.raises(ConfigError, match=field.name):
        SV4DConfig(**wrong)


def test_lists_of_a_json_file_make_a_hashable_configuration() -> None:
    listed = SV4DConfig(channel_mult=[1, 2, 4, 4], attention_resolutions=[4, 2, 1])
    assert listed == SV4DConfig()
    assert hash(listed) == hash(SV4DConfig())


def test_nano_has_attention_where_sv4d_has_it() -> None:
    """At every level but the deepest, and in the middle."""
    for name in ("nano", "sv4d"):
        model = SV4DUNet(SV4DConfig.named(name), device="meta")
        outer = model.config.num_res_blocks * 2 + 1
        with_chain = [
            any(isinstance(part, SCMModule) for part in stage.children())
            for stage in model.output_blocks
        ]
        deepest = model.config.num_res_blocks + 1
        assert with_chain == [False] * deepest + [True] * (len(with_chain) - deepest)
        assert isinstance(model.middle_block[1], SCMModule)
        assert sum(isinstance(m, SCMModule) for m in model.modules()) == (
            outer * (len(model.config.channel_mult) - 1) + 1
        )


def test_nano_is_small() -> None:
    model = SV4DUNet(SV4DConfig.named("nano"), device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == 6_424_438

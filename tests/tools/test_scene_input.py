"""A scene folder is read whole, or refused with the name of the image that does not fit."""

import pytest
import torch
from PIL import Image
from turbo4d.tools.failures import CallError
from turbo4d.tools.scene_input import held_out_scene, scene_folder

from tests.tools.test_cli import refused

VIEWS, FRAMES, SIZE = 4, 3, 64


@pytest.fixture
def folder(tmp_path):
    scene = held_out_scene(7, VIEWS, FRAMES, SIZE)
    for stem, images in (("frame", scene.frames), ("view", scene.views)):
        for index, image in enumerate(images):
            pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(tmp_path / f"{stem}_{index}.png")
    return tmp_path


def read(folder):
    return scene_folder(folder, VIEWS, FRAMES, SIZE)


def test_a_folder_is_the_scene_it_was_made_from(folder):
    scene, got = held_out_scene(7, VIEWS, FRAMES, SIZE), read(folder)
    assert torch.allclose(got.frames, scene.frames, rtol=0, atol=1 / 500)
    assert torch.allclose(got.views, scene.views, rtol=0, atol=1 / 500)
    assert torch.allclose(got.azimuth_rad, scene.azimuth_rad, rtol=1e-6, atol=0)
    assert torch.allclose(got.polar_rad, scene.polar_rad, rtol=1e-6, atol=0)
    assert got.truth is None
    assert got.mask is None


def test_a_transparent_ground_is_white(folder):
    Image.new("RGBA", (SIZE, SIZE), (9, 9, 9, 0)).save(folder / "view_1.png")
    assert read(folder).views[1].min() == 1.0


def test_another_size(folder):
    Image.new("RGB", (32, SIZE)).save(folder / "frame_1.png")
    with pytest.raises(CallError) as error:
        read(folder)
    assert str(error.value) == (
        "frame_1.png is 32 x 64 pixels; every image of the scene must be 64 x 64, so resize it."
    )


def test_too_few(folder):
    (folder / "view_2.png").unlink()
    with pytest.raises(CallError) as error:
        read(folder)
    assert str(error.value) == (
        f"--input '{folder}' has 3 view images and view_2.png is missing; the model wants 4, "
        "view_0.png to view_3.png."
    )


def test_too_many(folder):
    Image.new("RGB", (SIZE, SIZE)).save(folder / "frame_3.png")
    with pytest.raises(CallError) as error:
        read(folder)
    assert str(error.value) == (
        f"--input '{folder}' has 4 frame images; the model wants 3, frame_0.png to frame_2.png."
    )


def test_no_image(folder):
    (folder / "view_0.png").write_text("not a picture")
    with pytest.raises(CallError) as error:
        read(folder)
    assert str(error.value) == "view_0.png is not a readable image; give a PNG of 64 x 64."


def test_no_folder(capsys, tmp_path):
    place = tmp_path / "nowhere"
    words = ["generate", "--model", "tiny", "--input", place, "--out", tmp_path / "out"]
    assert refused(capsys, *words) == (
        2,
        f"--input '{place}' is not a folder; name one that holds frame_0.png.",
    )
    assert list(tmp_path.iterdir()) == []

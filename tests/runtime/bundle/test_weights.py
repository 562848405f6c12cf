"""Weights are views of one mapping of their file, which nothing writes to."""

from dataclasses import replace

import pytest
import torch
from turbo4d.runtime.bundle.bundle_files import Bundle
from turbo4d.runtime.bundle.manifest import WeightRow
from turbo4d.runtime.bundle.weights import BundleWeights
from turbo4d.runtime.errors import BundleError

from tests.runtime.bundle.handmade import W, write_bundle


def test_they_are_views_of_one_mapping(tmp_path):
    manifest = write_bundle(tmp_path)
    weights = BundleWeights(Bundle(tmp_path, manifest))
    assert weights.names == ("w", "unused")
    assert weights["w"].tolist() == [W]
    assert weights["unused"].tolist() == [0.0, 1.0, 2.0]
    assert weights["unused"].data_ptr() - weights["w"].data_ptr() == 64
    assert weights["w"].data_ptr() == weights["w"].data_ptr()
    assert weights["w"].data_ptr() % 64 == 0
    assert weights.on("w", torch.device("cpu")).data_ptr() == weights["w"].data_ptr()


def test_a_write_never_reaches_the_file(tmp_path):
    manifest = write_bundle(tmp_path)
    before = (tmp_path / manifest.weights_file).read_bytes()
    BundleWeights(Bundle(tmp_path, manifest))["w"].fill_(9.0)
    assert (tmp_path / manifest.weights_file).read_bytes() == before
    assert BundleWeights(Bundle(tmp_path, manifest))["w"].tolist() == [W]


def test_every_dtype_is_read_as_it_was_written(tmp_path):
    manifest = write_bundle(tmp_path)
    rows, data = [], b""
    wanted = {
        name: torch.tensor([[0, 1], [1, 0]], dtype=getattr(torch, name))
        for name in ("bfloat16", "bool", "float16", "float64", "int64", "int8", "uint8")
    }
    for name, value in wanted.items():
        data += b"\0" * (-len(data) % 64)
        size = value.numel() * value.element_size()
        rows.append(WeightRow(name, len(data), size, (2, 2), name))
        data += value.view(torch.uint8).numpy().tobytes()
    rows.append(WeightRow("empty", 0, 0, (0, 3), "float32"))
    path = tmp_path / manifest.weights_file
    path.write_bytes(data)
    files = dict(manifest.files)
    files[path.name] = replace(files[path.name], size_bytes=len(data))
    weights = BundleWeights(Bundle(tmp_path, replace(manifest, weights=tuple(rows), files=files)))
    for name, value in wanted.items():
        assert torch.equal(weights[name], value)
    assert weights["empty"].shape == (0, 3)


def test_a_file_that_shrank_since_it_was_checked_is_refused(tmp_path):
    manifest = write_bundle(tmp_path)
    (tmp_path / manifest.weights_file).write_bytes(b"")
    with pytest.raises(BundleError, match=r"its size has changed since it was checked\.$"):
        BundleWeights(Bundle(tmp_path, manifest))

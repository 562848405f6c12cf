"""A manifest reads back as it was; one that contradicts itself is refused, signed or not."""

import copy
import json
import re
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from turbo4d.runtime.bundle import ladder
from turbo4d.runtime.bundle.manifest import MANIFEST, Target
from turbo4d.runtime.bundle.manifest_file import _digest, of_json, read_manifest, to_json
from turbo4d.runtime.errors import BundleError

from tests.runtime.bundle.handmade import open_text, write_bundle
from turbo4d import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def values(folder):
    return json.loads((folder / MANIFEST).read_text())


@pytest.fixture(scope="module")
def paths(values):
    """Of every value within a manifest."""
    return [path for path in places(values) if path]


def signed(values) -> str:
    """As whoever edits a manifest and knows the digest would write it."""
    values = {key: value for key, value in values.items() if key != "digest"}
    return json.dumps({**values, "digest": _digest(values)})


def edited(values, path, value) -> str:
    values = copy.deepcopy(values)
    held = values
    for key in path[:-1]:
        held = held[key]
    if value is ...:
        del held[path[-1]]
    else:
        held[path[-1]] = value
    return signed(values)


def refused(text, values, path, value):
    with pytest.raises(BundleError, match=f"^{re.escape(text)}"):
        of_json(edited(values, path, value))


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("hoists", [True, False])
def test_it_reads_back_as_it_was(tmp_path, conditional, hoists):
    target = Target("tensorrt-rtx", "sm89", executed=False, settings={"a": "b"})
    wrote = write_bundle(tmp_path, conditional=conditional, hoists=hoists, target=target)
    assert read_manifest(tmp_path) == wrote
    assert to_json(read_manifest(tmp_path)) == (tmp_path / MANIFEST).read_text()


def test_fields_are_read_strictly(values):
    refused("manifest: field 'extra' is unknown.", values, ["extra"], 1)
    refused("manifest: field 'dtype' is missing.", values, ["dtype"], ...)
    refused("manifest.target: field 'device' is missing.", values, ["target", "device"], ...)
    refused("manifest.target.executed is 1; wanted true", values, ["target", "executed"], 1)
    refused("manifest.model is null; wanted a text.", values, ["model"], None)
    path = ["engines", 0, "takes", 0, "shape", 0]
    for value in (-1, True, 1.5, "6", 1 << 70, None):
        refused("manifest.engines[0].takes[0].shape[0] is ", values, path, value)
    path = ["engines", 0, "takes", 0, "kind"]
    refused(
        "manifest.engines[0].takes[0].kind is 'x'; wanted".replace("'x'", '"x"'), values, path, "x"
    )
    path = ["variants", 0, "key", "actions"]
    text = "manifest.variants[0].key.actions[0][1]: action: 'reduce' is unknown; there are"
    refused(text, values, path, [["core", "reduce"]])
    refused("manifest.variants[0].key.actions[0] has 1 entries", values, path, [["core"]])
    path = ["signature", "geometry", "views"]
    refused("manifest.signature.geometry: geometry: views is 0; wanted", values, path, 0)
    refused("manifest.signature.invariant has the name 'x'", values, ["signature", "invariant"],
            {"x": []})  # fmt: skip


def test_the_digest_is_held_against_what_it_is_of(values):
    with pytest.raises(BundleError, match=r"^its digest is not that of what it holds"):
        of_json(json.dumps({**values, "digest": "0" * 64}))
    with pytest.raises(BundleError, match=r"^its digest is not that"):
        of_json(json.dumps({key: value for key, value in values.items() if key != "digest"}))


def test_text_that_is_no_manifest():
    for text, said in (
        ("", "line 1 is no JSON"),
        ("[]", "it holds no object"),
        ("{}", "it has no schema_version"),
        ('{"schema_version": "1"}', "it has no schema_version"),
        ('{"schema_version": true}', "it has no schema_version"),
        ('{"schema_version": 7}', "its schema_version is 7; this turbo4d reads up to 1."),
        ('{"a": 1, "a": 2}', "'a' stands twice in one object."),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": ' + "1" * 5000 + "}", "it is no JSON: Exceeds the limit"),
    ):
        with pytest.raises(BundleError, match=f"^{re.escape(said)}"):
            of_json(text)


def test_one_that_is_nested_without_end(tmp_path):
    (tmp_path / MANIFEST).write_text("[" * 100_000)
    with pytest.raises(BundleError, match=rf"{MANIFEST}: it is nested too deep"):
        read_manifest(tmp_path)


def test_one_that_is_not_text(tmp_path):
    (tmp_path / MANIFEST).write_bytes(b"\xff\xfe{}")
    with pytest.raises(BundleError, match=rf"{MANIFEST}: it cannot be read: 'utf-8'"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../plan.json", "/etc/passwd", "a/../../b", "a\\b", "..", ".", "", "a//b", "a/", ".hidden",
     "C:plan", "a\nb", "a\0b", "manifest.json", "\ud800", "~/x", "a b"],
)  # fmt: skip
def test_a_name_that_leads_elsewhere(values, name):
    row = {"size_bytes": 1, "sha256": "0" * 64}
    text = f"file {name!r} has a name that no bundle holds; wanted letters"
    refused(text, values, ["files", name], row)


def test_rows_that_lead_nowhere_or_disagree(values):
    names = [row["name"] for row in values["engines"]]
    first = names.index("v0")
    row = values["engines"][first]
    at = {each["source"]: place for place, each in enumerate(row["takes"])}
    takes = ["engines", first, "takes"]

    def changed(path, value, text):
        refused(text, values, path, value)

    changed(["plan"], "other.json", "the plan is file 'other.json', which is not among its files.")
    changed(["weights_file"], "", "the weights is file '', which is not among its files.")
    changed([*takes[:2], "graph"], "x.onnx", "engine 'v0' is file 'x.onnx', which is not among")
    changed([*takes[:2], "graph"], "", "engine 'v0' has neither a graph nor an engine.")
    changed([*takes[:2], "name"], "prologue", "engine 'prologue' stands twice.")
    changed(["prologue"], "v9", "prologue 'v9' is none of its engines.")
    changed(["prologue"], None, "its engines give 2 outputs; the call's result has 1.")
    changed([*takes, at["x"], "shape"], [7], "engine 'v0': 'x' is float32[7]; input 'x' is float32")
    changed([*takes, at["x"], "dtype"], "float16", "engine 'v0': 'x' is float16[6]; input 'x' is")
    changed([*takes, at["x"], "dtype"], "float31", "dtype 'float31' is unknown; there are bfloat16")
    changed(
        [*takes, at["x"], "source"], "z", "engine 'v0': 'x' is the input 'z', which is unknown."
    )
    changed([*takes, at["x"], "kind"], "output", "engine 'v0': 'x' is a output where none may be.")
    changed(
        [*takes, at["w"], "shape"], [2], "engine 'v0': 'w' is float32[2]; weight 'w' is float32"
    )
    changed([*takes, at["0"], "source"], "2", "engine 'v0': 'p0' is the prologue '2', which is unk")
    changed([*takes, at["0"], "source"], "00", "engine 'v0': 'p0' is the prologue '00', which is u")
    gives = [*takes[:2], "gives"]
    changed([*gives, 0, "source"], "1", "engine 'v0': 'out' is the output '1', which is unknown.")
    changed([*gives, 1, "kind"], "output", "its engines give 2 outputs; the call's result has 1.")
    other = ["engines", names.index("v1"), "gives", 0, "dtype"]
    changed(other, "float16", "engine 'v1': 'out' is float16[6]; output '0' is float32[6].")
    changed(
        [*gives, 1, "shape"], [5], "engine 'v0': 'new_core' is float32[5]; its region's slot is"
    )
    changed(
        [*gives, 1, "source"], "nowhere", "engine 'v0': 'new_core' is the slot 'nowhere', which"
    )
    changed([*gives, 1, "name"], "out", "engine 'v0' has 'out' twice.")
    changed(["variants", 0, "engine"], "v9", "variant ")
    changed(["variants", 0, "engine"], "prologue", "variant ")
    changed(["variants", 0, "writes"], [], "variant ")
    changed(["variants", 0], values["variants"][1], "variant ")
    changed(["dtype"], "float", "dtype 'float' is unknown; there are bfloat16, bool")


def test_flags_follow_the_slots(tmp_path):
    """A shared engine is called with its slots, then its flags."""
    write_bundle(tmp_path, conditional=True)
    values = json.loads((tmp_path / MANIFEST).read_text())
    names = [row["name"] for row in values["engines"]]
    takes = values["engines"][names.index("conditional")]["takes"]
    path = ["engines", names.index("conditional"), "takes"]
    text = "engine 'conditional' takes a slot after a flag; wanted slots, then flags."
    refused(text, values, path, [*takes[:-4], takes[-1], *takes[-4:-1]][::-1])
    text = "engine 'conditional': 'skip_core' is float32[]; flag 'core' is bool[]."
    core = next(at for at, row in enumerate(takes) if row["name"] == "skip_core")
    refused(text, values, [*path, core, "dtype"], "float32")
    refused("variant ", values, path, [row for row in takes if row["name"] != "skip_core"])


def test_a_signature_that_does_not_hold_together(values):
    def changed(path, value, text):
        refused(text, values, ["signature", *path], value)

    changed(["sample"], 3, "signature: input 3 is beyond its 3 inputs.")
    changed(["conditioning"], [5], "signature: input 5 is beyond its 3 inputs.")
    changed(["kinds"], ["weight", "input", "input"], "signature: a bundle's has inputs alone")
    changed(["names"], ["x", "t", "y"], "signature has the inputs ['x', 't', 'y'] and the call")
    changed(["regions", 1, "parent"], "nowhere", "region 'down.chain' names the unknown 'nowhere'.")
    changed(["regions", 0, "parent"], "core", "region 'core' lies within itself.")
    changed(["regions", 1, "name"], "core", "region 'core' stands twice.")


def test_weights_lie_within_their_file_and_apart(values):
    def changed(path, value, text):
        refused(text, values, ["weights", *path], value)

    changed([0, "size_bytes"], 8, "weight 'w' has 8 bytes; its shape takes 4.")
    changed(
        [1, "offset"], 128, "weight 'unused' lies at byte 128, 12 long; wanted a multiple of 64"
    )
    changed([1, "offset"], 32, "weight 'unused' lies at byte 32, 12 long; wanted a multiple of 64")
    changed([1, "offset"], 0, "weights 'w' and 'unused' overlap.")
    changed([1, "name"], "w", "weight 'w' stands twice.")
    changed([1, "shape"], [1 << 61, 1 << 61], "weight 'unused' has 12 bytes; its shape takes ")


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = (
    LEAVES | st.lists(LEAVES, max_size=2) | st.dictionaries(st.text(max_size=3), LEAVES, max_size=2)
)


def places(value, path=()):
    yield path
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(
        value, list) else ()  # fmt: skip
    for key, inner in entries:
        yield from places(inner, (*path, key))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_any_field_may_hold_anything(values, paths, data):
    """With a right digest: it is refused in our words, or it is a manifest."""
    path = data.draw(st.sampled_from(paths))
    value = data.draw(st.just(...) | VALUES)
    if value is ... or path[0] == "digest":
        value = 0
    try:
        text = edited(values, path, value)
    except ValueError:  # what JSON cannot say: NaN, a surrogate
        return
    try:
        found = of_json(text)
    except BundleError:
        return
    assert of_json(to_json(found)) == found


@settings(max_examples=50, deadline=None, derandomize=True)
@given(data=st.data())
def test_whatever_is_a_manifest_loads_or_is_refused_in_our_words(folder, values, paths, data):
    path = data.draw(st.sampled_from(paths))
    text = edited(values, path, data.draw(st.integers(0, 9) | st.sampled_from(["", "x", "cuda"])))
    (folder / MANIFEST).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ladder.OPENERS, "onnxruntime", open_text)
        with suppress(BundleError):  # any other error fails the test
            load(folder)

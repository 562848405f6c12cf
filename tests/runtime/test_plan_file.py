import json
import re
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from turbo4d.runtime.errors import PlanError
from turbo4d.runtime.geometry import Geometry
from turbo4d.runtime.plan import Plan
from turbo4d.runtime.slot_storage import STORAGES

from tests.runtime.fake import plan_of
from tests.runtime.test_action import ACTIONS

NAMES = st.text(min_size=1, max_size=8)
SIZES = st.integers(1, 10**6)


@st.composite
def plans(draw) -> Plan:
    levels = sorted(draw(st.sets(st.floats(1e-3, 1e4), min_size=1, max_size=5)), reverse=True)
    rows = st.none() | st.dictionaries(NAMES, ACTIONS, max_size=3)
    streams = st.lists(rows, min_size=len(levels), max_size=len(levels)).map(tuple)
    return Plan(
        name=draw(NAMES),
        model=draw(NAMES),
        geometry=Geometry(*(draw(SIZES) for _ in range(5))),
        levels=tuple(levels),
        level_unit="sigma",
        streams=draw(st.dictionaries(NAMES, streams, min_size=1, max_size=3)),
        max_age=draw(st.integers(0, 9)),
        max_variants=draw(SIZES),
        max_cache_bytes=draw(st.none() | SIZES),
        error_budget_db=draw(st.none() | st.floats(0, 100)),
        exact=draw(st.booleans()),
        origin=draw(st.text("ab é'\"", max_size=8)),
        storage=draw(st.dictionaries(NAMES, st.sampled_from(STORAGES), max_size=2)),
    )


def test_a_file_has_every_field_of_a_plan():
    held = json.loads(plan_of({}).to_json())
    assert {*held} == {field.name for field in fields(Plan)}


@given(plans())
def test_text_round_trips(plan):
    assert Plan.from_json(plan.to_json()) == plan
    assert Plan.from_json(plan.to_json()).to_json() == plan.to_json()


def test_the_file_is_as_documented(tmp_path):
    plan = plan_of({}, {"core": "reuse"}, None)
    plan.save(tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text()) == {
        "schema_version": 3,
        "name": "p",
        "model": "abc",
        "geometry": {"batch": 2, "views": 4, "frames": 3, "height": 8, "width": 8},
        "levels": [700.0, 500.0, 300.0],
        "level_unit": "sigma",
        "streams": {"main": [{}, {"core": "reuse"}, None]},
        "max_age": 4,
        "max_variants": 8,
        "max_cache_bytes": None,
        "error_budget_db": None,
        "exact": True,
        "origin": "",
        "storage": {},
        "weights_sha256": "",
    }
    assert Plan.load(tmp_path / "plan.json") == plan


def test_compute_said_aloud_is_compute():
    assert plan_of({"core": "compute"}) == plan_of({})


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "plan.json"
    plan_of({}).save(path)
    before = path.read_text()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        plan_of({}, {}).save(path)
    assert path.read_text() == before
    assert [each.name for each in tmp_path.iterdir()] == ["plan.json"]


def test_a_reader_sees_the_old_file_or_the_new_one_and_never_half(tmp_path):
    path = tmp_path / "plan.json"
    plan_of({}).save(path)
    with path.open() as reader:
        plan_of({}, {}).save(path)
        assert Plan.from_json(reader.read()) == plan_of({})
    assert Plan.load(path) == plan_of({}, {})


def changed(**fields) -> str:
    return json.dumps({**json.loads(plan_of({}, {"core": "reuse"}).to_json()), **fields})


WITHOUT = {k: v for k, v in json.loads(plan_of({}).to_json()).items() if k != "max_age"}
FIELDS = (
    "error_budget_db, exact, geometry, level_unit, levels, max_age, max_cache_bytes, max_variants, "
    "model, name, origin, schema_version, storage, streams, weights_sha256"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "plan file: line 1 is no JSON: Expecting property name enclosed in double quotes."),
        ("[]", "plan file: it holds a list; wanted an object."),
        ('{"a": NaN}', "plan file: NaN is no JSON number; wanted a finite one."),
        ('{"a": 1, "a": 2}', "plan file: 'a' stands twice in one object; keep one."),
        (
            changed(schema_version=4, hints=[]),
            "plan file: schema_version is 4; this turbo4d reads 1 to 3. "
            "Read it with the turbo4d that wrote it, or make the plan anew with this one.",
        ),
        ("{}", "plan file: field 'schema_version' is missing; give it."),
        (
            changed(schema_version=1),
            "plan file: field 'origin' is unknown to schema_version 1; write schema_version 2.",
        ),
        (changed(origin=None), "plan file: field 'origin' is null; wanted a text."),
        (changed(origin="a\nb"), "plan: origin has 2 lines; wanted one, or none."),
        (changed(storage=[]), "plan file: field 'storage' is []; wanted an object of texts."),
        (
            changed(storage={"core": 8}),
            "plan file: storage of region 'core' is 8; wanted a text.",
        ),
        (
            changed(schema_version=True),
            "plan file: field 'schema_version' is true; wanted an integer.",
        ),
        (changed(speed=9), f"plan file: field 'speed' is unknown; there are {FIELDS}."),
        (json.dumps(WITHOUT), "plan file: field 'max_age' is missing; give it."),
        (changed(max_age="4"), "plan file: field 'max_age' is \"4\"; wanted an integer."),
        (changed(max_age=True), "plan file: field 'max_age' is true; wanted an integer."),
        (changed(exact=1), "plan file: field 'exact' is 1; wanted true or false."),
        (
            changed(geometry={}),
            "plan file: geometry: got nothing; wanted batch, frames, height, views, width.",
        ),
        (changed(levels=[2, "1"]), 'plan file: level 1 is "1"; wanted a number.'),
        (changed(streams={"a": {}}), "plan file: stream 'a' is {}; wanted a list of rows."),
        (
            changed(streams={"a": [{}, 1]}),
            "plan file: stream 'a', step 1 is 1; wanted an object of actions or null.",
        ),
        (
            changed(streams={"a": [{}, {"core": 1}]}),
            "plan file: stream 'a', step 1, region 'core' is 1; wanted an action.",
        ),
        (
            changed(streams={"a": [{}, {"core": "skip"}]}),
            "plan file: stream 'a', step 1, region 'core': action: 'skip' is unknown; there are "
            "bypass, compute, prune(KEEP), reuse, reuse(ORDER), reuse(mix=W,...), "
            "reuse(mix=W,...;sample=W).",
        ),
        (
            changed(streams={"a": [{}]}),
            "plan: stream 'a' has 1 rows; wanted one for each of the 2 levels.",
        ),
        (changed(streams={}), "plan: it has no stream; wanted at least one, such as 'main'."),
        (
            changed(max_variants=0),
            "plan: max_age is 4 and max_variants 0; wanted at least 0 and 1.",
        ),
        (
            changed(max_cache_bytes=-1),
            "plan: max_cache_bytes is -1; wanted at least 0, or none for no bound.",
        ),
        (
            changed(error_budget_db=-0.5),
            "plan: error_budget_db is -0.5; wanted a PSNR from 0, or none.",
        ),
        (
            changed(levels=[1, 2]),
            "levels: step 1 has 2 after 1; noise levels must fall from step to step.",
        ),
        ("[" * 100_000, "plan file: it is nested too deep; this is no plan."),
        (
            '{"a": ' + "1" * 5000 + "}",
            "plan file: it is no JSON: Exceeds the limit (4300 digits) for integer string "
            "conversion: value has 5000 digits; use sys.set_int_max_str_digits() to increase the "
            "limit.",
        ),
        (
            changed(levels=[10**400, 1]),
            "levels: step 0 has inf, which is no sigma that a model is fed.",
        ),
        (
            changed(streams=[0] * 99),
            "plan file: field 'streams' is [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ...; wanted an "
            "object of lists of rows.",
        ),
        (
            changed(error_budget_db=float("inf")).replace("Infinity", "1e999"),
            "plan: error_budget_db is inf; wanted a PSNR from 0, or none.",
        ),
        (
            changed(level_unit="snr"),
            "levels: unit 'snr' is unknown; there are c_noise, flow, flow_timestep, log_sigma, "
            "sigma, timestep.",
        ),
    ],
)
def test_other_texts_are_refused(text, message):
    with pytest.raises(PlanError) as caught:
        Plan.from_json(text)
    assert str(caught.value) == message


def test_an_error_names_the_file(tmp_path):
    (tmp_path / "plan.json").write_text("[]")
    text = f"{tmp_path / 'plan.json'}: plan file: it holds a list; wanted an object."
    with pytest.raises(PlanError, match=f"^{re.escape(text)}$"):
        Plan.load(tmp_path / "plan.json")


def test_a_plan_of_another_schema_version_is_refused():
    with pytest.raises(PlanError, match=r"^plan: schema version 4; this turbo4d reads 3\. "):
        plan_of({}, schema_version=4)


@pytest.mark.parametrize(
    ("version", "since"), [(1, ("origin", "storage", "weights_sha256")), (2, ("weights_sha256",))]
)
def test_a_file_of_an_older_version_is_read_as_one_of_this(version, since):
    plan = plan_of({}, {"core": "reuse"})
    old = {k: v for k, v in json.loads(plan.to_json()).items() if k not in since}
    assert Plan.from_json(json.dumps({**old, "schema_version": version})) == plan

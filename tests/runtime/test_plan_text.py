from turbo4d.runtime.plan_text import diff, picture

from tests.runtime.fake import REGIONS, plan_of

CHAINS = {"down.chain": "reuse", "up.chain": "reuse"}


def test_regions_that_change_alike_share_a_line():
    assert diff(plan_of({}, {}), plan_of({}, CHAINS)) == (
        "stream main step 1 down.chain, up.chain: compute -> reuse",
    )
    many = {f"{n}.chain": "reuse" for n in range(5)}
    assert diff(plan_of({}, {}), plan_of({}, many)) == (
        "stream main step 1 5 regions (0.chain, 1.chain, 2.chain, ...): compute -> reuse",
    )


def test_the_picture_merges_regions_that_are_treated_alike():
    plan = plan_of({}, {"core": "reuse"}, CHAINS)
    assert picture(plan, REGIONS).splitlines() == [
        "main      012",
        "core      #r#",
        "2 chains  #.r",
        "",
        "# compute  r reuse  p prune  b bypass  . inside one of these",
    ]


def test_the_picture_shows_each_stream_and_the_steps_it_leaves_out():
    rows = {"even": [{}, None], "odd": [None, {"down.chain": "bypass", "up.chain": "prune(0.5)"}]}
    assert picture(plan_of(streams=rows), REGIONS).splitlines()[:-2] == [
        "even      01",
        "core      # ",
        "2 chains  # ",
        "",
        "odd         01",
        "core         #",
        "down.chain   b",
        "up.chain     p",
    ]


def test_equal_plans_do_not_differ():
    assert diff(plan_of({}), plan_of({})) == ()


def test_a_difference_names_fields_and_cells():
    old = plan_of({}, {"core": "reuse"}, None, {}, max_age=4)
    new = plan_of({}, {"up.chain": "bypass"}, {}, max_age=2, name="q")
    assert diff(old, new) == (
        "name: p -> q",
        "levels: (700.0, 500.0, 300.0, 100.0) -> (700.0, 500.0, 300.0)",
        "max_age: 4 -> 2",
        "stream main step 1 core: reuse -> compute",
        "stream main step 1 up.chain: compute -> bypass",
        "stream main step 2 not run -> run",
        "stream main step 3 run -> not run",
    )
    both = plan_of(streams={"main": [{}], "b": [{}]})
    assert diff(plan_of({}), both) == ("stream b: added",)
    assert diff(both, plan_of({})) == ("stream b: removed",)

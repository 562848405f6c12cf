import re

from hypothesis import given
from hypothesis import strategies as st
from turbo4d.runtime.action import BYPASS, REUSE, Action
from turbo4d.runtime.plan import VariantKey

CHAINS = tuple(sorted(f"{side}.{level}.chain" for side in ("down", "up") for level in range(3)))
NAMES = ("core", *CHAINS)
SUBSETS = st.lists(st.sampled_from(sorted(NAMES)), unique=True).map(sorted).map(tuple)


def key(reused=(), writes=(), bypassed=()):
    actions = {**dict.fromkeys(reused, REUSE), **dict.fromkeys(bypassed, BYPASS)}
    return VariantKey(tuple(sorted(actions.items())), tuple(writes), exact=True)


def test_names_are_readable():
    assert key().name == "compute"
    assert key(reused=["core"]).name == "core.reuse"
    assert key(writes=["core"]).name == "compute+core.w"
    assert key(bypassed=["core"], writes=["core"]).name == "core.bypass+core.w"
    # Where regions are counted, a digest of which they are follows.
    assert re.fullmatch(r"compute\+6w\.[0-9a-f]{4}", key(writes=CHAINS).name)
    assert re.fullmatch(r"6chain\.reuse\+core\.w\.[0-9a-f]{4}", key(CHAINS, ["core"]).name)


def test_names_are_the_same_on_every_machine():
    assert key(reused=CHAINS).name == "6chain.reuse.1735"


def test_every_order_of_reuse_is_one_graph():
    ordered = VariantKey((("core", Action("reuse", order=2)),), (), exact=True)
    assert ordered == key(reused=["core"])
    assert ordered.actions == (("core", REUSE),)


def test_it_reads_what_it_reuses_and_not_what_it_leaves_out():
    assert key(reused=["core"], bypassed=[CHAINS[0]]).reads == ("core",)


def test_it_reads_what_says_which_tokens_matter():
    pruned = VariantKey((("a.camera", Action("prune", keep=0.5)),), (), True, ("a.spatial.x",))
    assert pruned.reads == ("a.camera", "a.spatial.x")
    assert pruned.name == "a.camera.prune(0.5)"


@given(SUBSETS, SUBSETS, SUBSETS, SUBSETS)
def test_different_variants_have_different_names(reused, writes, other_reused, other_writes):
    one, other = key(reused, writes), key(other_reused, other_writes)
    assert (one.name == other.name) == (one == other)

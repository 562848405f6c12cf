"""The table of foreign models shows what was measured, and no cell is empty."""

from turbo4d.tools.tables.foreign import block

ROW = {
    "model": "SomeUNet",
    "sites": {"spatial": 4, "cross": 2},
    "unclassified": [],
    "regions": {"core": 1},
    "identity_error": 0.0,
    "exact_error": 7.6e-7,
    "calls_by_variant": {
        "compute+core.w": 4,
        "compute+5w.b216": 1,
        "4chain.reuse.f9d1": 2,
        "core.reuse": 12,
        "prologue": 1,
    },
    "flops_share": 0.344,
    "speedup": 3.126,
    "latent_error": 0.0204,
}
REPORT = {
    "preset": "balanced", "steps": 20, "runs": 7, "dtype": "fp32", "lowering": "eager",
    "weights": "random", "device": "a machine", "threads": 2, "torch": "2.13.0",
    "diffusers": "0.42.1", "commit": "0123456789abcdef",
}  # fmt: skip


def lines(**changes):
    return block({**REPORT, "rows": [{**ROW, **changes}]}).splitlines()


def test_a_row_holds_the_figures():
    assert lines()[2] == (
        "| `SomeUNet` | 4 spatial, 2 cross | none | 1 core | equal in every bit | off by 8e-07 | "
        "12 `core.reuse`, 5 `compute`, 2 `4chain.reuse`, 1 `prologue` | 34% | **3.13x** | 2.0e-02 |"
    )


def test_what_is_not_classified_stands_with_its_reason():
    reason = {"name": "unclassified", "reason": "its sequence has one token"}
    assert "| `unclassified`: its sequence has one token |" in lines(unclassified=[reason])[2]


def test_no_cell_is_empty_and_the_machine_is_named():
    head, _, row, *_, notes = lines()
    assert head.count("|") == row.count("|")
    assert all(cell.strip() for cell in row.strip("|").split("|"))
    for said in ("diffusers` 0.42.1", "a machine, 2 threads, torch 2.13.0", "`0123456789ab`"):
        assert said in notes

"""Rows of a group take turns with their baseline; what fails leaves the others alone."""

import pytest
from turbo4d.tools.bench.group import Group, by_group
from turbo4d.tools.bench.row import RowSpec
from turbo4d.tools.bench.store import Store

from tests.tools.bench.fakes import FakeProcess

SECONDS = {"eager": 8.0, "a": 4.0, "b": 2.0, "c": 1.0}


def spec(system, runs=2):
    return RowSpec("cpu", "g", system, warmups=0, runs=runs)


class Bench:
    """A group over fake processes."""

    def __init__(self, folder, *, together=9, fails=None, on_word=lambda spec, word: None):
        self.log, self.processes = [], []
        self.store = Store(folder / "x.json", {"device": "a machine"})

        def opens(one):
            self.processes.append(FakeProcess(one, self.log, SECONDS, fails or {}, on_word))
            return self.processes[-1]

        self.group = Group(self.store, opens, together, "abc", lambda text: None)

    def run(self, systems, follow_ups=lambda rows: []):
        return self.group.run([spec(one) for one in systems], follow_ups)

    def order(self, *words):
        return [system for system, word in self.log if word in words]


def test_runs_alternate_and_each_second_round_goes_backwards(tmp_path):
    bench = Bench(tmp_path)
    rows = bench.run(["eager", "a", "b"])
    assert bench.order("run") == ["eager", "a", "b", "b", "a", "eager"]
    assert [row.spec.system for row in rows] == ["eager", "a", "b"]
    assert [row.to_json()["speedup"] for row in rows] == [None, 2.0, 4.0]
    assert bench.order("first") == ["eager", "a", "b"]
    assert all(process.closed for process in bench.processes)


def test_the_baseline_takes_part_in_every_batch(tmp_path):
    bench = Bench(tmp_path, together=2)
    rows = bench.run(["eager", "a", "b"])
    assert bench.order("run") == ["eager", "a", "a", "eager", "eager", "b", "b", "eager"]
    assert [len(row.seconds) for row in rows] == [4, 2, 2]
    assert bench.order("first") == ["eager", "a", "b"]


def test_rows_that_figures_call_for_join_the_group(tmp_path):
    bench = Bench(tmp_path)
    asked = []

    def follow_ups(rows):
        asked.extend(row.spec.system for row in rows)
        return [spec("c")]

    rows = bench.run(["eager", "a"], follow_ups)
    assert asked == ["a"]
    assert [row.spec.system for row in rows] == ["eager", "a", "c"]
    assert rows[-1].baseline == (8.0, 8.0)


@pytest.mark.parametrize("word", ["prepare", "first", "run", "facts"])
def test_a_row_that_fails_says_why_and_the_others_go_on(tmp_path, word):
    bench = Bench(tmp_path, fails={("a", word): "it broke."})
    rows = {row.spec.system: row for row in bench.run(["eager", "a", "b"])}
    assert rows["a"].error == "it broke."
    assert rows["a"].seconds == ()
    assert rows["b"].error is None
    assert rows["b"].to_json()["speedup"] == 4.0
    assert next(each for each in bench.processes if each.spec.system == "a").killed


@pytest.mark.parametrize("word", ["prepare", "run"])
def test_without_a_baseline_the_others_have_no_ratio(tmp_path, word):
    bench = Bench(tmp_path, fails={("eager", word): "it broke."})
    rows = {row.spec.system: row for row in bench.run(["eager", "a"])}
    assert rows["eager"].error == "it broke."
    assert rows["a"].latency_s == 4.0
    assert rows["a"].to_json()["speedup"] is None


def test_a_later_call_measures_what_is_missing_and_what_failed(tmp_path):
    Bench(tmp_path, fails={("b", "run"): "it broke."}).run(["eager", "a", "b"])
    again = Bench(tmp_path)
    rows = again.run(["eager", "a", "b"])
    assert set(again.order("run")) == {"eager", "b"}
    assert [row.error for row in rows] == [None, None, None]
    third = Bench(tmp_path)
    assert len(third.run(["eager", "a", "b"])) == 3
    assert third.log == []


def test_a_group_of_one_row_runs_alone(tmp_path):
    bench = Bench(tmp_path)
    (row,) = bench.run(["eager"])
    assert row.seconds == (8.0, 8.0)


def test_an_interruption_keeps_what_is_done_and_ends_the_processes(tmp_path):
    def stop(one, word):
        if (one.system, word) == ("b", "first"):
            raise KeyboardInterrupt

    bench = Bench(tmp_path, together=2, on_word=stop)
    with pytest.raises(KeyboardInterrupt):
        bench.run(["eager", "a", "b"])
    assert all(process.killed or process.closed for process in bench.processes)
    again = Bench(tmp_path)
    again.run(["eager", "a", "b"])
    assert set(again.order("run")) == {"eager", "b"}


def test_groups_keep_their_order():
    specs = [RowSpec("cpu", group, system) for group, system in ("xa", "yb", "xc")]
    assert [[one.system for one in group] for group in by_group(specs)] == [["a", "c"], ["b"]]

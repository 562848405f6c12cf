"""Moving a plan's computed steps: same moves, never worse, and only as far as runs say."""

from turbo4d.compiler.calibrate.refine import MOST, refined
from turbo4d.compiler.calibrate.search import Found
from turbo4d.runtime.errors import PlanError

FITTED = {"fit": (0, 1)}
LETTERS = {"C": ("compute", 0), "L": ("level", 0), "F": ("fit", 0)}


def made(steps):
    letters = "".join(move[0].upper() for move, _ in steps["main"])
    return Found(steps, {}, {"main": letters}, 1.0, 0.1, True)


def plan(letters):
    return made({"main": tuple(LETTERS[letter] for letter in letters)})


def climb(letters, score):
    return refined(plan(letters), FITTED, made, score)


def test_steps_move_to_where_they_measure_best():
    def score(found):
        return -sum(
            abs(at - 5) for at, one in enumerate(found.letters["main"]) if one == "C" and at
        )

    assert climb("CCFFFFFF", score).letters["main"] == "CFFFFCFF"


def test_moves_of_two_kinds_change_places():
    found = climb("CLFC", lambda found: found.letters["main"] == "CCFL")
    assert found.letters["main"] == "CCFL"


def test_the_moves_stay_the_same_and_the_first_step_computes():
    seen = []
    climb("CFLFCF", lambda found: seen.append(found) or len(seen))
    assert len({found.name for found in seen}) == len(seen) <= MOST
    letters = [found.letters["main"] for found in seen]
    assert {"".join(sorted(each)) for each in letters} == {"CCFFFL"}
    assert {each[0] for each in letters} == {"C"}


def test_a_fitted_step_sums_as_many_values_as_there_are():
    found = climb("CFFCFF", lambda found: found.letters["main"] == "CFCFFF")
    assert [order for move, order in found.steps["main"] if move == "fit"] == [0, 1, 1, 1]


def test_nothing_better_leaves_the_plan_as_it_is():
    start = plan("CFCF")
    assert refined(start, FITTED, made, lambda found: -found.letters["main"].index("F")) == start


def test_a_plan_without_fitted_steps_is_not_run():
    start = plan("CLCL")
    assert refined(start, FITTED, made, lambda found: 1 / 0) is start


def test_what_breaks_a_bound_is_passed_over():
    def score(found):
        if found.letters["main"] == "CFFC":
            raise PlanError("plan: too much.")
        return -found.letters["main"][1:].index("C")

    assert climb("CFCF", score).letters["main"] == "CCFF"

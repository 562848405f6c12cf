import re

import pytest
from turbo4d.runtime.errors import OptionError
from turbo4d.runtime.log import say

from tests.runtime.fake import REUSE, calls_of, plan_of, run_all, runner
from turbo4d import session


def logged(monkeypatch, capsys, level):
    monkeypatch.setenv("TURBO4D_LOG", level)
    fast, _ = runner(plan_of({}, REUSE, REUSE), hoists=True)
    with session(fast) as run:
        run_all(run, fast, calls_of(2))
        run.new_conditioning()
        run_all(run, fast, calls_of(3)[2:])
    captured = capsys.readouterr()
    assert captured.out == ""
    return re.sub(r"\d+\.\d\d s", "N s", captured.err).splitlines()


def test_silent_unless_asked(monkeypatch, capsys):
    assert logged(monkeypatch, capsys, "0") == []
    monkeypatch.delenv("TURBO4D_LOG")
    say(1, "nothing")
    assert capsys.readouterr().err == ""


SUMMARY = (
    "turbo4d: session: plan 'p', 3 steps; calls: compute+core.w 2, core.reuse 1, prologue 2; "
    "slots of up to 24 bytes, prologue 12; events: full-variant 1."
)


def test_one_line_for_each_engine_and_session(monkeypatch, capsys):
    assert logged(monkeypatch, capsys, "1") == [
        "turbo4d: engine 'compute+core.w': built in N s.",
        "turbo4d: engine 'core.reuse': built in N s.",
        "turbo4d: prologue: built in N s.",
        SUMMARY,
    ]


def test_each_step_and_event(monkeypatch, capsys):
    assert logged(monkeypatch, capsys, "2")[3:] == [
        "turbo4d: step 0 of stream 'main': compute+core.w; reads no slot; writes core.",
        "turbo4d: step 1 of stream 'main': core.reuse; reads core (1 steps old); writes none.",
        "turbo4d: full-variant: slot 'core' holds nothing at step 2 of stream 'main'; everything "
        "was computed.",
        "turbo4d: step 2 of stream 'main': compute+core.w; reads no slot; writes core.",
        SUMMARY,
    ]


@pytest.mark.parametrize("text", ["4", "yes", "-1"])
def test_another_level_is_refused(monkeypatch, text):
    monkeypatch.setenv("TURBO4D_LOG", text)
    with pytest.raises(OptionError) as caught:
        say(1, "")
    assert str(caught.value) == f"TURBO4D_LOG is {text!r}; wanted one of 0, 1, 2, 3."

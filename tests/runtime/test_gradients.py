import re

import pytest
import torch
from turbo4d.runtime.errors import Turbo4DError

from tests.runtime.fake import REUSE, calls_of, make_args, plan_of, run_all, runner
from turbo4d import session

REFUSED = (
    "input 'x' requires grad; turbo4d computes no gradients. Detach it or call under "
    "torch.no_grad()."
)
NOTED = {
    "step": None,
    "stream": None,
    "kind": "no-gradient",
    "message": "weights require grad and grad mode is on; turbo4d computes no gradients. Call "
    "under torch.no_grad() to say so.",
}


def asking():
    args = make_args()
    args[1].requires_grad_()
    return args


def test_an_input_that_requires_grad_is_refused():
    fast, engines = runner("none")
    with pytest.raises(Turbo4DError, match=f"^{re.escape(REFUSED)}$"):
        fast(*asking())
    fast, engines = runner(plan_of({}))
    with session(fast) as run:
        run.step(0)
        with pytest.raises(Turbo4DError, match=f"^{re.escape(REFUSED)}$"):
            fast(*asking())
        fast(*make_args())
    assert engines.calls == {"compute": 1}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_is_taken_where_gradients_are_off(mode):
    fast, engines = runner("none")
    with mode():
        fast(*asking())
    assert engines.calls == {"compute": 1}
    assert fast.report()["events"] == []


def test_weights_that_require_grad_are_an_event_once():
    weight = torch.ones(1, requires_grad=True)
    fast, _ = runner(plan_of({}, REUSE))
    calls = [(step, [weight, *args[1:]]) for step, args in calls_of(2)]
    with session(fast) as run:
        run_all(run, fast, calls)
    assert run.report()["events"] == [NOTED]
    for _ in range(2):
        fast(*calls[0][1])
    assert [event["kind"] for event in fast.report()["events"]].count("no-gradient") == 1
    with torch.no_grad(), session(fast) as run:
        run_all(run, fast, calls)
    assert run.report()["events"] == []

"""What a compiled model says when it is asked for gradients, trained, or fed changed weights."""

import re
from typing import Any

import pytest
import torch
from torch import nn
from turbo4d.runtime.errors import SessionError, Turbo4DError

from tests.compiler import foreign
from turbo4d import session

SIGMAS = (80.0, 20.0, 5.0)


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(name, **options):
    model, built = foreign.build(name)
    call: Any = built
    return model, call, torch.compile(model, backend="turbo4d", options=options)


def test_an_input_that_requires_grad_is_refused_and_weights_are_an_event():
    _, call, fast = compiled("multi_view", plan="exact")
    text = (
        "input 'x' requires grad; turbo4d computes no gradients. Detach it or call under "
        "torch.no_grad()."
    )
    with pytest.raises(Turbo4DError, match=f"^{re.escape(text)}$"):
        fast(**{**call, "x": call["x"].clone().requires_grad_()})
    with session(fast, levels=SIGMAS) as run:
        for step in range(2):
            run.step(step)
            assert not fast(**call).requires_grad
    assert [event["kind"] for event in run.report()["events"]] == ["no-gradient"]


def test_a_module_that_goes_into_training_is_refused():
    """It has a dropout, so its forward reads the flag, and torch compiles it again."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).eval()
    fast = torch.compile(model, backend="turbo4d", options={"plan": "none"})
    x = torch.ones(2, 4)
    with torch.no_grad():
        first = fast(x)
        model.train()
        text = "Sequential is in training mode; call model.eval() before compiling."
        with pytest.raises(Turbo4DError, match=f"^{re.escape(text)}"):
            fast(x)
        model.eval()
        assert torch.equal(fast(x), first)


class Normed(nn.Module):
    """A norm with running statistics, then a dropout, around a layer."""

    def __init__(self):
        super().__init__()
        self.norm, self.layer, self.drop = nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.layer(self.norm(x)))


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (
            "norm",
            "the forward writes the running statistics of 'norm', which is in training mode; call "
            "model.eval() before compiling.",
        ),
        (
            "drop",
            "the forward draws random numbers: dropout of 0.5 in training mode; call model.eval() "
            "before compiling.",
        ),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_part_that_is_in_training_is_refused(part, text, wrapped):
    model = Normed().eval()
    model.get_submodule(part).train()
    called = (lambda x: model(x)) if wrapped else model
    fast = torch.compile(called, backend="turbo4d", options={"plan": "none"})
    with torch.no_grad(), pytest.raises(Turbo4DError, match=f"^{re.escape(text)}"):
        fast(torch.ones(2, 4))
    model.eval()
    with torch.no_grad():
        assert torch.equal(fast(torch.ones(2, 4)), model(torch.ones(2, 4)))


def test_a_module_that_does_not_read_the_flag_computes_the_same_in_training():
    model, call, fast = compiled("multi_view", plan="none")
    with torch.no_grad():
        first = fast(**call)
        model.train()
        assert torch.equal(fast(**call), first)
        assert torch.equal(model(**call), first)


def load(model):
    model.load_state_dict({name: 0.5 * value for name, value in model.state_dict().items()})


def assign(model):
    halved = {name: 0.5 * value for name, value in model.state_dict().items()}
    model.load_state_dict(halved, assign=True)


def merge(model):
    """As a LoRA is merged: by writing to .data, which leaves no trace."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data += 0.1


def sample(fast, call, in_session):
    levels = [{**call, "sigma": torch.full_like(call["sigma"], sigma)} for sigma in SIGMAS]
    if not in_session:
        return [fast(**each) for each in levels][-1]
    with session(fast, levels=SIGMAS) as run:
        outputs = []
        for step, each in enumerate(levels):
            run.step(step)
            outputs.append(fast(**each))
    return outputs[-1]


@pytest.mark.parametrize("in_session", [True, False])
def test_weights_that_change_between_runs_are_never_out_of_date(in_session):
    model, call, fast = compiled("multi_view", plan="exact")
    before = None
    with torch.no_grad():
        for change in (load, assign, merge, lambda _: None):
            output = sample(fast, call, in_session)
            wanted = model(**{**call, "sigma": torch.full_like(call["sigma"], SIGMAS[-1])})
            torch.testing.assert_close(output, wanted, atol=2e-5, rtol=1e-5)
            assert before is None or not torch.allclose(before, output, atol=1e-2)
            before = output
            change(model)


def test_debug_names_the_input_that_changed(monkeypatch):
    monkeypatch.setenv("TURBO4D_DEBUG", "1")
    _, call, fast = compiled("multi_view", plan="fast")
    with torch.no_grad(), session(fast, levels=SIGMAS) as run:
        run.step(0)
        fast(**call)
        run.step(1)
        with pytest.raises(
            SessionError, match="step 1 of stream 'main': conditioning 'text' chang"
        ):
            fast(**{**call, "text": call["text"] + 1})
        run.new_conditioning()
        fast(**{**call, "text": call["text"] + 1})

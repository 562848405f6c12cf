"""The option `invariant`: what it declares, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from turbo4d.compiler.exact import exact_form
from turbo4d.compiler.flops import count_flops
from turbo4d.compiler.invariant import Declared, declare
from turbo4d.compiler.lower.eager import EagerEngine, EagerPrologue
from turbo4d.compiler.options import Options
from turbo4d.compiler.specialise import specialise
from turbo4d.runtime.errors import OptionError
from turbo4d.runtime.variant_key import VariantKey

from tests.compiler.denoisers import captured

EXACT = VariantKey((), (), exact=True)


def declared(invariant: Declared):  # type: ignore[no-untyped-def]
    analysis = captured("mini")[2]
    return replace(analysis, roles=declare(analysis.roles, analysis.capture, invariant))


def inputs() -> dict[str, int]:
    table = captured("mini")[2].capture.table
    return {row.target: index for index, row in enumerate(table) if row.kind == "input"}


def test_it_is_an_option_of_the_backend() -> None:
    assert Options.read({"invariant": {"x": "4:8", "y": False}}).invariant is not None
    with pytest.raises(OptionError, match="wanted a mapping of input to channels, True or False"):
        Options.read({"invariant": "4:8"})


def test_nothing_declared_is_nothing_changed() -> None:
    analysis = captured("mini")[2]
    for nothing in (None, {}):
        assert declare(analysis.roles, analysis.capture, nothing) == analysis.roles


def test_an_input_that_changes_is_no_conditioning_and_nothing_of_it_is_hoisted() -> None:
    analysis = declared({"y": False})
    at = inputs()["y"]
    assert at not in analysis.roles.conditioning
    assert set(analysis.roles.conditioning) < set(captured("mini")[2].roles.conditioning)
    form = exact_form(analysis)
    assert at not in form.prologue.arg_indices
    assert at in specialise(analysis, EXACT).arg_indices
    assert at in exact_form(captured("mini")[2]).prologue.arg_indices


@pytest.mark.parametrize("text", ["4:8", "0:2,4:8", " 4:8 , 0:2 "])
def test_declared_channels_are_convolved_in_the_prologue(text: str) -> None:
    model, call, plain, args = captured("mini")
    analysis = declared({"x": text})
    form, variant = exact_form(analysis), specialise(analysis, EXACT)
    whole, step = (
        sum(count_flops(specialise(one, EXACT).module.graph).values()) for one in (plain, analysis)
    )
    fixed = sum(stop - start for start, stop in analysis.roles.channels[inputs()["x"]])
    images, channels, height, width = call["x"].shape
    wide = model.config.model_channels
    assert channels == 8
    assert whole - step == 2 * images * height * width * wide * fixed * 9
    output = EagerEngine(variant)(args, EagerPrologue(form.prologue)(args), ())[0][0]
    with torch.no_grad():
        torch.testing.assert_close(output, model(**call), atol=5e-6, rtol=1e-5)


def test_only_declared_channels_count() -> None:
    """The prologue does not see the others; the step does not see the declared ones."""
    _, _, _, args = captured("mini")
    analysis = declared({"x": "4:8"})
    prologue = EagerPrologue(exact_form(analysis).prologue)
    engine = EagerEngine(specialise(analysis, EXACT))
    held = prologue(args)
    other = list(args)
    at = inputs()["x"]
    other[at] = args[at].clone()
    other[at][:, :4] += 1
    assert all(torch.equal(a, b) for a, b in zip(held, prologue(other), strict=True))
    assert not torch.equal(engine(args, held, ())[0][0], engine(other, held, ())[0][0])
    other[at] = args[at].clone()
    other[at][:, 4:] += 1
    assert torch.equal(engine(args, held, ())[0][0], engine(other, held, ())[0][0])
    assert any(not torch.equal(a, b) for a, b in zip(held, prologue(other), strict=True))


@pytest.mark.parametrize(
    ("invariant", "text"),
    [
        (
            {"contex": False},
            "option 'invariant' names 'contex'; the model's inputs are 'cond_view', 'context', "
            "'timesteps', 'x', 'y'. Did you mean 'context'?",
        ),
        (
            {"x": "4-8"},
            "option 'invariant' gives 'x' as '4-8'; wanted channels such as '4:8', or False for an "
            "input that changes at every step.",
        ),
        (
            {"x": True},
            "option 'invariant' has True for 'x', the sample, which changes at every step; "
            "leave it out.",
        ),
        (
            {"x": "4:9"},
            "option 'invariant' gives 'x' as '4:9': 4:9 is no range within its 8 channels.",
        ),
        (
            {"x": "4:4"},
            "option 'invariant' gives 'x' as '4:4': 4:4 is no range within its 8 channels.",
        ),
        (
            {"x": "6:8,4:7"},
            "option 'invariant' gives 'x' as '6:8,4:7': 4:7 and 6:8 overlap.",
        ),
        (
            {"x": "0:4,4:8"},
            "option 'invariant' gives 'x' as '0:4,4:8': that is all its 8 channels; an input that "
            "never changes is known as such without the option.",
        ),
        (
            {"timesteps": "0:1"},
            "option 'invariant' gives 'timesteps' as '0:1': 0:1 is no range within its 0 channels.",
        ),
        (
            {"x": False},
            "option 'invariant' has False for 'x', the sample, which changes at every step without "
            "that; leave it out.",
        ),
        (
            {"timesteps": False},
            "option 'invariant' has False for 'timesteps', the noise level, which changes at every "
            "step without that; leave it out.",
        ),
        (
            {"timesteps": True},
            "option 'invariant' has True for 'timesteps', the noise level, which changes at every "
            "step; leave it out.",
        ),
        (
            {"y": True},
            "option 'invariant' has True for 'y', which is taken to stay the same; leave it out.",
        ),
    ],
)
def test_refuses(invariant: Declared, text: str) -> None:
    with pytest.raises(OptionError) as caught:
        declared(invariant)
    assert str(caught.value) == text

from __future__ import annotations

import inspect

import pytest
from torch import Tensor
from turbo4d.compiler.sources import Source, read_sources

WEIGHT = "L['self']._modules['a']._modules['0']._parameters['weight']"


def forward(x: Tensor, *more: Tensor, cond: Tensor, **extra: Tensor) -> Tensor:
    return x + cond + sum(more) + sum(extra.values())


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        (WEIGHT, Source("weight", "L['self']", "a.0.weight")),
        ("L['self']._buffers['table']", Source("weight", "L['self']", "table")),
        ("L['self'].rope", Source("constant", "L['self']", "rope")),
        ("L['self']._modules['a'].rope", Source("constant", "L['self']", "a.rope")),
        # Of a class with a `__getattr__` of its own, as those of diffusers are.
        (
            "L['self'].__dict__['_modules']['a']._modules['1'].__dict__['_parameters']['bias']",
            Source("weight", "L['self']", "a.1.bias"),
        ),
        ("L['x']", Source("input", "", "x")),
        ("L['cond']['text'][0]", Source("input", "", "cond['text'][0]")),
        ("L['extra']['mask']", Source("input", "", "mask")),
        ("L['more'][1]", Source("input", "", "more[1]")),
        # Through a decorator, which sees nothing but *args and **kwargs.
        ("L['args'][0]", Source("input", "", "x")),
        ("L['kwargs']['cond'][2]", Source("input", "", "cond[2]")),
    ],
)
def test_sources_are_read(expression: str, wanted: Source) -> None:
    found = read_sources([WEIGHT, expression], inspect.signature(forward))
    assert found[1] == wanted


def test_a_decorated_method_s_first_argument_is_the_module() -> None:
    sources = ["L['args'][0]._parameters['weight']", "L['args'][1]"]
    assert read_sources(sources, inspect.signature(forward)) == [
        Source("weight", "L['args'][0]", "weight"),
        Source("input", "", "x"),
    ]


def test_weights_of_two_modules_keep_apart() -> None:
    sources = ["G['unet']._parameters['w']", "G['head']._parameters['w']", "G['head'].table"]
    assert [source.target for source in read_sources(sources, None)] == [
        "G['unet'].w", "G['head'].w", "G['head'].table",
    ]  # fmt: skip

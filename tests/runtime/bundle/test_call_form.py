"""A call is taken in any spelling, and refused by name where it is another one than was built."""

import inspect
import json
import re
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils import _pytree as pytree
from turbo4d.runtime.bundle.call_form import flatten, read_call, unflatten
from turbo4d.runtime.bundle.recorded_call import form_of_call
from turbo4d.runtime.errors import BundleError, CallError


def forward(x, t, cond, extra=None, *, scale=2.0, dtype=torch.float32, hook=print):
    """Only its parameters matter."""


X, T, C, D = (torch.full((size,), float(size)) for size in (1, 2, 3, 4))
KWARGS = {"cond": {"context": C, "more": [D, None, "text"]}, "t": T, "dtype": torch.float16}
PATHS = ("x", "cond['context']", "cond['more'][0]", "-", "-", "t", "-")
NAMES = ("cond['context']", "cond['more'][0]", "t", "x")


def recorded(
    function=forward, args=(X,), kwargs=KWARGS, paths=PATHS, names=NAMES, result: object = X
):
    parameters = inspect.signature(function).parameters
    made = form_of_call(parameters, args, kwargs, paths, names, result)
    return read_call(json.loads(json.dumps(made)))  # as it comes out of a file


FORM = recorded()


def taken(*args, **kwargs):
    return flatten(FORM, args, kwargs, "cpu")


def call(**changes):
    return {"x": X, "t": T, "cond": KWARGS["cond"], "dtype": torch.float16, **changes}


def refused(text, **changes):
    with pytest.raises(CallError, match=f"^{re.escape(text)}$"):
        taken(**call(**changes))


def test_every_spelling_gives_the_inputs_in_the_signatures_order():
    wanted = [C, D, T, X]
    cond = {"more": (D, None, "text"), "context": C}  # another order, a tuple for a list
    for found in (
        taken(X, T, cond, dtype=torch.float16),
        taken(X, T, cond=cond, dtype=torch.float16, extra=None, scale=2.0),
        taken(**call()),
        taken(X, T, cond, None, dtype=torch.float16),
    ):
        assert all(a is b for a, b in zip(found, wanted, strict=True))


def test_what_was_built_in_must_be_the_same():
    built = "which its engines hold. Call it so, or build a bundle for this call."
    refused(f"argument 'scale' is 3.0; the bundle was built with 2.0, {built}", scale=3.0)
    refused(f"argument 'scale' is 2; the bundle was built with 2.0, {built}", scale=2)
    text = "argument 'dtype' is torch.float32; the bundle was built with 'float16', "
    refused(f"{text}{built}", dtype=torch.float32)
    text = "argument 'extra' is a tensor float32[1]; the bundle was built with None, "
    refused(f"{text}{built}", extra=X)
    text = "argument 'cond'['more'][2] is 'other'; the bundle was built with 'text', "
    refused(f"{text}{built}", cond={"context": C, "more": [D, None, "other"]})
    refused(f"argument 'hook' is a type; the bundle was built with 'a {type(print).__name__}', "
            f"{built}", hook=int)  # fmt: skip


def test_what_is_missing_or_too_much_is_named():
    with pytest.raises(CallError, match=r"^call: missing a required argument: 't'; the forward ta"):
        taken(X)
    with pytest.raises(CallError, match=r"got an unexpected keyword argument 'guidance'; the forw"):
        taken(**call(guidance=1))
    with pytest.raises(CallError, match=r"^argument 'dtype' is missing; the bundle was built with"):
        taken(X, T, KWARGS["cond"])
    text = "argument 'cond' has no 'more'; the bundle was built with it."
    refused(text, cond={"context": C})
    text = "argument 'cond' has 'new'; the bundle was built without it. Leave it out."
    refused(text, cond={**KWARGS["cond"], "new": C})
    text = "argument 'cond'['more'] is a list of 2; the bundle was built for a list of 3."
    refused(text, cond={"context": C, "more": [D, None]})
    refused("argument 'cond' is None; the bundle was built for a dict.", cond=None)
    refused("argument 't' is 5; the bundle was built for a tensor.", t=5)


@pytest.mark.parametrize(
    ("tensor", "got"),
    [
        (torch.ones(3), "a tensor float32[3] on cpu"),
        (torch.ones(2, 1), "a tensor float32[2, 1] on cpu"),
        (torch.ones(2, dtype=torch.float64), "a tensor float64[2] on cpu"),
        (torch.ones(2, device="meta"), "a tensor float32[2] on meta"),
    ],
)
def test_a_tensor_of_another_form_is_refused(tensor, got):
    refused(
        f"input 't' is {got}; the bundle was built for float32[2] on cpu, and its engines take "
        "nothing else. Call it so, or build a bundle for this call.",
        t=tensor,
    )


def test_more_arguments_than_have_names():
    def many(x, *rest, **named):
        pass

    paths = ("x", "rest[0]", "rest[1]", "a", "b")
    form = recorded(many, (X, T, C), {"a": D, "b": 1}, paths, ("a", "rest[0]", "rest[1]", "x"))
    found = flatten(form, (X, T, C), {"b": 1, "a": D})
    assert all(a is b for a, b in zip(found, (D, T, C, X), strict=True))
    with pytest.raises(CallError, match=r"^argument 'rest' is a tuple of 1; .* a tuple of 2\.$"):
        flatten(form, (X, T), {"b": 1, "a": D})
    alone = recorded(many, (X,), {}, ("x",), ("x",))
    assert flatten(alone, (X,), {}) == [X]
    with pytest.raises(CallError, match=r"^argument 'named' is a dict of 1; .* without it\. Leave"):
        flatten(alone, (X,), {"a": D})


@dataclass
class Output:
    sample: Tensor
    loss: None = None


@pytest.mark.parametrize(
    "result",
    [X, (X, T), [X, {"a": T, "b": (C, None, 3)}], {"x": X, "y": []}],
)
def test_results_come_back_as_they_were(result):
    leaves, spec = pytree.tree_flatten(result)
    form = recorded(result=result)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    found, again = pytree.tree_flatten(unflatten(form, tensors))
    assert again == spec
    assert all(a is b for a, b in zip(found, leaves, strict=True))


def test_a_result_with_fields_is_had_by_name_attribute_and_position():
    form = recorded(result=Output(X))
    assert form.outputs == 1
    found = unflatten(form, [T])
    assert found.sample is T
    assert found["sample"] is T
    assert found[0] is T
    assert found.loss is None
    with pytest.raises(AttributeError, match="no field 'simple'; it has sample, loss"):
        _ = found.simple


def test_what_a_manifest_cannot_say_is_refused_at_the_build():
    for value, said in ((object(), "a object"), (float("nan"), "nan"), (1j, "a complex")):
        text = rf"^argument 'extra' is {said}; a bundle takes tensors, tuples, lists, dicts"
        with pytest.raises(CallError, match=text):
            recorded(kwargs={**KWARGS, "extra": value}, paths=(*PATHS, "-"))
    with pytest.raises(CallError, match=r"^argument 'cond' has the key 1; a bundle takes keys tha"):
        recorded(kwargs={**KWARGS, "cond": {1: C}})
    with pytest.raises(CallError, match=r"^the call has more leaves than were traced\.$"):
        recorded(paths=PATHS[:-1])
    with pytest.raises(CallError, match=r"^input 'nowhere' is no tensor of the call\.$"):
        recorded(names=("nowhere",))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["input", "output", "tuple", "dict", "literal", "dtype", "name", "kind"]),
        inner, max_size=3,
    ),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.sampled_from(["parameters", "arguments", "inputs", "result"]), JSON)
def test_a_form_that_is_none_is_refused_in_our_words(field, value):
    made = form_of_call(inspect.signature(forward).parameters, (X,), KWARGS, PATHS, NAMES, X)
    made[field] = value
    try:
        form = read_call(made)
    except BundleError:
        return
    assert isinstance(made["inputs"], list)
    assert len(form.inputs) == len(made["inputs"])

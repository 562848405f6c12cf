import re

import pytest
import torch
from turbo4d.runtime.errors import StaleSlotError, Turbo4DError
from turbo4d.runtime.slot_storage import STORAGES, decode, stored_bytes
from turbo4d.runtime.slots import Slots


def filled(step=0, **tensors) -> Slots:
    slots = Slots()
    slots.write(list(tensors), list(tensors.values()), step)
    return slots


def test_what_was_written_is_read():
    a, b = torch.zeros(2), torch.ones(3)
    slots = filled(a=a, b=b)
    assert all(x is y for x, y in zip(slots.read(["b", "a"], 3, 3), [b, a], strict=True))
    assert slots.missing(["a", "c"]) == ("c",)
    assert slots.size_bytes() == 20


def test_a_region_of_several_values_has_several_tensors():
    a, b, c = torch.zeros(2), torch.ones(3), torch.ones(5)
    slots = Slots()
    slots.write(["r", "s", "r"], [a, b, c], 0)
    assert all(x is y for x, y in zip(slots.read(["r", "r", "s"], 1, 1), [a, c, b], strict=True))
    assert slots.size_bytes() == 40
    assert slots.missing(["r", "r"]) == ()
    assert slots.ages(["r", "q"], 3) == {"r": 3}
    slots.write(["r", "r"], [c, a], 2)
    assert slots.size_bytes() == 40 + 28
    slots.keep({"r": 1, "s": 1})
    assert slots.size_bytes() == 40
    assert slots.read(["r", "r"], 2, 0)[0] is c
    text = "slot 'r' holds 2 tensors and 1 are read; the engines that write and read it disagree."
    with pytest.raises(Turbo4DError, match=f"^{re.escape(text)}$"):
        slots.read(["r"], 2, 0)


def test_a_write_that_fails_leaves_what_was_there():
    slots = filled(a=torch.zeros(1))
    with pytest.raises(ValueError, match="zip"):
        slots.write(["a", "b"], [torch.ones(1)], 1)
    assert slots.read(["a"], 0, 0)[0].item() == 0


def test_a_slot_that_is_too_old_is_refused():
    slots = filled(12, **{"middle.chain": torch.zeros(1)})
    slots.read(["middle.chain"], 16, 4)
    text = (
        "slot 'middle.chain' is 7 steps old at step 19; the plan allows 4. "
        "Refresh at step 16 or raise max_age."
    )
    with pytest.raises(StaleSlotError, match=f"^{re.escape(text)}$"):
        slots.read(["middle.chain"], 19, 4)


def test_a_write_makes_it_young():
    slots = filled(a=torch.zeros(1))
    slots.write(["a"], [torch.ones(1)], 9)
    assert slots.read(["a"], 10, 1)[0].item() == 1


def test_what_is_not_kept_is_gone():
    slots = filled(a=torch.zeros(1), b=torch.zeros(1))
    slots.keep({"b": 1, "c": 1})
    assert slots.missing(["a", "b"]) == ("a",)
    slots.drop()
    assert not slots


def test_a_slot_does_not_keep_its_graph_alive():
    value = torch.ones(1, requires_grad=True) * 2
    slot = filled(a=value).read(["a"], 0, 0)[0]
    assert not slot.requires_grad
    assert slot.data_ptr() == value.data_ptr()


@pytest.mark.parametrize("storage", STORAGES)
def test_poison_spoils_what_is_stored_smaller_too(monkeypatch, storage):
    monkeypatch.setenv("TURBO4D_POISON", "1")
    slots = Slots({"a": storage})
    slots.write(["a"], [torch.ones(200)], 0)
    [value] = slots._slots["a"]
    assert slots.size_bytes() == stored_bytes((200,), torch.float32, storage)
    slots.drop()
    assert decode(value.stored[0]).isnan().all()


@pytest.mark.parametrize("poison", ["0", "1"])
def test_poison_shows_up_in_whoever_still_reads(monkeypatch, poison):
    monkeypatch.setenv("TURBO4D_POISON", poison)
    tensor, whole = torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    other = torch.zeros(1)
    slots = Slots()
    slots.write(["a", "a", "b"], [tensor, other, whole], 0)
    slots.drop()
    assert bool(other.isnan()) == (poison == "1")
    assert bool(tensor.isnan()) == (poison == "1")
    assert whole.item() == 0

"""Engines and the prologue are built once, however many threads want them at once."""

import re
import threading
import time
from typing import Any

import pytest
from turbo4d.runtime.engine_shelf import CallCounts, EngineShelf
from turbo4d.runtime.errors import Turbo4DError
from turbo4d.runtime.variant_key import VariantKey

from tests.runtime.fake import FakeEngine

KEY = VariantKey((), ("core",), exact=True)
OTHER = VariantKey((), (), exact=True)


def at_once(job, count=4):
    found = []
    threads = [threading.Thread(target=lambda: found.append(job())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == count
    return found


def slowly(made: list[Any]) -> Any:
    """A builder that takes long enough for every thread to ask."""

    def build(*key):
        made.append(key)
        time.sleep(0.05)
        return FakeEngine(*key) if key else (lambda args: [])

    return build


def test_four_threads_build_one_engine_and_one_prologue():
    engines, prologues = [], []
    shelf = EngineShelf(slowly(engines), slowly(prologues))
    assert len({id(each) for each in at_once(lambda: shelf.get(KEY))}) == 1
    assert len({id(each) for each in at_once(shelf.prologue)}) == 1
    assert len(engines) == len(prologues) == 1


def test_what_is_built_is_given_while_another_is_being_built():
    started, go_on = threading.Event(), threading.Event()

    def build(key):
        if key == OTHER:
            started.set()
            assert go_on.wait(30)
        return FakeEngine(key)

    shelf = EngineShelf(build)
    first = shelf.get(KEY)
    thread = threading.Thread(target=shelf.get, args=(OTHER,))
    thread.start()
    assert started.wait(30)
    assert shelf.get(KEY) is first
    go_on.set()
    thread.join(30)


def test_an_engine_of_another_variants_slots_is_refused():
    shelf = EngineShelf(lambda key: FakeEngine(OTHER))
    text = (
        "engine 'compute+core.w' reads () and writes (); its variant reads () and writes ('core',)."
    )
    with pytest.raises(Turbo4DError, match=f"^{re.escape(text)}$"):
        shelf.get(KEY)


def test_an_engine_that_gives_too_few_slots_is_refused():
    class Short(FakeEngine):
        def __call__(self, args, prologue, slots_in):
            return [], []

    counts = CallCounts()
    text = "engine 'compute+core.w' gave 0 slots; wanted 1."
    with pytest.raises(Turbo4DError, match=f"^{re.escape(text)}$"):
        counts.call(KEY.name, Short(KEY), [], (), [])


def test_without_a_builder_there_is_no_prologue():
    shelf = EngineShelf(FakeEngine)
    assert not shelf.has_prologue
    assert shelf.prologue() is None

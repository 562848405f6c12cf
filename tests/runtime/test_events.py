import json

from turbo4d.runtime.events import Event, Events


def test_events_are_listed_as_they_came():
    events = Events()
    events.add("a", "One.", step=3, stream="main")
    events.add_once("b", "Two.")
    events.add_once("b", "Two again.")
    events.add("b", "Three.")
    assert list(events) == [
        Event(3, "main", "a", "One."),
        Event(None, None, "b", "Two."),
        Event(None, None, "b", "Three."),
    ]
    assert json.loads(json.dumps(events.as_dicts()))[0] == {
        "step": 3,
        "stream": "main",
        "kind": "a",
        "message": "One.",
    }


def test_the_list_is_bounded_and_says_so():
    events = Events()
    for step in range(205):
        events.add("a", "One.", step=step)
    listed = list(events)
    assert len(listed) == 201
    assert listed[-1] == Event(None, None, "more", "5 more events were not kept.")

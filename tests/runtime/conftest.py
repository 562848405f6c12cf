"""What several tests of the runtime stand on."""

import pytest

from tests.runtime.wide_runs import Copies


@pytest.fixture
def copies(monkeypatch):
    found = Copies()
    monkeypatch.setattr("turbo4d.runtime.slots.transfers_for", lambda device: found)
    return found

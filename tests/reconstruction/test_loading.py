"""How a process starts."""

from __future__ import annotations

import gc

import pytest

from focus_backend.reconstruction.loading import collection_paused


@pytest.fixture(autouse=True)
def _thawed():
    yield
    gc.unfreeze()


def test_collection_stands_still_and_goes_on():
    gc.unfreeze()
    with collection_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_collection_goes_on_after_a_failure():
    with pytest.raises(ImportError, match="torch"), collection_paused():
        raise ImportError("torch")
    assert gc.isenabled()

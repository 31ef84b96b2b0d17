"""Crashes, kills and damage, in short; `python -m tests.campaigns.soak` tries them at length."""

import contextlib
import os
import shutil
from collections import Counter

import pytest

from runtime import checkpoint_file
from tests.campaigns.crashes import assert_same_state, crash, crash_points, damage, forked, kills, spawned

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="crashes are tried in forked children")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """How many operations on files a small training does, and the folder of that training."""
    return crash_points(tmp_path_factory.mktemp("undisturbed"))


def crashes(undisturbed, place, every, how):
    """Break a training down at every so-manieth operation on files; how often each kind of operation was the last."""
    points, whole = undisturbed
    return Counter(crash(place, whole, at, how) for at in range(1, points + 1, every))


def test_a_kill_loses_nothing_that_was_saved(undisturbed, tmp_path):
    assert crashes(undisturbed, tmp_path, 20, "killed").total() > 3


@pytest.mark.slow
@pytest.mark.parametrize(("how", "every"), [("killed", 11), ("disk full", 13), ("power cut", 10)])
def test_a_crash_in_any_operation_loses_nothing_that_was_saved(how, every, undisturbed, tmp_path):
    found = crashes(undisturbed, tmp_path, every, how)
    assert undisturbed[0] >= 80 and set(found) >= {"open", "write", "fsync"}, found


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "start"), [("points", spawned), ("images", forked)])
def test_a_training_killed_at_some_time_goes_on_to_the_same_end(kind, start, tmp_path):
    assert kills(tmp_path, kind, count=1, seed=1, start=start) == 1


@pytest.fixture
def checkpoint(undisturbed, tmp_path):
    """A copy of the checkpoint of that training, to be damaged."""
    return shutil.copy(undisturbed[1] / "last.pt", tmp_path / "last.pt")


def test_a_bit_flipped_in_the_directory_gives_no_other_weights(checkpoint):
    # torch's own reader trusts the directory: 27 of the 19,544 bits there made it load what lies elsewhere
    whole, content = checkpoint_file.load(checkpoint), checkpoint.read_bytes()
    directory = content.index(b"PK\x01\x02")
    for place in range(directory + 300, directory + 700):
        checkpoint.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        with contextlib.suppress(ValueError):
            assert_same_state(checkpoint_file.load(checkpoint), whole)


def test_a_damaged_checkpoint_is_refused_in_our_words(checkpoint):
    refused, right = damage(checkpoint, truncations=30, flips=30, seed=0)
    assert refused + right == 60 and refused > 40

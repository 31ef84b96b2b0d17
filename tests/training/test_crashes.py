"""Crashes, kills and damage, in short (tests/campaigns/soak.py runs them at length); see crashes.py."""

import contextlib
import os
from collections import Counter

import pytest

from runtime import checkpoint_file
from tests.campaigns.crashes import assert_same_state, crash, crash_points, damage, forked, kills, spawned

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="crashes are tried in forked children")


@pytest.mark.parametrize(("how", "every"), [("killed", 3), ("disk full", 4), ("power cut", 7)])
def test_a_crash_at_any_point_loses_nothing_that_was_saved(how, every, tmp_path):
    points, whole = crash_points(tmp_path)
    found = Counter(crash(tmp_path, whole, at, how) for at in range(1, points + 1, every))
    assert points >= 80 and set(found) >= {"open", "write", "fsync"}, found


@pytest.mark.parametrize(("kind", "start"), [("points", forked), ("labels", spawned), ("images", forked)])
def test_a_killed_training_goes_on_to_the_same_end(kind, start, tmp_path):
    assert kills(tmp_path, kind, count=1, seed=1, start=start) == 1


def test_a_bit_flipped_in_the_directory_gives_no_other_weights(tmp_path):
    # torch's own reader believes the directory: 27 of the 19,544 bits there made it load what lies elsewhere
    path = crash_points(tmp_path)[1] / "last.pt"
    whole, content = checkpoint_file.load(path), path.read_bytes()
    directory = content.index(b"PK\x01\x02")
    for place in range(directory + 300, directory + 700):
        path.write_bytes(content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :])
        with contextlib.suppress(ValueError):
            assert_same_state(checkpoint_file.load(path), whole)


def test_a_damaged_checkpoint_is_refused_in_our_words(tmp_path):
    _, whole = crash_points(tmp_path)
    refused, right = damage(whole / "last.pt", truncations=60, flips=50, seed=0)
    assert refused + right == 110 and refused > 80

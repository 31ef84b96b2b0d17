"""Random edits of a folder of images, in short; `python -m tests.campaigns.image_edits` tries them at length."""

import shutil

import pytest

from tests.campaigns.image_edits import campaign


@pytest.fixture(scope="module", params=[6, pytest.param(20, marks=pytest.mark.slow)])
def outcome(request, tmp_path_factory):
    """What a campaign of 6 or 20 edits found."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    return campaign(tmp_path_factory.mktemp("edits"), request.param, seed=1)


def test_the_data_of_a_training_are_those_of_the_files_after_every_edit(outcome):
    assert outcome.wrong == []


def test_the_campaign_reads_from_the_cache_and_from_the_files(outcome):
    edits = sum(outcome.edits.values())
    assert outcome.cached >= edits / 2
    assert outcome.decoded >= edits / 2

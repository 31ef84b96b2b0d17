"""Random command lines, the short form of `python -m tests.campaigns.fuzz 2000`: about six in ten are right."""

import json
import re

import pytest
from conftest import command, python

LINES = 6


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    """A campaign of 6 lines: its exit code, what it said, and its counts."""
    done = command(f"-m tests.campaigns.fuzz {LINES} --seed 3", tmp_path_factory.mktemp("campaign"))
    counts = re.findall(r"'([\w ]+)': (\d+)", done.stdout.splitlines()[-1])
    return done.returncode, done.stdout + done.stderr, {name: int(count) for name, count in counts}


@pytest.mark.slow
def test_random_command_lines_work_or_are_answered_in_one_line(campaign):
    code, said, _ = campaign
    assert code == 0, said


@pytest.mark.slow
def test_a_campaign_tries_as_many_lines_as_it_was_asked_for(campaign):
    *_, counts = campaign
    assert counts["lines"] == LINES
    assert counts["ended with 0"] + counts["ended with 1"] == LINES


@pytest.mark.slow
def test_some_of_the_random_lines_are_right(campaign):
    *_, counts = campaign
    assert counts["right"] >= 1  # each with probability 0.6: none in one of 240 seeds


# What a line is, how it ended (exit code, stderr, files that it left), and whether that is a fault.
ENDS = {
    "a success": ("right", (0, "", []), False),
    "an answer": ("wrong", (1, "no", []), False),
    "a right line that fails": ("right", (1, "no", []), True),
    "a second line": ("wrong", (1, "Traceback\nno", []), True),
    "a crash": ("wrong", (-11, "", []), True),
    "a file that is left": ("wrong", (1, "no", [".last.pt.1"]), True),
}


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """Which of ENDS the campaign takes for a fault; asked in a process of its own, which imports every command."""
    code = f"""
import json
from tests.campaigns.fuzz import Line, Result, fault
found = {{}}
for name, (line, end, _) in {ENDS}.items():
    found[name] = fault(Line(["train"], line == "right"), Result(*end, 1.0)) is not None
print(json.dumps(found))
"""
    done = python(code, tmp_path_factory.mktemp("faults"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("end", ENDS)
def test_a_campaign_knows_a_fault(end, faults):
    assert faults[end] == ENDS[end][-1]

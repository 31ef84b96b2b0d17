"""Random command lines, the short form of `python -m tests.campaigns.fuzz 2000`: about six in ten are right."""

import re

from conftest import command, python


def test_random_command_lines_work_or_are_answered_in_one_line(tmp_path):
    done = command("-m tests.campaigns.fuzz 24 --seed 3", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = dict(re.findall(r"'([\w ]+)': (\d+)", done.stdout.splitlines()[-1]))
    assert int(counts["lines"]) == 24
    assert int(counts["right"]) >= 6  # each with probability 0.6: fewer in one of 10,000 seeds
    assert int(counts["ended with 0"]) + int(counts["ended with 1"]) == 24


def test_the_campaign_notices_a_traceback_and_a_second_line(tmp_path):
    code = """
from tests.campaigns.fuzz import Line, Result, fault
right, wrong = Line(["train"], True), Line(["train"], False)
assert fault(right, Result(0, "", [], 1.0)) is None and fault(wrong, Result(1, "no", [], 1.0)) is None
assert fault(right, Result(1, "no", [], 1.0)) and fault(wrong, Result(1, "Traceback\\nno", [], 1.0))
assert fault(wrong, Result(-11, "", [], 1.0)) and fault(wrong, Result(1, "no", [".last.pt.1"], 1.0))
"""
    assert python(code, tmp_path).returncode == 0

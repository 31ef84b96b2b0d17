"""loss may not import conf, so both hold the name of the file in which a failed run says why."""

from conf import sweep
from loss import runs


def test_the_file_of_a_failed_run_has_one_name():
    assert runs.ERROR == sweep.ERROR

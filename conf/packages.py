"""The import ends a program with one sentence where Python lacks the packages of moonwalk.

The programs in scripts/ and loss/ import it first. Commands import conf.startup.
"""

from conf.startup import check_packages

check_packages()

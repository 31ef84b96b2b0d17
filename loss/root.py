"""Put the root of the repository on sys.path, for the commands in this folder, and check their arguments.

Python started as `python loss/plot.py` finds only the modules in loss/. What is wrong in the arguments
is answered here, before the script imports torch.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import conf.packages  # noqa: F401  (first: it looks for the packages that all others need)

# isort: split
from conf.script_parsers import check_arguments

check_arguments(Path(sys.argv[0]).stem, sys.argv[1:])

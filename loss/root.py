"""Put the root of the repository on sys.path, for the commands in this folder.

Python started as `python loss/plot.py` finds only the modules in loss/.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

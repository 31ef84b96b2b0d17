"""Put the root of the repository on sys.path, for the scripts in this folder.

Python started as `python scripts/share.py` finds only the modules in scripts/.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

"""The demo is a folder of scripts, no package: its files import each other by name, and so do their tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "examples" / "demo"))

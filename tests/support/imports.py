"""What a command has imported by its end: a short command's time is mostly that, and it grows unseen."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PROGRAM = """
import importlib, sys
module, *sys.argv[1:] = sys.argv[1:]
main = importlib.import_module(module).main
try:
    status = main(*([sys.argv[1:]] if module != "infra.cli" else []))
except SystemExit as exc:  # --help
    status = exc.code
print("imported", *sys.modules)
sys.exit(status)
"""


def imported(module: str, *argv: str) -> set[str]:
    """The modules that `main` of `module` has imported by its end, in a process of its own."""
    command = [sys.executable, "-c", _PROGRAM, module, *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])

"""Prometheus and promtool from Debian's packages, without installing them: fetched once into `.onstream/tools`.

What is on PATH goes first. apt checks what it fetches against Debian's signatures; where it has no lists of packages
yet, it makes its own beside the tools, so root is not needed.
"""

import getpass
import shutil
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".onstream" / "tools"
UNPACKED = TOOLS / "prometheus"
_NAMES = ("prometheus", "promtool")
_PACKAGES = (
    "prometheus",
    # what Debian's pages of Prometheus are made with
    *("fonts-glyphicons-halflings", "libjs-bootstrap4", "libjs-d3", "libjs-eonasdan-bootstrap-datetimepicker"),
    *("libjs-jquery", "libjs-jquery-hotkeys", "libjs-moment", "libjs-moment-timezone", "libjs-mustache"),
    *("libjs-popper.js", "libjs-rickshaw"),
)


class ToolError(OSError):
    """A tool is not here and cannot be fetched."""


def prometheus() -> Path:
    """The server. Raises `ToolError`."""
    return _tool("prometheus")


def promtool() -> Path:
    """What checks and tests rules. Raises `ToolError`."""
    return _tool("promtool")


def can_have() -> bool:
    """Whether the tools are here, or apt is, to fetch them."""
    return all(_here(name) for name in _NAMES) or shutil.which("apt-get") is not None


def _here(name: str) -> Path | None:
    on_path = shutil.which(name)
    if on_path:
        return Path(on_path)
    fetched = UNPACKED / "usr" / "bin" / name
    return fetched if fetched.exists() else None


def _tool(name: str) -> Path:
    found = _here(name)
    if found is None:
        _fetch()
        found = UNPACKED / "usr" / "bin" / name
    return found


def _fetch() -> None:
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if apt is None or dpkg is None:
        raise ToolError(f"{' and '.join(_NAMES)} are not on PATH, and there is no apt to fetch Debian's packages with")
    TOOLS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TOOLS) as folder:
        unpacked = Path(folder) / "unpacked"
        for package in _download(apt, Path(folder)):
            _run([dpkg, "--extract", str(package), str(unpacked)])
        shutil.rmtree(UNPACKED, ignore_errors=True)
        unpacked.replace(UNPACKED)


def _download(apt: str, folder: Path) -> list[Path]:
    """The packages' files. Raises `ToolError`."""
    lists, cache = folder / "lists", folder / "cache"
    for path in (lists / "partial", cache / "archives" / "partial"):
        path.mkdir(parents=True)
    mine = ["-o", f"APT::Sandbox::User={getpass.getuser()}", "-o", f"Dir::Cache={cache}"]
    try:
        _run([apt, "-qq", *mine, "download", *_PACKAGES], folder)
    except ToolError:
        mine += ["-o", f"Dir::State::Lists={lists}"]
        _run([apt, "-qq", *mine, "update"], folder)
        _run([apt, "-qq", *mine, "download", *_PACKAGES], folder)
    return sorted(folder.glob("*.deb"))


def _run(command: list[str], folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"{' '.join(command)}: {done.stderr.strip()}")

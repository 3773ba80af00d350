"""Where Prometheus comes from."""

import stat
from pathlib import Path

import pytest
from chartwatch import debian

APT = """#!/bin/sh
case "$*" in
  *Lists*download*) : > prometheus_1_amd64.deb ;;
  *download*) echo "E: Unable to locate package" >&2; exit 100 ;;
esac
echo "$*" >> {asked}
"""
DPKG = """#!/bin/sh
/bin/mkdir -p "$3/usr/bin"
for name in prometheus promtool; do echo "#!/bin/sh" > "$3/usr/bin/$name"; done
"""


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty PATH, and a folder for tools."""
    monkeypatch.setattr(debian, "TOOLS", tmp_path / "tools")
    monkeypatch.setattr(debian, "UNPACKED", tmp_path / "tools" / "prometheus")
    commands = tmp_path / "bin"
    commands.mkdir()
    monkeypatch.setenv("PATH", str(commands))
    return commands


def install(folder: Path, name: str, text: str = "#!/bin/sh\n") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_without_apt_it_is_said_what_is_missing(alone: Path) -> None:
    assert not debian.can_have()
    with pytest.raises(debian.ToolError, match="prometheus and promtool are not on PATH, and there is no apt"):
        debian.promtool()


def test_what_is_on_path_is_taken(alone: Path) -> None:
    mine = install(alone, "promtool")
    assert debian.promtool() == mine


def test_apt_without_lists_of_packages_makes_its_own_and_nothing_but_the_tools_stays(
    alone: Path, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    install(alone, "apt-get", APT.format(asked=asked))
    install(alone, "dpkg-deb", DPKG)
    found = debian.promtool()
    assert found.read_text() == "#!/bin/sh\n"
    assert [line.split()[-1] for line in asked.read_text().splitlines()] == ["update", "libjs-rickshaw"]
    assert [path.name for path in (tmp_path / "tools").iterdir()] == ["prometheus"]
    assert debian.prometheus().parent == found.parent

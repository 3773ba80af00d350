"""What the pages say can be typed, set and clicked: commands, keys and links, as they are."""

import re
import shlex
import typing
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from chartcheck.values import Values
from pydantic import BaseModel

from infra import cli, config

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {point.name: point for point in entry_points(group=cli.GROUP)}
BLOCK = re.compile(r"^```.*?^```$", re.M | re.S)
SPAN = re.compile(r"`([^`]+)`")


def shown(page: Path) -> Iterator[list[str]]:
    """Commands in blocks, as a shell would split them."""
    for block in BLOCK.findall(page.read_text()):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.match(r"(?:kubectl .* -- +|\.venv/bin/)?(onstream .*)", line):
                yield shlex.split(re.split(r" [#|] ", found[1])[0])[1:]


def named(page: Path) -> Iterator[list[str]]:
    """Commands within a sentence, which may leave out what does not matter there."""
    for span in SPAN.findall(BLOCK.sub("", page.read_text())):
        if found := re.match(r"(?:\.venv/bin/)?onstream\s+(.*)", span, re.S):
            yield shlex.split(re.sub(r"\b(N|VERSION)\b", "7", re.sub(r"[][]| \|.*", "", found[1])))


def refusal(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command's parser says against it; empty: nothing. It runs as far as its configuration, which is none."""
    without = ["-c", "none.yaml"] if words[0] != "suite" else []
    try:
        COMMANDS[words[0]].load()([*words[1:], *without])
    except SystemExit as exc:
        return capsys.readouterr().err if exc.code else ""
    capsys.readouterr()
    return ""


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Commands find no configuration, and no token."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(config.CONTROL_TOKEN_VAR, raising=False)


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_that_is_shown_is_one(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert {" ".join(words): told for words in shown(page) if (told := refusal(words, capsys))} == {}


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_that_is_named_is_one_and_has_what_it_is_named_with(
    page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [words for words in named(page) if words and words[0] != "--help"]
    assert {words[0] for words in found} <= COMMANDS.keys()
    told = {" ".join(words): refusal(words, capsys) for words in found if len(words) > 1}
    assert {words: said for words, said in told.items() if re.search("unrecognized|invalid choice", said)} == {}


@cache
def keys() -> frozenset[str]:
    """Every key of the configuration and of the chart's values, dotted, also without the sections before it."""

    def below(section: type[BaseModel]) -> Iterator[tuple[str, ...]]:
        for name, field in section.model_fields.items():
            yield (name,)
            yield from ((name, *rest) for one in sections(field.annotation) for rest in below(one))

    def sections(kind: object) -> Iterator[type[BaseModel]]:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield kind
        for inner in typing.get_args(kind):
            yield from sections(inner)

    both = (*below(config.Config), *below(Values))
    return frozenset(".".join(key[first:]) for key in both for first in range(len(key)))


SECTIONS = "|".join({*config.Config.model_fields, *Values.model_fields, "gate", "watch", "loss"})
KEY = re.compile(rf"(?:config\.)?((?:{SECTIONS})(?:\.[a-zA-Z_]+(?:\[\])?)+)(?:: .*)?")
FILES = {"model.sig", "ingest.sqlite", "telemetry.Local"}  # and a name of the code's
NAMES_CODE = {"CHANGELOG.md", "scale.md"}  # whose dotted names are functions, too, and settings that were


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in NAMES_CODE], ids=lambda page: page.name)
def test_a_setting_that_is_named_is_one(page: Path) -> None:
    found = (KEY.fullmatch(span) for span in SPAN.findall(BLOCK.sub("", page.read_text())))
    settings = {key[1].replace("[]", "") for key in found if key} - FILES
    assert {key for key in settings if key.partition(".componentAnnotations")[0] not in keys()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    assert [link for link in links if not link.startswith("http") and not leads(page, *link.partition("#")[::2])] == []


def leads(page: Path, file: str, anchor: str) -> bool:
    target = page.parent / file if file else page
    if not anchor or target.suffix != ".md":
        return target.exists()
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", target.read_text()), re.M)
    return anchor in {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}

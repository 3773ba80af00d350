"""The rendered onstream.yaml: what the processes load, and what a container's command is."""

import importlib
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from certificates import Authority
from chart_pods import Container, SecretKey, containers, here, lay_out
from chartcheck import configuration
from chartcheck.render import ChartError
from chartcheck.tools import ROOT
from charts import Rendered

from infra import cli, config
from infra.config import Config, Placement, SigningConfig

POINTS: Mapping[str, Mapping[str, str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
    "entry-points"
]


def entry(point: str) -> Callable[..., Any]:
    module, _, name = point.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def test_the_rendered_configuration_loads(rendered: Rendered, case: str) -> None:
    loaded = configuration.load(rendered(case))
    assert loaded.log.local is False
    takes_turns = loaded.serving.rollout.placement is Placement.SWITCHBACK
    assert {slot.arm for slot in loaded.serving.engines} == ({"stable"} if takes_turns else {"stable", "candidate"})


def test_whatever_the_values_say_of_the_configuration_is_in_it(rendered: Rendered) -> None:
    given = {
        "log": {"partitions": 7, "retention_s": 604800},
        "serving": {"capture": {"max_spool_bytes": 17179869184}, "rollout": {"gate": {"margin": 0.01}}},
        "privacy": {"redact": ["email"], "patterns": {"badge": "B-[0-9]{4}"}},
        "trainer": {"lr": 2.5e-7, "seed": 3},
    }
    loaded = configuration.load(rendered(overlay={"config": given}))
    assert (loaded.log.partitions, loaded.serving.capture.max_spool_bytes) == (7, 17179869184)
    assert loaded.serving.rollout.gate.margin == 0.01
    assert (loaded.privacy.redact, loaded.privacy.patterns) == (("email",), {"badge": "B-[0-9]{4}"})
    assert (loaded.trainer.lr, loaded.trainer.seed) == (2.5e-7, 3)


def test_what_lies_in_the_store_lies_below_its_uri_unless_said_otherwise(rendered: Rendered) -> None:
    plain = configuration.load(rendered())
    assert (plain.store.url, plain.ingest.lake.url, plain.privacy.keys_url, plain.claims_url) == (
        "s3://bucket/onstream/store",
        "s3://bucket/onstream/lake",
        "s3://bucket/onstream/keys",
        "s3://bucket/onstream/store/claims",
    )
    other = configuration.load(rendered("store-secret"))
    assert (other.ingest.lake.url, other.privacy.keys_url) == ("s3://other/lake", "s3://other/keys")


def test_no_file_is_shared_between_pods_but_by_the_store(rendered: Rendered, case: str) -> None:
    """Everything that two kinds of pods read or write is in the store; below run_dir each has its own."""
    loaded = configuration.load(rendered(case))
    for url in (loaded.store.url, loaded.ingest.lake.url, loaded.privacy.keys_url, loaded.claims_url):
        assert "://" in url
    claims = [
        (mount.source["persistentVolumeClaim"]["claimName"], c.component)
        for c in containers(rendered(case))
        for mount in c.mounts
        if "persistentVolumeClaim" in mount.source and not mount.is_read_only
    ]
    assert sorted(component for _, component in claims) == ["rollout", "trainer"]
    assert len({name for name, _ in claims}) == 2


def test_the_key_that_signs_versions_reaches_who_publishes_and_nobody_else(rendered: Rendered) -> None:
    private = SecretKey("signing", "new.pem")
    signing = configuration.load(rendered("signing")).store.signing
    held = {c.component for c in containers(rendered("signing")) if private in c.files.values()}
    assert held == {"bootstrap", "trainer"}
    for container in (c for c in containers(rendered("signing")) if c.component in held):
        assert container.files[signing.key_file] == private


def test_the_public_keys_reach_every_engine_newest_first_and_are_required(rendered: Rendered) -> None:
    signing = configuration.load(rendered("signing")).store.signing
    engines = [c for c in containers(rendered("signing")) if c.component.startswith("engine")]
    assert engines and signing.required
    for container in engines:
        found = [container.files[file] for file in signing.public_key_files]
        assert found == [SecretKey("signing", "new.pub.pem"), SecretKey("signing", "old.pub.pem")]


def test_versions_are_signed_only_where_a_secret_is_named(rendered: Rendered) -> None:
    assert configuration.load(rendered()).store.signing == SigningConfig()
    with pytest.raises(ChartError, match=r"signing\.required: name the Secret"):
        rendered(overlay={"signing": {"required": True}})


def secrets_of(held: list[Container], folder: Path) -> dict[SecretKey, str]:
    """Something that can be read, for everything that is mounted from a Secret."""
    authority = Authority(folder / "authority")
    pair = authority.issue("onstream")
    kinds = {
        "ca.pem": authority.ca.read_text(),
        "certificate.pem": pair.cert.read_text(),
        "key.pem": pair.key.read_text(),
        "secret": "5" * 64,
        "password": "a password",
    }
    found = {(where, path) for c in held for path, where in c.files.items() if isinstance(where, SecretKey)}
    return {where: kinds[path.rsplit("/", 1)[1]] for where, path in found}


@pytest.mark.parametrize("name", ["one-gpu", "small-team", "large"])
def test_an_example_passes_every_check_that_onstream_check_makes(rendered: Rendered, name: str, tmp_path: Path) -> None:
    held = [c for c in containers(rendered(name)) if c.component == "bootstrap"]
    for container in held:
        lay_out(container, tmp_path, secrets_of(held, tmp_path))
    loaded = config.load(f"{tmp_path}/etc/onstream/onstream.yaml", {})
    model = Path(loaded.model.path)
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"")
    for point in POINTS["onstream.checks"].values():
        entry(point)(loaded)


def arguments(container: Container, path: Path) -> tuple[Callable[[list[str]], int], list[str]]:
    """What the container's command calls, and with what."""
    program, *rest = (here(word, path) for word in container.command)
    if program == "python":
        assert rest[0] == "-m"
        return importlib.import_module(f"{rest[1]}.__main__").main, rest[2:]
    assert program == "onstream"
    return entry(POINTS["onstream.commands"][rest[0]]), rest[1:]


def test_every_command_is_one_that_exists_and_takes_what_it_is_given(
    rendered: Rendered, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Config] = []

    def guarded(path: str, run: Callable[[Config], int | None], verbose: bool = True) -> int:
        seen.append(config.load(path, env))
        return 0

    monkeypatch.setattr(cli, "guarded", guarded)
    own = [c for c in containers(rendered(case)) if c.component not in ("learner", "collector")]
    for container in own:
        file = tmp_path / "etc/onstream/onstream.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(here(configuration.text_of(rendered(case)), tmp_path))
        env = {name: value for name, value in container.env.items() if isinstance(value, str)}
        call, argv = arguments(container, tmp_path)
        assert call(argv) == 0, container.command
        assert seen[-1].health.port == 8300
    assert len(seen) == len(own)


def test_the_variables_that_processes_read_are_the_ones_that_pods_are_given(rendered: Rendered) -> None:
    from infra.config import CONTROL_TOKEN_VAR, ENV_PREFIX, SCORING_TOKEN_VAR
    from serving.smoke import API_KEY_VAR

    known = {CONTROL_TOKEN_VAR, SCORING_TOKEN_VAR, API_KEY_VAR}
    given = {name for c in containers(rendered("store-secret")) for name in c.env if name.startswith("ONSTREAM_")}
    assert {name for name in given if not name.startswith(ENV_PREFIX)} == known


def test_the_configuration_is_text_that_people_can_read(rendered: Rendered) -> None:
    text = configuration.text_of(rendered("large"))
    assert yaml.safe_load(text)["serving"]["capture"]["max_spool_bytes"] == 68719476736
    assert "max_spool_bytes: 68719476736" in text

"""A configuration that cannot be used is refused, and the message says where and what."""

from pathlib import Path

import pytest
import yaml

from infra.config import Config, RampStep, load
from infra.errors import ConfigError

MINIMAL = "model: {path: weights}\n"


def refusal(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> str:
    file = tmp_path / "onstream.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(file, environ or {})
    message = str(raised.value)
    assert message.startswith((f"configuration {file}:", "environment ONSTREAM__"))
    return message


def loaded(text: str, tmp_path: Path, environ: dict[str, str] | None = None) -> Config:
    file = tmp_path / "onstream.yaml"
    file.write_text(text)
    return load(file, environ or {})


def test_a_model_path_is_all_that_must_be_given(tmp_path: Path) -> None:
    config = loaded(MINIMAL, tmp_path)
    assert (config.model.path, config.log.brokers, config.serving.router.port) == ("weights", "127.0.0.1:9092", 8000)


def test_the_dump_loads_as_the_same_configuration(tmp_path: Path) -> None:
    config = loaded(MINIMAL + "log: {partitions: 7}\n", tmp_path)
    assert loaded(config.dump(), tmp_path) == config


def places(config: Config) -> tuple[str, ...]:
    return (
        config.store.url,
        config.store.cache_dir,
        config.serving.capture.spool_dir,
        config.trainer.checkpoint_dir,
        config.ingest.lake.url,
        config.privacy.keys_url,
    )


def test_what_a_run_leaves_lies_below_its_run_dir(tmp_path: Path) -> None:
    below = ("/r/store", "/r/cache", "/r/spool", "/r/trainer", "/r/lake", "/r/keys")
    assert places(loaded(MINIMAL + "run_dir: /r\ntrainer: {lr: 0.1}\n", tmp_path)) == below
    assert places(loaded(MINIMAL, tmp_path, {"ONSTREAM__RUN_DIR": "/r"})) == below
    assert places(loaded(MINIMAL, tmp_path))[0] == ".onstream/store"


def test_values_too_large_for_the_log_lie_below_the_store_unless_told_otherwise(tmp_path: Path) -> None:
    assert loaded(MINIMAL + "run_dir: /r\n", tmp_path).claims_url == "/r/store/claims"
    assert loaded(MINIMAL + "store: {url: s3://bucket/weights}\n", tmp_path).claims_url == "s3://bucket/weights/claims"
    assert loaded(MINIMAL + "log: {claims_url: s3://bucket/large}\n", tmp_path).claims_url == "s3://bucket/large"


def test_a_path_that_is_given_stays(tmp_path: Path) -> None:
    given = loaded(MINIMAL + "run_dir: /r\nstore: {url: s3://bucket/weights}\n", tmp_path)
    assert places(given)[:2] == ("s3://bucket/weights", "/r/cache")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("lgo: {}\n", "  lgo: unknown key; did you mean `log`?"),
        ("log: {broker: x}\n", "  log.broker: unknown key; did you mean `brokers`?"),
        (
            "serving: {rollout: {gate: {alfa: 0.1}}}\n",
            "  serving.rollout.gate.alfa: unknown key; did you mean `alpha`?",
        ),
        (
            "serving: {engines: [{id: a, arm: stable, port: 1, control_port: 2, prot: 3}]}\n",
            "  serving.engines.0.prot: unknown key; did you mean `port`?",
        ),
        ("trainer: {zzzzzz: 1}\n", "  trainer.zzzzzz: unknown key"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_known_one(text: str, line: str, tmp_path: Path) -> None:
    assert line in refusal(MINIMAL + text, tmp_path).splitlines()


def test_a_value_of_the_wrong_type_is_named_with_what_was_given(tmp_path: Path) -> None:
    message = refusal(MINIMAL + "log: {partitions: many}\n", tmp_path)
    assert "  log.partitions: Input should be a valid integer" in message
    assert message.endswith("got 'many'")


@pytest.mark.parametrize("keys", ["{sk-secret: acme}", "[sk-secret]", "{sk-secret: no tenant/name}"])
def test_an_api_key_that_stands_in_the_file_is_refused_and_not_repeated(keys: str, tmp_path: Path) -> None:
    message = refusal(MINIMAL + f"serving: {{router: {{api_keys: {keys}}}}}\n", tmp_path)
    assert "must map the SHA-256 of each API key" in message and "secret" not in message


def test_every_fault_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    lines = refusal("model: {path: w, nam: p}\nlog: {timeout_s: 0}\n", tmp_path).splitlines()[1:]
    assert [line.split(":")[0].strip() for line in lines] == ["model.nam", "log.timeout_s"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"onstream\.yaml: no such file"):
        load(tmp_path / "onstream.yaml", {})


@pytest.mark.parametrize("text", ["model: {path: [", "a: b: c\n", "\tmodel: x\n"])
def test_a_file_that_is_not_yaml_is_refused(text: str, tmp_path: Path) -> None:
    assert "not readable as YAML" in refusal(text, tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "onstream.yaml"
    file.write_bytes(b"\xff\xfe\x00model")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        load(file, {})


@pytest.mark.parametrize(("text", "kind"), [("", "NoneType"), ("- model\n", "list"), ("model\n", "str")])
def test_a_file_that_is_not_a_mapping_is_refused(text: str, kind: str, tmp_path: Path) -> None:
    assert f"must be a mapping of sections, got {kind}" in refusal(text, tmp_path)


def test_the_environment_goes_before_the_file_and_the_file_before_the_defaults(tmp_path: Path) -> None:
    environ = {"ONSTREAM__LOG__PARTITIONS": "9", "ONSTREAM__SERVING__ROUTER__PORT": "9000", "ONSTREAM_OTHER": "x"}
    config = loaded(MINIMAL + "log: {partitions: 3, replication: 2}\n", tmp_path, environ)
    assert (config.log.partitions, config.log.replication, config.log.timeout_s) == (9, 2, 30.0)
    assert config.serving.router.port == 9000


def test_an_environment_value_may_be_a_list_or_a_mapping(tmp_path: Path) -> None:
    environ = {"ONSTREAM__SERVING__ENGINE__EXTRA_ARGS": "[--a, b]", "ONSTREAM__MODEL": "{path: other}"}
    config = loaded(MINIMAL, tmp_path, environ)
    assert (config.serving.engine.extra_args, config.model.path) == (("--a", "b"), "other")


def test_an_unknown_key_in_the_environment_is_refused(tmp_path: Path) -> None:
    message = refusal(MINIMAL, tmp_path, {"ONSTREAM__LOG__PARTITION": "9"})
    assert "log.partition: unknown key; did you mean `partitions`?" in message


def test_an_environment_value_below_something_that_is_no_section_is_refused(tmp_path: Path) -> None:
    message = refusal("model: weights\n", tmp_path, {"ONSTREAM__MODEL__PATH": "x"})
    assert message == "environment ONSTREAM__MODEL__PATH: `model` is not a section"


def test_an_environment_value_that_is_not_yaml_is_refused_by_name(tmp_path: Path) -> None:
    message = refusal(MINIMAL, tmp_path, {"ONSTREAM__MODEL__NAME": "a: b: c"})
    assert message.startswith("environment ONSTREAM__MODEL__NAME: not readable as YAML")


@pytest.mark.parametrize(
    ("ramp", "rule"),
    [
        ([], "the last step must have no `until_units`"),
        ([{"share": 0.1, "until_units": 200}], "the last step must have no `until_units`"),
        ([{"share": 0.1}, {"share": 0.5}], "only the last step may lack `until_units`"),
        ([{"share": 1.5}], "serving.rollout.gate.ramp.0.share"),
    ],
)
def test_a_ramp_that_leaves_units_without_a_share_is_refused(
    ramp: list[dict[str, float]], rule: str, tmp_path: Path
) -> None:
    text = yaml.safe_dump({"model": {"path": "w"}, "serving": {"rollout": {"gate": {"ramp": ramp}}}})
    assert rule in refusal(text, tmp_path)


def test_a_ramp_that_ends_open_is_taken(tmp_path: Path) -> None:
    text = "serving: {rollout: {gate: {ramp: [{share: 0.2, until_units: 10}, {share: 0.4}]}}}\n"
    ramp = loaded(MINIMAL + text, tmp_path).serving.rollout.gate.ramp
    assert ramp == (RampStep(share=0.2, until_units=10), RampStep(share=0.4))


def engines(*pairs: tuple[str, str]) -> str:
    slots = [
        {"id": name, "arm": arm, "port": 8001 + n, "control_port": 8101 + n} for n, (name, arm) in enumerate(pairs)
    ]
    return yaml.safe_dump({"model": {"path": "w"}, "serving": {"engines": slots}})


def test_two_engines_of_one_id_are_refused(tmp_path: Path) -> None:
    assert "ids must differ, got ['a', 'a']" in refusal(engines(("a", "stable"), ("a", "candidate")), tmp_path)


def test_a_port_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    text = engines(("a", "stable"), ("b", "candidate")).replace("8102", "8001")
    assert "ports must differ, got ['127.0.0.1:8001', '127.0.0.1:8101', " in refusal(text, tmp_path)


@pytest.mark.parametrize("arm", ["stable", "candidate"])
def test_an_arm_without_an_engine_is_refused(arm: str, tmp_path: Path) -> None:
    other = "candidate" if arm == "stable" else "stable"
    assert f"at least one must have `arm: {arm}`" in refusal(engines(("a", other), ("b", other)), tmp_path)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("redact: [mail]", "privacy.redact.0: Input should be 'email', 'phone', 'card', 'iban', 'ssn', 'ip', 'secret'"),
        ("patterns: {Badge-No: x}", "privacy.patterns.Badge-No"),
        ("patterns: {email: x}", "patterns: a name must not be that of a shipped kind, got ['email']"),
    ],
)
def test_a_private_kind_that_cannot_be_is_refused(text: str, line: str, tmp_path: Path) -> None:
    assert line in refusal(MINIMAL + f"privacy: {{{text}}}\n", tmp_path)


def test_every_kind_is_redacted_unless_some_are_named(tmp_path: Path) -> None:
    assert "secret" in loaded(MINIMAL, tmp_path).privacy.redact
    assert loaded(MINIMAL + "privacy: {redact: [email]}\n", tmp_path).privacy.redact == ("email",)


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    config = loaded(MINIMAL, tmp_path)
    with pytest.raises(ValueError, match="frozen"):
        config.log.partitions = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("trainer: {max_user_share: 0}\n", "trainer.max_user_share: Input should be greater than 0, got 0"),
        ("trainer: {max_tenant_share: 1.5}\n", "trainer.max_tenant_share: Input should be less than or equal to 1"),
        ("trainer: {near_duplicate_window: -1}\n", "trainer.near_duplicate_window: Input should be greater than or"),
        ("ingest: {held_out_by: team}\n", "ingest.held_out_by: Input should be 'session' or 'user', got 'team'"),
        ("ingest: {contamination: {overlap: 0}}\n", "ingest.contamination.overlap: Input should be greater than 0"),
        ("ingest: {contamination: {task: []}}\n", "ingest.contamination.task: unknown key; did you mean `tasks`?"),
        (
            "serving: {rollout: {gate: {max_units_per_user: 0}}}\n",
            "serving.rollout.gate.max_units_per_user: Input should be greater than or equal to 1, got 0",
        ),
    ],
)
def test_a_cap_that_cannot_be_is_refused(text: str, told: str, tmp_path: Path) -> None:
    assert told in refusal(MINIMAL + text, tmp_path)


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ("protocol: SASL_SSL", "SASL_SSL needs `username`, and `password_file` or `password_env`"),
        ("protocol: SASL_SSL, username: u", "SASL_SSL needs `username`, and `password_file` or `password_env`"),
        (
            "protocol: SASL_SSL, username: u, password_file: f, password_env: V",
            "the password comes from `password_file` or from `password_env`, got both",
        ),
        (
            "username: u, password_env: V",
            "a user and a password need SASL_SSL or SASL_PLAINTEXT, got protocol PLAINTEXT",
        ),
        ("protocol: SASL_PLAINTEXT, username: u, password_env: V, ca_file: f", "certificates need SSL or SASL_SSL"),
        ("protocol: SSL, cert_file: c", "`cert_file` and `key_file` belong together, got one of them"),
        ("protocol: TLS", "log.security.protocol: Input should be 'PLAINTEXT', 'SSL', 'SASL_PLAINTEXT' or 'SASL_SSL'"),
        ("protocol: SSL, pasword_file: f", "log.security.pasword_file: unknown key; did you mean `password_file`?"),
    ],
)
def test_a_security_that_its_protocol_does_not_use_or_lacks_is_refused(given: str, rule: str, tmp_path: Path) -> None:
    assert rule in refusal(MINIMAL + f"log: {{local: false, security: {{{given}}}}}\n", tmp_path)


def test_the_local_broker_is_refused_a_security_it_does_not_have(tmp_path: Path) -> None:
    assert "speaks PLAINTEXT only, got SSL" in refusal(MINIMAL + "log: {security: {protocol: SSL}}\n", tmp_path)
    assert loaded(MINIMAL + "log: {local: false, security: {protocol: SSL}}\n", tmp_path).log.security.protocol.is_tls


def test_a_process_binds_what_it_is_called_by_unless_told_otherwise(tmp_path: Path) -> None:
    one = loaded(MINIMAL + "trainer: {host: trainer.svc}\n", tmp_path)
    assert (one.trainer.bound, one.serving.bound(one.serving.engines[0])) == ("trainer.svc", "127.0.0.1")
    text = "trainer: {host: trainer.svc, listen: 0.0.0.0}\nserving: {engine: {listen: '::'}}\n"
    pod = loaded(MINIMAL + text, tmp_path)
    assert (pod.trainer.bound, pod.serving.bound(pod.serving.engines[0])) == ("0.0.0.0", "::")


def test_engines_of_different_hosts_may_have_the_same_ports(tmp_path: Path) -> None:
    slots = [
        {"id": f"{arm}-0", "arm": arm, "host": f"{arm}-0.engines.svc", "port": 8001, "control_port": 8101}
        for arm in ("stable", "candidate")
    ]
    config = loaded(yaml.safe_dump({"model": {"path": "w"}, "serving": {"engines": slots}}), tmp_path)
    assert [slot.ports for slot in config.serving.engines] == [(8001, 8101), (8001, 8101)]


def test_no_health_is_told_unless_a_port_is_given(tmp_path: Path) -> None:
    assert loaded(MINIMAL, tmp_path).health.port is None
    assert loaded(MINIMAL, tmp_path, {"ONSTREAM__HEALTH__PORT": "8080"}).health.port == 8080


ENGINE = "{{id: e{n}, arm: stable, port: 90{n}1, control_port: 90{n}2}}"


def one_pool(num: int, **said: object) -> str:
    engines = ", ".join(ENGINE.format(n=n) for n in range(num))
    rollout = yaml.safe_dump({"placement": "switchback", "switchback": said}, default_flow_style=True).strip()
    return f"{MINIMAL}serving: {{engines: [{engines}], rollout: {rollout}}}\n"


def test_arms_that_take_turns_need_no_engine_of_the_candidate(tmp_path: Path) -> None:
    assert len(loaded(one_pool(2), tmp_path).serving.engines) == 2
    assert loaded(one_pool(1, live_only=True), tmp_path).serving.rollout.switchback.live_only
    engines = ENGINE.format(n=0)
    assert "at least one must have `arm: candidate`" in refusal(f"{MINIMAL}serving: {{engines: [{engines}]}}", tmp_path)


@pytest.mark.parametrize(("num", "live_only"), [(1, False), (2, True)])
def test_that_no_check_comes_before_users_is_said_with_one_engine_and_only_then(
    tmp_path: Path, num: int, live_only: bool
) -> None:
    told = refusal(one_pool(num, live_only=live_only), tmp_path)
    assert "serving" in told and "live_only: must be true with one engine" in told


def test_a_block_may_not_count_before_its_sessions_are_closed(tmp_path: Path) -> None:
    told = refusal(one_pool(2) + "ingest: {inactivity_s: 3600}\n", tmp_path)
    assert "must be above ingest.inactivity_s (3600) where arms take turns, got 3600" in told

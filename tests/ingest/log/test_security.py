"""Brokers that want to know who we are, and that we must know: over TLS, with SASL, for real."""

import gc
import io
import re
import socket
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from ports import free_port
from secure_broker import HOST, SecureBroker

from infra.config import Config, LogConfig, LogSecurity
from infra.errors import ConfigError, LogError
from infra.lifecycle import Deadline
from ingest.log import security
from ingest.log.kafka_log import KafkaLog
from ingest.log.protocol import Message, Subscription, TopicSpec

USER, PASSWORD = "onstream", "a pass=word, with, all"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("brokers"))


@pytest.fixture(scope="module")
def secure(broker: Any, authority: Authority) -> Iterator[SecureBroker]:
    running = SecureBroker(broker.port, authority.issue(HOST), {USER: PASSWORD})
    yield running
    running.close()


@pytest.fixture
def given(secure: SecureBroker, authority: Authority, tmp_path: Path) -> Callable[..., LogConfig]:
    """A configuration that reaches the secure broker, with some of its security changed."""
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")

    def make(timeout_s: float = 10.0, brokers: str = f"{HOST}:{secure.port}", **changed: Any) -> LogConfig:
        right = {
            "protocol": "SASL_SSL",
            "mechanism": "PLAIN",
            "username": USER,
            "password_file": str(password),
            "ca_file": str(authority.ca),
        }
        changed = right | changed
        return LogConfig.model_validate(
            {"brokers": brokers, "local": False, "timeout_s": timeout_s, "security": changed}
        )

    return make


def fresh(kind: str) -> str:
    return f"{kind}-{uuid.uuid4().hex[:12]}"


def take(subscription: Subscription, count: int) -> list[Message]:
    found: list[Message] = []
    deadline = Deadline.after(30.0)
    while len(found) < count and not deadline.passed():
        found += subscription.poll(0.5, count - len(found))
    return found


def use_all_of(log: KafkaLog) -> None:
    """Every kind of client: admin, producer, consumers in a group and out of one, by place."""
    topic, group = fresh("topic"), fresh("group")
    log.create([TopicSpec(topic, 2, 3600.0)])
    for n in range(20):
        log.append(topic, f"key-{n}", b"%d" % n, {"n": str(n)})
    log.flush(10.0)
    first = log.subscribe([topic], group)
    read = take(first, 20)
    assert sorted(int(message.value) for message in read) == list(range(20))
    first.commit({(topic, part): 1 + max(m.offset for m in read if m.partition == part) for part in (0, 1)})
    first.close()
    log.append(topic, "key", b"20", {})
    log.flush(10.0)
    second = log.subscribe([topic], group)
    (newest,) = take(second, 1)
    second.close()
    assert newest.value == b"20"
    assert sum(log.lag(group, [topic]).values()) == 1
    assert sorted(int(message.value) for message in log.replay(topic)) == list(range(21))
    assert log.fetch(topic, newest.partition, newest.offset) == newest
    assert sum(log.ends(topic).values()) == 21


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
def test_a_log_works_whole_over_tls_with_a_password(given: Callable[..., LogConfig], mechanism: str) -> None:
    log = KafkaLog(given(mechanism=mechanism), "secure")
    try:
        use_all_of(log)
    finally:
        log.close()


def test_a_log_works_whole_over_tls_with_a_certificate_of_ours(broker: Any, authority: Authority) -> None:
    ours = authority.issue("onstream.svc")
    front = SecureBroker(broker.port, authority.issue(HOST), client_ca=authority.ca)
    mutual = {"protocol": "SSL", "ca_file": str(authority.ca), "cert_file": str(ours.cert), "key_file": str(ours.key)}
    config = LogConfig.model_validate({"brokers": f"{HOST}:{front.port}", "local": False, "security": mutual})
    log = KafkaLog(config, "mutual")
    try:
        use_all_of(log)
    finally:
        log.close()
        front.close()


def refusal(config: LogConfig) -> str:
    """What appending and reading say; no thread stays behind."""
    threads = set(threading.enumerate())
    log = KafkaLog(config, "secure")
    told = []
    for attempt in (
        lambda: log.append("topic", "key", b"value", {}),
        lambda: log.subscribe(["topic"], None),
        lambda: log.ends("topic"),
    ):
        with pytest.raises(LogError) as raised:
            attempt()
        told.append(str(raised.value))
    log.close()
    assert set(threading.enumerate()) == threads, "a client that could not connect left a thread behind"
    assert len(set(told)) == 1
    return told[0]


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-512"])
def test_a_wrong_password_is_told_and_not_repeated(
    given: Callable[..., LogConfig], secure: SecureBroker, tmp_path: Path, mechanism: str
) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("not the one")
    before = secure.num_connections
    told = refusal(given(2.0, mechanism=mechanism, password_file=str(wrong)))
    assert "Invalid username or password" in told and "not the one" not in told
    assert secure.num_connections - before <= 3 * 8, "a client that is refused goes on asking"


def test_an_authority_that_nobody_knows_is_told(given: Callable[..., LogConfig], tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    told = refusal(given(1.0, ca_file=str(other.ca)))
    assert re.search(r"broker at 127.*handshake failed: .*unable to get local issuer certificate", told), told


def test_a_broker_of_another_name_is_told_unless_names_are_not_checked(
    given: Callable[..., LogConfig], secure: SecureBroker, authority: Authority, broker: Any
) -> None:
    elsewhere = SecureBroker(broker.port, authority.issue("kafka.svc"), {USER: PASSWORD})
    try:
        brokers = f"{HOST}:{elsewhere.port}"
        assert "certificate is not valid for '127.0.0.1'" in refusal(given(1.0, brokers=brokers))
        log = KafkaLog(given(brokers=brokers, check_hostname=False), "secure")
        log.create([TopicSpec(fresh("topic"), 1, 3600.0)])
        log.close()
    finally:
        elsewhere.close()


def test_a_broker_without_tls_is_told(given: Callable[..., LogConfig], broker: Any) -> None:
    assert "handshake failed" in refusal(given(1.0, brokers=f"{HOST}:{broker.port}"))


def test_a_password_that_was_replaced_is_used_by_the_next_client(
    given: Callable[..., LogConfig], secure: SecureBroker, tmp_path: Path
) -> None:
    file = tmp_path / "rotated"
    file.write_text("of yesterday")
    log = KafkaLog(given(2.0, password_file=str(file)), "secure")
    with pytest.raises(LogError):
        log.create([TopicSpec("topic", 1, None)])
    file.write_text(PASSWORD)
    log.create([TopicSpec(fresh("topic"), 1, 3600.0)])
    log.close()


def test_readers_without_a_group_need_no_right_to_any(given: Callable[..., LogConfig], secure: SecureBroker) -> None:
    log, topic = KafkaLog(given(), "secure"), fresh("topic")
    log.create([TopicSpec(topic, 2, 3600.0)])
    for n in range(20):
        log.append(topic, f"key-{n}", b"%d" % n, {})
    log.flush(10.0)
    secure.keeps_groups = True
    try:
        read = list(log.replay(topic))
        follower = log.subscribe([topic], None)
        followed = take(follower, 20)
        follower.close()
        assert all(log.fetch(topic, one.partition, one.offset) == one for one in read)
        with pytest.raises(LogError, match="GROUP_AUTHORIZATION_FAILED"):
            take(log.subscribe([topic], fresh("group")), 1)
    finally:
        secure.keeps_groups = False
        log.close()
    assert sorted(one.value for one in read) == sorted(one.value for one in followed)
    assert len(read) == 20


def test_the_double_leaves_nothing_open_of_a_client_amid_its_handshake(authority: Authority) -> None:
    front = SecureBroker(free_port(), authority.issue(HOST))
    with socket.create_connection((HOST, front.port)):
        front.close()
    del front
    gc.collect()  # what was left open would fail this test


# -- what `onstream check` looks at


def check(**given: Any) -> None:
    security.check(Config.model_validate({"model": {"path": "none"}, "log": {"local": False, "security": given}}))


def test_a_password_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sasl = {"protocol": "SASL_SSL", "username": "u"}
    with pytest.raises(ConfigError, match=r"log\.security\.password_file: .*none: not readable: No such file"):
        check(**sasl, password_file=str(tmp_path / "none"))
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(ConfigError, match=r"must hold the brokers' password, got nothing"):
        check(**sasl, password_file=str(tmp_path / "empty"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe secret")
    with pytest.raises(ConfigError, match=r"must be text$") as raised:
        check(**sasl, password_file=str(tmp_path / "bytes"))
    assert raised.value.__cause__ is None
    monkeypatch.delenv("BROKERS_PASSWORD", raising=False)
    with pytest.raises(ConfigError, match=r"log\.security\.password_env: BROKERS_PASSWORD: must hold"):
        check(**sasl, password_env="BROKERS_PASSWORD")
    monkeypatch.setenv("BROKERS_PASSWORD", "secret")
    check(**sasl, password_env="BROKERS_PASSWORD")


def test_certificates_that_cannot_be_used_are_named(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    ours, other = authority.issue("ours"), authority.issue("other")
    (tmp_path / "text").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"ca_file: .*text: must hold certificates as PEM"):
        check(protocol="SSL", ca_file=str(tmp_path / "text"))
    with pytest.raises(ConfigError, match=r"ca_file: .*none: not readable: No such file"):
        check(protocol="SSL", ca_file=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"cert_file: .* with key_file .*: must hold a certificate"):
        check(protocol="SSL", cert_file=str(ours.cert), key_file=str(other.key))
    check(protocol="SSL", ca_file=str(authority.ca), cert_file=str(ours.cert), key_file=str(ours.key))


def test_names_are_checked_unless_told_otherwise() -> None:
    assert security.tls_context(LogSecurity(protocol="SSL")).check_hostname
    context = security.tls_context(LogSecurity(protocol="SSL", check_hostname=False))
    assert (context.check_hostname, context.verify_mode) == (False, ssl.CERT_REQUIRED)

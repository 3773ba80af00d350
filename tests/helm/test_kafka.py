"""Kafka by address, with passwords and certificates by reference, and Strimzi's resources."""

import pytest
from chart_pods import SecretKey, containers
from chartcheck import configuration
from chartcheck.render import ChartError
from charts import Rendered, one, some

from infra.config import LogConfig, Protocol
from ingest.log.kafka_clients import KafkaClients
from ingest.log.kafka_places import KafkaPlaces
from ingest.log.topics import ALL, READERS, specs


def kafka_files(rendered: Rendered, case: str) -> dict[str, SecretKey]:
    found = {
        c.component: {path: where for path, where in c.files.items() if "/kafka/" in path}
        for c in containers(rendered(case))
        if c.component not in ("learner", "collector")
    }
    held = list(found.values())
    assert all(one_ == held[0] for one_ in held), "every process of ours talks to the brokers"
    return {path: where for path, where in held[0].items() if isinstance(where, SecretKey)}


@pytest.mark.parametrize(
    "name",
    ["sasl-plain", "keda-sasl", "keda-tls", "keda-public-tls", "tls", "strimzi", "strimzi-tls", "large", "small-team"],
)
def test_every_file_that_the_configuration_names_is_mounted_and_no_other(rendered: Rendered, name: str) -> None:
    security = configuration.load(rendered(name)).log.security
    named = {security.password_file, security.ca_file, security.cert_file, security.key_file} - {""}
    assert set(kafka_files(rendered, name)) == named


def test_a_password_is_taken_from_the_secret_and_key_that_were_named(rendered: Rendered) -> None:
    assert kafka_files(rendered, "keda-sasl") == {
        "/etc/onstream/secrets/kafka/password": SecretKey("kafka-user", "password"),
        "/etc/onstream/secrets/kafka/ca.pem": SecretKey("kafka-authority", "ca.crt"),
    }
    security = configuration.load(rendered("keda-sasl")).log.security
    assert (security.protocol, security.mechanism, security.username) == (
        Protocol.SASL_SSL,
        "SCRAM-SHA-512",
        "onstream",
    )


def test_a_strimzi_users_secret_is_used_where_no_other_is_named(rendered: Rendered) -> None:
    user = one(rendered("strimzi"), "KafkaUser")["metadata"]["name"]
    assert kafka_files(rendered, "strimzi")["/etc/onstream/secrets/kafka/password"] == SecretKey(user, "password")
    assert configuration.load(rendered("strimzi")).log.security.username == user


def test_sasl_without_a_secret_is_refused_and_says_which_value_is_missing(rendered: Rendered) -> None:
    security = {"protocol": "SASL_SSL", "username": "onstream"}
    with pytest.raises(ChartError, match=r"kafka\.security\.secret: name the Secret"):
        rendered(overlay={"kafka": {"security": security}})


def test_sasl_without_a_user_is_refused(rendered: Rendered) -> None:
    with pytest.raises(ChartError, match=r"kafka\.security\.username: SASL needs one"):
        rendered(overlay={"kafka": {"security": {"protocol": "SASL_SSL", "secret": "s"}}})


def test_strimzi_makes_the_topics_that_bootstrap_would_make(rendered: Rendered) -> None:
    manifests = rendered("small-team")
    log = configuration.load(manifests).log
    made = {m["metadata"]["name"]: m["spec"] for m in manifests if m["kind"] == "KafkaTopic"}
    places = KafkaPlaces(KafkaClients(LogConfig(replication=log.replication), "test"))
    wanted = [places._new(spec) for spec in specs(log.partitions, log.retention_s)]
    assert {
        name: (spec["partitions"], spec["replicas"], {key: str(value) for key, value in spec["config"].items()})
        for name, spec in made.items()
    } == {new.topic: (new.num_partitions, new.replication_factor, new.config) for new in wanted}


def test_the_strimzi_user_may_use_every_topic_and_group_and_no_more(rendered: Rendered) -> None:
    acls = one(rendered("strimzi"), "KafkaUser")["spec"]["authorization"]["acls"]
    named = {
        kind: {a["resource"]["name"] for a in acls if a["resource"]["type"] == kind} for kind in ("topic", "group")
    }
    assert named == {"topic": {topic.name for topic in ALL}, "group": set(READERS)}
    assert not {"All", "Delete", "Alter", "AlterConfigs"} & {op for acl in acls for op in acl["operations"]}


def test_topics_outlive_the_release(rendered: Rendered) -> None:
    kept = {
        m["metadata"]["annotations"]["helm.sh/resource-policy"]
        for m in rendered("strimzi")
        if m["kind"] == "KafkaTopic"
    }
    assert kept == {"keep"}


def test_strimzi_needs_to_know_its_cluster(rendered: Rendered) -> None:
    with pytest.raises(ChartError, match=r"strimzi\.cluster: name the Kafka resource"):
        rendered(overlay={"strimzi": {"topics": True}})
    assert some(rendered(), "KafkaTopic") == []

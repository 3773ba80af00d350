"""The values of telemetry and of who may talk to whom."""

from typing import Literal

from pydantic import Field

from chartcheck.values_base import Part, Placed, Resources, Texts, resources


class PodMonitor(Part):
    """A PodMonitor (monitoring.coreos.com/v1)."""

    enabled: bool = Field(False, description="needs `telemetry.metrics: prometheus`")
    interval: str = Field("30s", description="between two scrapes")
    labels: Texts = Field({}, description="what your Prometheus selects PodMonitors by")


class Labelled(Part):
    """Objects that somebody else picks up by label."""

    enabled: bool = Field(False, description="make them")
    labels: Texts = Field({}, description="what they are picked up by")


class CollectorImage(Part):
    """The OpenTelemetry Collector's image."""

    repository: str = Field("otel/opentelemetry-collector-contrib", description="its whole name, with a registry")
    tag: str = Field("0.140.0", description="its version")
    digest: str = Field("", description="sha256:... pins it")


class Collector(Placed):
    """An OpenTelemetry Collector of this release, which batches and sends on."""

    enabled: bool = Field(False, description="then every pod sends to it, and `telemetry.endpoint` says nothing")
    endpoint: str = Field("", description="where it sends (OTLP over HTTP); empty: it prints what it gets, in short")
    authorizationSecret: str = Field("", description="a Secret whose key `authorization` becomes that header")
    image: CollectorImage = Field(CollectorImage(), description=CollectorImage.__doc__)
    resources: Resources = Field(resources("200m", "512Mi", cpu_limit="1"), description="of the container")


class Telemetry(Part):
    """OpenTelemetry. It carries ids, counts and durations, never content."""

    endpoint: str = Field(
        "",
        description="your collector, OTLP over HTTP, for example http://collector.observability.svc:4318; empty: "
        "nothing is sent",
    )
    metrics: Literal["none", "otlp", "prometheus"] = Field(
        "prometheus", description="prometheus: each pod has port 9464 to be scraped; otlp: to the endpoint"
    )
    podMonitor: PodMonitor = Field(PodMonitor(), description=PodMonitor.__doc__)
    rules: Labelled = Field(Labelled(), description="PrometheusRules, from the chart's folder rules/")
    dashboards: Labelled = Field(
        Labelled(labels={"grafana_dashboard": "1"}),
        description="ConfigMaps with Grafana dashboards, from the chart's folder dashboards/",
    )
    collector: Collector = Field(Collector(), description=Collector.__doc__)


class Labels(Part):
    """A selector by labels."""

    matchLabels: Texts


class IpBlock(Part):
    """Addresses."""

    cidr: str
    except_: tuple[str, ...] = Field((), alias="except")


class Peer(Part):
    """As Kubernetes has it."""

    ipBlock: IpBlock | None = None
    namespaceSelector: Labels | None = None
    podSelector: Labels | None = None


class Outside(Part):
    """Somebody outside of this release."""

    to: tuple[Peer, ...] = Field((), description="who (NetworkPolicyPeers); empty: any address")
    ports: tuple[int, ...] = Field((), description="TCP ports")


class NetworkPolicy(Part):
    """Default deny, and exactly the flows of docs/deploy.md. Needs a network that enforces NetworkPolicies."""

    enabled: bool = Field(True, description="false: whoever reaches the pods reaches every port")
    clients: tuple[Peer, ...] = Field((), description="who may call the router; empty: anybody")
    prometheus: tuple[Peer, ...] = Field(
        (Peer(namespaceSelector=Labels(matchLabels={"kubernetes.io/metadata.name": "monitoring"})),),
        description="who may scrape metrics",
    )
    dns: tuple[Peer, ...] = Field(
        (Peer(namespaceSelector=Labels(matchLabels={"kubernetes.io/metadata.name": "kube-system"})),),
        description="who answers names, on port 53; with NodeLocal DNSCache add its address as an ipBlock",
    )
    kafka: Outside = Field(Outside(ports=(9092, 9093, 9094)), description="the brokers, all of them")
    store: Outside = Field(
        Outside(ports=(443,)), description="the object store, and what workload identity asks (AWS STS is on 443 too)"
    )
    identity: Outside = Field(
        Outside(),
        description="a metadata server for workload identity, for example 169.254.169.254/32 on 80 (GKE: 988 "
        "too); no ports: none",
    )
    telemetry: Outside = Field(Outside(ports=(4318,)), description="where telemetry goes, when it goes outside")
    services: Outside = Field(Outside(), description="what your own scorers call (rewards); no ports: nothing")
    ray: Outside = Field(
        Outside(ports=(10001,)), description="another Ray cluster, where `trainer.ray.address` names one"
    )

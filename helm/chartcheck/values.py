"""The chart's values as models: `values.yaml`, `values.schema.json` and the README's table are made from them.

A description is the comment above its value. Everything is closed: a key that is not here is refused by Helm and named.
What Onstream itself is told stands under `config` and is described in `infra/config`; what the chart decides (names,
ports, paths, addresses) cannot be set there (`OWNED`).
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from chartcheck.stages import Engines, Ingest, Lake, Rewards, Rollout, Router, Test, Trainer
from chartcheck.values_base import Component, Part, Text, Texts
from chartcheck.watching import NetworkPolicy, Telemetry

OWNED = (
    "run_dir",
    "model",
    "log.brokers",
    "log.local",
    "log.security",
    "log.index_dir",
    "store.url",
    "store.cache_dir",
    "store.signing",
    "serving.engines",
    "serving.engine.listen",
    "serving.router.host",
    "serving.router.listen",
    "serving.router.port",
    "serving.capture.spool_dir",
    "serving.rollout.host",
    "serving.rollout.listen",
    "serving.rollout.port",
    "ingest.lake.enabled",
    "privacy.secret_file",
    "privacy.secret_env",
    "trainer.host",
    "trainer.listen",
    "trainer.port",
    "trainer.checkpoint_dir",
    "trainer.ray_address",
    "health.port",
    "health.listen",
)
"""Keys of `onstream.yaml` that the chart writes itself, from its other values."""


class Image(Part):
    """One image."""

    repository: str = Field(description="its name below `images.registry`")
    tag: str = Field("", description="empty: the chart's appVersion")
    digest: Annotated[str, Field(pattern="^(sha256:[0-9a-f]{64})?$")] = Field(
        "", description="sha256:... pins the image whatever its tag becomes"
    )


def _image(name: str) -> Image:
    return Image(repository=f"onstream-{name}")


class Images(Part):
    """The images, one for each target of this repository's Dockerfile."""

    registry: str = Field("", description="where you pushed them, for example registry.example.com/ml; required")
    pullPolicy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="of all images, the collector's too"
    )
    pullSecrets: tuple[str, ...] = Field((), description="names of Secrets for that registry")
    engine: Image = Field(_image("engine"), description="with vLLM for GPUs")
    router: Image = Field(_image("router"), description="router, rollout, bootstrap and `helm test`; no vLLM")
    ingest: Image = Field(_image("ingest"), description="ingest and lake")
    rewards: Image = Field(_image("rewards"), description="add your scorers' packages to it")
    trainer: Image = Field(_image("trainer"), description="the driver, and Ray's head and workers")


class Model(Part):
    """The base model: a Hugging Face folder with safetensors, which becomes version 0."""

    name: str = Field("policy", description="the model's name as clients ask for it")
    path: str = Field("/model", description="its folder in the pods that read it (bootstrap, trainer, Ray's workers)")
    claim: str = Field(
        "",
        description="a PersistentVolumeClaim that holds it, mounted read-only at `path` by pods on several nodes: "
        "ReadOnlyMany or ReadWriteMany",
    )
    image: str = Field(
        "",
        description="or an OCI artefact that holds it: Kubernetes' feature gate ImageVolume, off unless set before "
        "1.35; neither: `path` is in the images",
    )


class KafkaSecurity(Part):
    """Who we are to the brokers. Passwords and keys come from Secrets, never from values."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="PLAINTEXT, SSL (TLS), SASL_PLAINTEXT (a password), SASL_SSL (both)"
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="how the password is proved: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512"
    )
    username: str = Field("", description="for SASL; empty with `strimzi.user.create`: the KafkaUser's name")
    secret: str = Field(
        "",
        description="the Secret with password or client certificate; empty with `strimzi.user.create`: the KafkaUser's",
    )
    passwordKey: str = Field("password", description="the password's key in it, for SASL")
    certificateKey: str = Field("", description="our certificate's key in it, for mutual TLS (Strimzi: user.crt)")
    privateKeyKey: str = Field("", description="its private key's key (Strimzi: user.key)")
    caSecret: str = Field(
        "", description="the Secret with the authority of the brokers' certificates; empty: whom the image trusts"
    )
    caKey: str = Field("ca.crt", description="its key in it")
    checkHostname: bool = Field(True, description="a broker's certificate must be for the name it is called by")


class Kafka(Part):
    """The event log, by address. Use Kafka that you run anyway; the chart brings none."""

    brokers: str = Field("", description="host:port,host:port; required")
    security: KafkaSecurity = Field(KafkaSecurity(), description=KafkaSecurity.__doc__)


class StrimziUser(Part):
    """A KafkaUser for this release."""

    create: bool = Field(False, description="a KafkaUser named as the release, with the rights it needs and no more")
    authentication: Literal["scram-sha-512", "tls"] = Field(
        "scram-sha-512", description="a password (scram-sha-512), or a certificate (tls)"
    )


class Strimzi(Part):
    """Topics and user as Strimzi's resources (kafka.strimzi.io/v1). Its entity operator must watch this namespace."""

    cluster: str = Field("", description="the Kafka resource's name, for the label strimzi.io/cluster")
    topics: bool = Field(False, description="make the topics KafkaTopics; else bootstrap creates them")
    user: StrimziUser = Field(StrimziUser(), description=StrimziUser.__doc__)


class Store(Part):
    """Where versions, lake, large values and users' sealed keys lie: an object store that all pods reach."""

    uri: str = Field(
        "",
        description="an fsspec URL, for example s3://bucket/onstream; below it lie store/, lake/, keys/, trainer/; "
        "required",
    )
    secret: str = Field(
        "",
        description="a Secret whose keys become environment variables (AWS_ACCESS_KEY_ID ...); empty: workload "
        "identity",
    )
    env: Texts = Field({}, description="more variables for its client, no secrets (AWS_REGION, AWS_ENDPOINT_URL ...)")


class ServiceAccounts(Part):
    """One for each component. None has a role and none mounts a token; workload identity is by annotation."""

    annotations: Texts = Field({}, description="on all, for example eks.amazonaws.com/role-arn")
    componentAnnotations: Mapping[Component, Texts] = Field(
        {}, description="on one component's, over those: {trainer: {...}}; docs/deploy.md says who writes what"
    )


class Credentials(Part):
    """The Secret with Onstream's own credentials. NOTES say how to make it; the chart never sees its content."""

    secret: str = Field("onstream-credentials", description="its name")
    controlKey: str = Field("control-token", description="key of the control plane's token (engines, rollout)")
    scoringKey: str = Field("scoring-token", description="key of the scorers' token (engines, rewards)")
    privacyKey: str = Field(
        "privacy-secret", description="key of the master secret that seals users' keys; losing it erases everybody"
    )


class Signing(Part):
    """Signatures of versions (docs/lineage.md). The private key goes to the pods that publish, and to no others."""

    secret: str = Field("", description="the Secret with the keys, as PEM; empty: versions are not signed")
    privateKey: str = Field(
        "signing-key.pem", description="the private key's key in it, for bootstrap and trainer; empty: none there"
    )
    publicKeys: tuple[str, ...] = Field(
        ("signing-key.pub.pem",), description="the public keys' keys in it; two while one replaces the other"
    )
    required: bool = Field(False, description="engines and trainer refuse a version that is unsigned or altered")


class WeightCache(Part):
    """Where engines keep verified copies of versions: the model's size times `store.keep_in_cache`, and twice more."""

    sizeLimit: str = Field("200Gi", description="of the emptyDir; a pod that writes more is evicted")
    hostPath: str = Field(
        "",
        description="a node's path instead, so that a new pod finds its versions. The namespace must then allow "
        "hostPath, which `restricted` does not",
    )


class Spool(Part):
    """The disk spool of engines and router, one volume for each pod: what was captured survives pod and broker."""

    size: Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(k|Ki|M|Mi|G|Gi|T|Ti)?$")] = Field(
        "20Gi",
        description="nine tenths of it must hold `serving.capture.max_spool_bytes`, which is 1 GiB unless set; "
        "docs/operate.md says how it grows",
    )
    storageClass: str = Field("", description="empty: the cluster's default")


class PriorityClasses(Part):
    """Serving before learning, when a node is full."""

    create: bool = Field(
        True, description="make two PriorityClasses named after release and namespace (they are the cluster's)"
    )
    serving: str = Field("", description="an existing class for engines, router and rollout, where none is made")
    learning: str = Field("", description="an existing class for everything else, where none is made")


class Values(Part):
    """All values."""

    nameOverride: str = Field("", description="in place of the chart's name in labels")
    fullnameOverride: Annotated[str, Field(max_length=35)] = Field(
        "", description="in place of <release>-onstream in names"
    )
    podLabels: Texts = Field({}, description="more labels on every pod, for example azure.workload.identity/use")
    podAnnotations: Texts = Field({}, description="annotations on every pod")
    images: Images = Field(Images(), description=Images.__doc__)
    gpuResource: str = Field(
        "nvidia.com/gpu", description="what your device plugin calls a GPU, or a part of one (nvidia.com/gpu.shared)"
    )
    model: Model = Field(Model(), description=Model.__doc__)
    kafka: Kafka = Field(Kafka(), description=Kafka.__doc__)
    strimzi: Strimzi = Field(Strimzi(), description=Strimzi.__doc__)
    store: Store = Field(Store(), description=Store.__doc__)
    serviceAccounts: ServiceAccounts = Field(ServiceAccounts(), description=ServiceAccounts.__doc__)
    credentials: Credentials = Field(Credentials(), description=Credentials.__doc__)
    signing: Signing = Field(Signing(), description=Signing.__doc__)
    weightCache: WeightCache = Field(WeightCache(), description=WeightCache.__doc__)
    spool: Spool = Field(Spool(), description=Spool.__doc__)
    engines: Engines = Field(Engines(), description=Engines.__doc__)
    router: Router = Field(Router(), description=Router.__doc__)
    rollout: Rollout = Field(Rollout(), description=Rollout.__doc__)
    ingest: Ingest = Field(Ingest(), description=Ingest.__doc__)
    lake: Lake = Field(Lake(), description=Lake.__doc__)
    rewards: Rewards = Field(Rewards(), description=Rewards.__doc__)
    trainer: Trainer = Field(Trainer(), description=Trainer.__doc__)
    test: Test = Field(Test(), description=Test.__doc__)
    telemetry: Telemetry = Field(Telemetry(), description=Telemetry.__doc__)
    networkPolicy: NetworkPolicy = Field(NetworkPolicy(), description=NetworkPolicy.__doc__)
    priorityClasses: PriorityClasses = Field(PriorityClasses(), description=PriorityClasses.__doc__)
    files: Mapping[Annotated[str, Field(pattern="^[A-Za-z0-9._-]+$")], Text] = Field(
        {},
        description="files for every pod, name -> content, at /etc/onstream/files/<name>: a reward spec "
        "(`config.rewards.spec` names it), your scorers, tasks that must not train",
    )
    config: Mapping[str, Any] = Field(
        {},
        description="onstream.yaml, as infra/config describes it, less what the chart decides itself; for example"
        " {trainer: {lr: 2.0e-6}, serving: {router: {drain_s: 60}}}",
    )

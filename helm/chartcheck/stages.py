"""The values of each stage."""

from typing import Literal

from pydantic import Field

from chartcheck.values_base import Count, Many, Part, Placed, Resources, resources

_RESOURCES = "of the container, requests and limits"


class Pool(Placed):
    """Engines of one arm: a StatefulSet, so that each has a name that the release log can address."""

    replicas: Many = Field(
        1,
        description="engines; their names go into onstream.yaml. Router, rollout and rewards restart to see a "
        "change, engines do not",
    )
    gpus: Count = Field(1, description="for each engine; with more, say so to vLLM (`--tensor-parallel-size`)")
    resources: Resources = Field(
        resources("4", "64Gi", "220Gi", cpu_limit="16"),
        description="of each engine, beside its GPUs; local disk holds the weight cache, memory /dev/shm",
    )


class CandidatePool(Pool):
    """Engines of the candidate's arm, or none where arms take turns on the others."""

    replicas: Count = Field(
        1,
        description="engines, as those of stable; 0 with `config.serving.rollout.placement: switchback`, where arms "
        "take turns on stable's",
    )


class Engines(Part):
    """vLLM engines, stable and candidate."""

    stable: Pool = Field(Pool(), description="the engines that serve stable")
    candidate: CandidatePool = Field(
        CandidatePool(),
        description="the engines that a trial's candidate is served by; they help stable between trials",
    )
    updateStrategy: Literal["OnDelete", "RollingUpdate"] = Field(
        "RollingUpdate",
        description="RollingUpdate: one pod at a time, ended before its successor starts (no second GPU is ever "
        "wanted). OnDelete: when you delete pods",
    )
    startupSeconds: Many = Field(
        1800, description="how long fetching and loading weights may take before a start counts as failed"
    )
    sharedMemory: str = Field(
        "8Gi", description="size of /dev/shm, for tensor parallelism; counts as memory of the container"
    )
    scoring: Literal["none", "candidate", "all"] = Field(
        "candidate", description="which engines answer scorers' questions (`serving.engines[].scoring_port`)"
    )


class Autoscaling(Part):
    """A HorizontalPodAutoscaler by CPU."""

    enabled: bool = Field(False, description="then `replicas` says nothing")
    minReplicas: Many = Field(2, description="at least")
    maxReplicas: Many = Field(10, description="at most")
    targetCPUUtilizationPercentage: Many = Field(70, description="of the requested CPU")


class Service(Part):
    """The users' door."""

    type: Literal["ClusterIP", "LoadBalancer", "NodePort"] = Field(
        "ClusterIP", description="put TLS in front of it: Onstream speaks HTTP"
    )
    annotations: dict[str, str] = Field({}, description="for example for a load balancer")


class Router(Placed):
    """The front door: a StatefulSet, since feedback answered with 202 waits on a volume while brokers are down."""

    replicas: Many = Field(2, description="they agree without talking: the coin is a hash")
    autoscaling: Autoscaling = Field(Autoscaling(), description=Autoscaling.__doc__)
    service: Service = Field(Service(), description=Service.__doc__)
    resources: Resources = Field(resources("1", "1Gi", "5Gi", cpu_limit="2"), description=_RESOURCES)


class Volume(Part):
    """A PersistentVolumeClaim that the chart makes."""

    size: str = Field("10Gi", description="how large")
    storageClass: str = Field("", description="empty: the cluster's default")


class Rollout(Placed):
    """The controller: one, replaced and never doubled, and fenced in the release log besides."""

    evidence: Volume = Field(
        Volume(size="5Gi"), description="its copy of a trial's evidence; without one it reads the rewards topic again"
    )
    resources: Resources = Field(resources("500m", "1Gi", "5Gi", cpu_limit="1"), description=_RESOURCES)


class Keda(Part):
    """A KEDA ScaledObject on consumer lag."""

    enabled: bool = Field(False, description="then `replicas` says nothing")
    minReplicas: Count = Field(1, description="not 0: a group that never committed would never wake")
    maxReplicas: Many = Field(4, description="more than `config.log.partitions` would idle")
    lagThreshold: Many = Field(100, description="unread messages for each replica")


class IngestKeda(Keda):
    """A KEDA ScaledObject on consumer lag, in which open sessions count: they are committed once they close."""

    lagThreshold: Many = Field(
        450_000,
        description="messages not committed for each replica: the traces a second that it shall take, times "
        "`config.ingest.inactivity_s`; this is 500",
    )


class Stage(Placed):
    """A stage that reads the log in a group."""

    replicas: Many = Field(1, description="they share the partitions")
    keda: Keda = Field(Keda(), description=Keda.__doc__)
    indexSize: str = Field(
        "10Gi", description="limit of the emptyDir with its copies of topics, read again when a pod is new"
    )


class Ingest(Stage):
    """Closes sessions."""

    keda: IngestKeda = Field(IngestKeda(), description=IngestKeda.__doc__)

    resources: Resources = Field(resources("1", "4Gi", "14Gi", cpu_limit="2"), description=_RESOURCES)


class Lake(Stage):
    """Keeps records as Parquet."""

    enabled: bool = Field(True, description="what is not kept cannot be asked, exported or back-tested later")
    resources: Resources = Field(resources("1", "4Gi", "14Gi", cpu_limit="2"), description=_RESOURCES)


class Rewards(Stage):
    """Scores trajectories."""

    resources: Resources = Field(resources("1", "4Gi", "14Gi", cpu_limit="2"), description=_RESOURCES)


class Checkpoints(Volume):
    """The driver's claim: versions on their way and, where `ray.address` is local, the learner's checkpoints. Learners
    elsewhere keep them below `<store.uri>/trainer`, and the claim needs a version's size alone."""

    size: str = Field("500Gi", description="checkpoints are weights and optimiser state: 12 bytes a parameter each")
    claim: str = Field("", description="an existing claim instead")


class RayNode(Placed):
    """A kind of node of the RayCluster."""


class RayWorkers(RayNode):
    """Ray's workers, with GPUs."""

    replicas: Many = Field(
        1,
        description="with `gpus` they give `config.trainer.workers`, a learner worker on each GPU; where that says "
        "fewer, the rest are spares",
    )
    gpus: Count = Field(1, description="for each of them")
    scratchSize: str = Field(
        "200Gi",
        description="limit of the emptyDir that holds parts of a checkpoint, and a version for each learner worker, on "
        "their way to or from the store",
    )
    resources: Resources = Field(resources("8", "128Gi", "220Gi", cpu_limit="16"), description=_RESOURCES)


class RayHead(RayNode):
    """Ray's head. It runs no actor."""

    resources: Resources = Field(resources("2", "8Gi", "12Gi", cpu_limit="4"), description=_RESOURCES)


class Ray(Part):
    """Where the learner runs: a RayCluster of this release, or an address."""

    create: bool = Field(
        True, description="a RayCluster (ray.io/v1; needs KubeRay 1.6 or later), with token authentication"
    )
    version: str = Field("2.60.0", description="Ray's version in the trainer's image")
    address: str = Field(
        "local",
        description="without `create`: ray://host:10001, or `local` for a Ray in the driver's own pod (then set "
        "`trainer.gpus`)",
    )
    tokenSecret: str = Field(
        "",
        description="the Secret with Ray's token, key auth_token; empty with `create`: KubeRay makes one; empty "
        "otherwise: none is sent",
    )
    head: RayHead = Field(RayHead(), description=RayHead.__doc__)
    workers: RayWorkers = Field(RayWorkers(), description=RayWorkers.__doc__)


class Trainer(Placed):
    """The trainer: a driver that reads the log, and the learner on Ray."""

    gpus: Count = Field(0, description="for the driver; more than 0 where `ray.address` is local")
    resources: Resources = Field(resources("1", "8Gi", "14Gi", cpu_limit="2"), description="of the driver")
    terminationGracePeriodSeconds: Many = Field(
        120, description="how long the driver may take to end; what it has not saved is learned again"
    )
    checkpoints: Checkpoints = Field(Checkpoints(), description=Checkpoints.__doc__)
    ray: Ray = Field(Ray(), description=Ray.__doc__)


class Test(Part):
    """`helm test`: one request, never trained on, followed to its trace and its reward."""

    timeoutSeconds: Many = Field(180, description="how long that may take")
    apiKeySecret: str = Field(
        "", description="a Secret with an API key (key api-key), where `config.serving.router.api_keys` asks for one"
    )

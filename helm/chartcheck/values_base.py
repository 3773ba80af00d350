"""What the values' models share."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = str
Texts = Mapping[str, str]
Count = Annotated[int, Field(ge=0)]
Many = Annotated[int, Field(ge=1)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")] | Annotated[int, Field(ge=0)]
Component = Literal[
    "engine", "router", "rollout", "ingest", "lake", "rewards", "trainer", "learner", "bootstrap", "collector", "test"
]


class Part(BaseModel):
    """A part of the values: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Resources(Part):
    """A container's resources, as Kubernetes has them."""

    requests: Mapping[str, Quantity] = Field({}, description="what is kept for it")
    limits: Mapping[str, Quantity] = Field({}, description="what it may take")


class Toleration(Part):
    """As Kubernetes has it."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    tolerationSeconds: int | None = None


class Placed(Part):
    """A component's resources and where it may run."""

    resources: Resources
    nodeSelector: Texts = Field({}, description="labels of nodes it may run on")
    tolerations: tuple[Toleration, ...] = Field((), description="taints of nodes it may run on all the same")
    env: Texts = Field({}, description="more environment variables, no secrets")


def resources(cpu: str, memory: str, disk: str = "2Gi", cpu_limit: str = "") -> Resources:
    """Requests, and limits at them; CPU may burst to `cpu_limit`."""
    both = {"memory": memory, "ephemeral-storage": disk}
    return Resources(requests={"cpu": cpu, **both}, limits={"cpu": cpu_limit or cpu, **both})

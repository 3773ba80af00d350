"""What the sections share: a frozen model, and the kinds of values that occur in several of them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Port = Annotated[int, Field(ge=1, le=65535)]
Share = Annotated[float, Field(gt=0.0, lt=1.0)]
AnyShare = Annotated[float, Field(gt=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(gt=0.0)]


class Section(BaseModel):
    """A part of the configuration: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Host(Section):
    """Where a server of a process is: `host` is what others call it by, `listen` what the process binds."""

    host: str = "127.0.0.1"
    listen: str = Field("", description="the address that is bound; empty: `host`. In a pod: 0.0.0.0")

    @property
    def bound(self) -> str:
        """The address to bind."""
        return self.listen or self.host

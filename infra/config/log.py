"""The log, the weight store, and the model they are about."""

from enum import StrEnum
from typing import Literal

from pydantic import Field, model_validator

from infra.config.base import Seconds, Section


class Protocol(StrEnum):
    """How brokers are spoken to, in Kafka's own words."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_PLAINTEXT = "SASL_PLAINTEXT"
    SASL_SSL = "SASL_SSL"

    @property
    def is_tls(self) -> bool:
        return self in (Protocol.SSL, Protocol.SASL_SSL)

    @property
    def is_sasl(self) -> bool:
        return self in (Protocol.SASL_PLAINTEXT, Protocol.SASL_SSL)


class LogSecurity(Section):
    """Who we are to the brokers, and how we know them. Files are read again for every new client: keys may rotate."""

    protocol: Protocol = Protocol.PLAINTEXT
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        "SCRAM-SHA-512", description="PLAIN shows the password to whoever reads the network: only inside TLS"
    )
    username: str = ""
    password_file: str = Field("", description="the file that holds the password; a newline at its end is none of it")
    password_env: str = Field("", description="the environment variable that holds it instead")
    ca_file: str = Field("", description="who vouches for brokers, as PEM; empty: whom this machine trusts")
    cert_file: str = Field("", description="our own certificate, as PEM, for brokers that ask for one")
    key_file: str = Field("", description="its private key, as PEM, without a passphrase")
    check_hostname: bool = Field(True, description="a broker's certificate must be for the name it is called by")

    @model_validator(mode="after")
    def _fits_protocol(self) -> "LogSecurity":
        """What a protocol does not use is refused: whoever gives a password does not want it to be left out."""
        if self.protocol.is_sasl and not (self.username and (self.password_file or self.password_env)):
            raise ValueError(f"{self.protocol} needs `username`, and `password_file` or `password_env`")
        if self.password_file and self.password_env:
            raise ValueError("the password comes from `password_file` or from `password_env`, got both")
        if not self.protocol.is_sasl and (self.username or self.password_file or self.password_env):
            raise ValueError(f"a user and a password need SASL_SSL or SASL_PLAINTEXT, got protocol {self.protocol}")
        if not self.protocol.is_tls and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError(f"certificates need SSL or SASL_SSL, got protocol {self.protocol}")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("`cert_file` and `key_file` belong together, got one of them")
        return self


class LogConfig(Section):
    """The event log (Kafka protocol)."""

    brokers: str = "127.0.0.1:9092"
    local: bool = Field(True, description="`onstream up` starts a small Kafka-protocol broker on `brokers` itself")
    partitions: int = Field(4, ge=1)
    replication: int = Field(1, ge=1)
    retention_s: Seconds = Field(
        604_800.0,
        description="of topics that are not kept for ever, as Kafka's own default; turns that wait for two trials"
        " are taken again from there",
    )
    assignor: Literal["eager", "cooperative"] = "eager"
    timeout_s: Seconds = 30.0
    security: LogSecurity = LogSecurity()
    index_dir: str = Field("", description="copies of what topics say, for quick restarts; empty: `<run_dir>/index`")
    max_record_bytes: int = Field(
        983_040, ge=1024, le=16_000_000, description="larger values lie at `claims_url`; a broker's own limit is 1 MiB"
    )
    claims_url: str = Field("", description="an fsspec URL that all processes reach; empty: `<store.url>/claims`")

    @model_validator(mode="after")
    def _local_is_plain(self) -> "LogConfig":
        if self.local and self.security.protocol is not Protocol.PLAINTEXT:
            raise ValueError(
                f"local: the small broker speaks PLAINTEXT only, got {self.security.protocol}; set it false"
            )
        return self


class SigningConfig(Section):
    """Who signs versions, and whose signatures count. Keys are PEM, elliptic (P-256, P-384 or P-521), read at a start.

    Only what publishes reads the private key: the trainer, `onstream bootstrap` and `onstream sign`.
    """

    key_file: str = Field("", description="the private key that signs, without a passphrase; empty: nothing is signed")
    key_env: str = Field("", description="the environment variable that holds it instead")
    public_key_files: tuple[str, ...] = Field(
        (), description="whose signatures count; while a key is replaced, the old one's and the new one's"
    )
    required: bool = Field(False, description="engines and the trainer refuse a version that is unsigned or altered")

    @model_validator(mode="after")
    def _fits(self) -> "SigningConfig":
        if self.key_file and self.key_env:
            raise ValueError("the private key comes from `key_file` or from `key_env`, got both")
        if self.required and not self.public_key_files:
            raise ValueError("`required` needs `public_key_files`: without any, no signature could be checked")
        return self


class StoreConfig(Section):
    """The weight store, an fsspec URL, and where engines keep verified copies of its versions."""

    url: str = Field("", description="empty: `<run_dir>/store`")
    cache_dir: str = Field("", description="empty: `<run_dir>/cache`")
    keep_in_cache: int = Field(2, ge=2, description="serving version and the one to roll back to")
    signing: SigningConfig = SigningConfig()


class ModelConfig(Section):
    """The base model: a Hugging Face folder, and the name clients ask for."""

    path: str
    name: str = "policy"

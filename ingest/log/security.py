"""How `log.security` is put into practice: what Kafka's client is given, and what a mistake in it is called.

Costs no Kafka: `onstream check` looks at the same files in the same way.
"""

import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.config import Config, LogSecurity
from infra.errors import ConfigError


def check(config: Config) -> None:
    """A check of `onstream check`: the password and the certificates can be read. Raises `ConfigError`."""
    client_settings(config.log.security)


def client_settings(security: LogSecurity, environ: Mapping[str, str] | None = None) -> dict[str, Any]:
    """librdkafka's settings, with the password as it is now.

    Raises:
        ConfigError: a file or variable that is named is missing, or does not hold what it should.
    """
    settings: dict[str, Any] = {"security.protocol": security.protocol.value}
    if security.protocol.is_sasl:
        settings |= {
            "sasl.mechanism": security.mechanism,
            "sasl.username": security.username,
            "sasl.password": password(security, os.environ if environ is None else environ),
        }
    if security.protocol.is_tls:
        tls_context(security)  # here a file that cannot be used has a name; in the client's thread it has none
        settings |= {
            "ssl.endpoint.identification.algorithm": "https" if security.check_hostname else "none",
            **{name: file for name, file in _files(security).items() if file},
        }
    return settings


def _files(security: LogSecurity) -> dict[str, str]:
    return {
        "ssl.ca.location": security.ca_file,
        "ssl.certificate.location": security.cert_file,
        "ssl.key.location": security.key_file,
    }


def password(security: LogSecurity, environ: Mapping[str, str]) -> str:
    """The brokers' password. Its text is in no message. Raises `ConfigError`."""
    if security.password_env:
        name, text = f"password_env: {security.password_env}", environ.get(security.password_env, "")
    else:
        name, text = f"password_file: {security.password_file}", _text(security.password_file)
    if not (found := text.rstrip("\r\n")):
        raise ConfigError(f"log.security.{name}: must hold the brokers' password, got nothing")
    return found


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except UnicodeDecodeError:  # its message holds the bytes
        raise ConfigError(f"log.security.password_file: {path}: must be text") from None
    except OSError as exc:
        raise ConfigError(f"log.security.password_file: {path}: not readable: {exc.strerror}") from exc


def tls_context(security: LogSecurity) -> ssl.SSLContext:
    """What a broker's certificate is checked with, and what it gets to see of ours. Raises `ConfigError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = security.check_hostname
    if not security.ca_file:
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(security.ca_file)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError(f"log.security.ca_file: {security.ca_file}: {_told(exc, 'certificates')}") from exc
    if security.cert_file:
        try:
            context.load_cert_chain(security.cert_file, security.key_file, password=_no_passphrase)
        except (OSError, ssl.SSLError) as exc:
            where = f"{security.cert_file} with key_file {security.key_file}"
            raise ConfigError(f"log.security.cert_file: {where}: {_told(exc, 'a certificate and its key')}") from exc
    return context


def handshake_trouble(security: LogSecurity, host: str, port: int, timeout_s: float) -> str:
    """Why TLS with a broker fails, in OpenSSL's words; empty where it does not, or nothing listens there.

    librdkafka says of every certificate that it does not like the same, whatever the reason.
    """
    try:
        plain = socket.create_connection((host, port), timeout_s)
    except OSError:
        return ""
    try:
        with plain, tls_context(security).wrap_socket(plain, server_hostname=host):
            return ""
    except (OSError, ConfigError) as exc:
        return f"TLS handshake failed: {getattr(exc, 'verify_message', '') or exc}"


def _no_passphrase() -> str:
    """Without this OpenSSL would ask on the terminal."""
    return ""


def _told(exc: OSError, what: str) -> str:
    if isinstance(exc, ssl.SSLError):
        return f"must hold {what} as PEM, got {exc.reason or exc}"
    return f"not readable: {exc.strerror}"

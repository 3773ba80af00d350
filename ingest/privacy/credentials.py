"""Where secrets are that tell themselves: keys with a known beginning, private key blocks, headers, URLs.

Literal beginnings are found by `str.find`, which is far faster than one pattern with as many branches; a pattern then
looks at that place only. The beginnings are those that the issuers document.
"""

import base64
import binascii
import re
from collections.abc import Iterator

from ingest.privacy.named import is_drawn, is_password, places
from ingest.privacy.view import Place, View

_W = r"[A-Za-z0-9_\-]"
_PREFIXES: tuple[tuple[str, str], ...] = (
    ("AKIA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("ASIA", r"[A-Z0-9]{16}(?![A-Za-z0-9])"),
    *((f"gh{letter}_", r"[A-Za-z0-9]{30,255}") for letter in "pousr"),
    ("github_pat_", r"[A-Za-z0-9_]{22,255}"),
    ("gl", rf"(?:pat|dt|rt|cbt|ptt|ft|soat|agent|imt|oas)-{_W}{{20,}}"),
    ("xox", rf"[a-z](?:\.[a-z]+)?-{_W}{{10,}}"),
    ("xapp-", rf"{_W}{{20,}}"),
    ("hooks.slack.com/", r"(?:services|workflows)/[A-Za-z0-9/]{20,}"),
    ("k_live_", r"[A-Za-z0-9]{16,}"),
    ("k_test_", r"[A-Za-z0-9]{16,}"),
    ("whsec_", r"[A-Za-z0-9+/=]{24,}"),
    ("sk-", rf"(?=[A-Za-z\-_]*[0-9]){_W}{{20,}}"),
    ("AIza", rf"{_W}{{35}}"),
    ("GOCSPX-", rf"{_W}{{20,}}"),
    ("ya29.", rf"{_W}{{20,}}"),
    ("npm_", r"[A-Za-z0-9]{36}"),
    ("pypi-", rf"{_W}{{50,}}"),
    ("hf_", r"[A-Za-z0-9]{30,}"),
    ("SG.", rf"{_W}{{16,32}}\.{_W}{{16,64}}"),
    ("dop_v1_", r"[a-f0-9]{40,}"),
    ("shp", r"(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    ("dapi", r"[a-f0-9]{32}"),
    ("dckr_pat_", rf"{_W}{{20,}}"),
    ("hvs.", rf"{_W}{{24,}}"),
    ("lin_api_", r"[A-Za-z0-9]{32,}"),
    ("gsk_", r"[A-Za-z0-9]{32,}"),
    ("xai-", r"[A-Za-z0-9]{40,}"),
    ("glsa_", r"[A-Za-z0-9_]{32,}"),
    ("ATATT3", r"[A-Za-z0-9_\-=]{40,}"),
    (":AA", rf"{_W}{{32,}}"),  # what follows a Telegram bot's number
    ("AGE-SECRET-KEY-1", r"[A-Z0-9]{50,}"),
    ("eyJ", rf"{_W}{{8,}}\.{_W}{{8,}}(?:\.{_W}*){{0,3}}"),  # JWT: base64 of `{"`
)
_KNOWN = {prefix: re.compile(re.escape(prefix) + rest, re.ASCII) for prefix, rest in _PREFIXES}
_BEGINNINGS = tuple(_KNOWN)
_PEM_BEGINS, _DASH = "-----BEGIN ", " -u "
_ANCHORS = (_PEM_BEGINS, _DASH, "://")
_COOKIES = "cookie: "
_SCHEMES = ("bearer", "basic", _COOKIES)
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
    r"(?:[^-]|-(?!----)){0,20000}+(?:-----END [A-Z0-9 ]{0,40}-----)?"
)
_USERINFO = re.compile(r"://([^\s/@:\"'<>]{0,200}):([^\s/\"'<>]{1,200})@(?=[\w.\[\-])")
_USER_ONLY = re.compile(r"://([A-Za-z0-9_\-]{16,200})@(?=\w)")
_DASH_U = re.compile(r" -u [\"']?[\w.@\-]{1,100}:([^\s\"']{3,200})")
_COOKIE = re.compile(r"[\w.\-]{1,64}=([^\s;,\"\']{8,4096})")
_MAX_COOKIES_CHARS = 8192
_HEADER = re.compile(r"(bearer|basic)[ \t]{1,4}([A-Za-z0-9\-._~+/]{8,16384}={0,2})(?![\w@])")


def keys(view: View) -> Iterator[Place]:
    """Issued keys, private key blocks, credentials in headers, URLs and commands."""
    text, lower = view.text, view.lower
    for prefix in view.present(_BEGINNINGS):
        for at in places(text, prefix):
            start = at - 1 if prefix.startswith("k_") else _number_before(text, at) if prefix == ":AA" else at
            if start >= 0 and not _is_inside_word(text, start) and (found := _KNOWN[prefix].match(text, at)):
                yield start, found.end()
    for anchor in view.present(_ANCHORS):
        for at in places(text, anchor):
            yield from _at(anchor, text, at)
    for scheme in view.present(_SCHEMES, is_lower=True):
        for at in places(lower, scheme):
            if scheme == _COOKIES:
                yield from _cookies(view, at + len(_COOKIES))
                continue
            found = _HEADER.match(lower, at)
            if found and _is_header_value(scheme, text[found.start(2) : found.end(2)]):
                yield found.span(2)


def _is_inside_word(text: str, start: int) -> bool:
    before = text[start - 1 : start]
    return before.isascii() and before.isalnum()


def _cookies(view: View, start: int) -> Iterator[Place]:
    """Drawn values up to the end of the line, or to the next such header."""
    stops = (view.lower.find(stop, start, start + _MAX_COOKIES_CHARS) for stop in ("\n", _COOKIES))
    end = min([stop for stop in stops if stop >= 0], default=start + _MAX_COOKIES_CHARS)
    return (pair.span(1) for pair in _COOKIE.finditer(view.text, start, end) if is_drawn(pair[1]))


def _number_before(text: str, at: int) -> int:
    start = at
    while start and at - start < 11 and text[start - 1].isdigit():
        start -= 1
    return start if at - start >= 8 else -1


def _at(anchor: str, text: str, at: int) -> Iterator[Place]:
    if anchor == _PEM_BEGINS:
        found = _PEM.match(text, at)
        yield from [found.span()] if found else ()
    elif anchor == _DASH:
        found = _DASH_U.match(text, at)
        yield from [found.span(1)] if found else ()
    elif found := _USERINFO.match(text, at):
        if is_password(found[2], is_quoted=False):
            yield found.span(2)
    elif (found := _USER_ONLY.match(text, at)) and is_drawn(found[1]):
        yield found.span(1)


def _is_header_value(scheme: str, value: str) -> bool:
    if scheme == "bearer":
        return any(map(str.isdigit, value)) and len(value) >= 12
    try:
        return b":" in base64.b64decode(value, validate=True)
    except binascii.Error:
        return False

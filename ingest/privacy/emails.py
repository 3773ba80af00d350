"""Where e-mail addresses are: looked for around each `@` only."""

import re
from collections.abc import Iterator

from ingest.privacy.view import Place, View

_LOCAL = re.compile(r"[\w.+%'\-]{1,64}\Z")
_DOMAIN = re.compile(
    r"(?:\w(?:[\w\-]{0,61}\w)?\.){1,8}(?:xn--[a-z0-9\-]{2,58}|[^\W\d_]{2,24})(?![\w\-])", re.IGNORECASE
)
_AT, _DOT = r" ?(?:[\[({] ?at ?[\])}]| at ) ?", r" ?(?:[\[({] ?dot ?[\])}]|\.| dot ) ?"
_SPELLED = re.compile(rf"[\w.+\-]{{1,64}}{_AT}(?:[\w\-]{{1,63}}{_DOT}){{1,4}}[a-z]{{2,12}}(?!\w)", re.IGNORECASE)
_DOT_SPELLED = re.compile(r"[ \[({]dot[ \])}]")
_USERINFO = re.compile(r"://[^\s/@]{0,200}:\Z")  # before a password in a URL, which is another finder's
_SIGNS, _DOTS = ("@", "%40"), ("dot",)
_FILES = frozenset({
    "png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "js", "mjs", "ts", "jsx", "tsx", "css", "scss", "json", "html",
    "htm", "xml", "yml", "yaml", "txt", "pdf", "zip", "gz", "tgz", "whl", "map", "min",
})  # fmt: skip


def emails(view: View) -> Iterator[Place]:
    """`local@domain.tld`, also with `%40` as links have it, and `local [at] domain [dot] tld`."""
    for sign in view.present(_SIGNS):
        at = view.text.find(sign)
        while at >= 0:
            yield from _around(view.text, at, at + len(sign))
            at = view.text.find(sign, at + 1)
    if view.present(_DOTS, is_lower=True) and _DOT_SPELLED.search(view.lower):
        yield from (found.span() for found in _SPELLED.finditer(view.text) if "dot" in found[0].lower())


def _around(text: str, at: int, after: int) -> Iterator[Place]:
    local, domain = _LOCAL.search(text, max(0, at - 64), at), _DOMAIN.match(text, after)
    if local is None or domain is None:
        return
    start = local.start() + len(local[0]) - len(local[0].lstrip(".'%-"))
    name, ending = text[start:at], domain[0].rpartition(".")[2].lower()
    if text[start - 1 : start] == ":" and _USERINFO.search(text, max(0, start - 200), start):
        return
    if name and ending not in _FILES and name != "git":  # git@host: is how repositories are named, not people
        yield start, domain.end()

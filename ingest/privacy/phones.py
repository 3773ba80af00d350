"""Where phone numbers are: international, North American, with a trunk prefix, and whatever was announced as one.

libphonenumber's port to Python finds numbers at 0.27 MB/s and asks for the country of one without a country code, which
a chat does not tell; country codes and lengths from E.164 do here, as this looks for what is private and not for what
can be dialled.
"""

import re
from collections.abc import Iterator

from ingest.privacy.checks import digits_of
from ingest.privacy.view import GAP, RIGHT, Place, View

# Country codes as ITU-T E.164 assigns them.
_COUNTRY = (r"(?:1|7|2[07]|2[1-689]\d|3[0-469]|3[578]\d|4[013-9]|42\d|5[1-8]|5[09]\d|6[0-6]|6[789]\d|8[1246]"
            r"|8[058]\d|9[0-58]|9[679]\d)")  # fmt: skip
_ABROAD = re.compile(
    rf"(?:\+|(?<![\w.+\-])00[ \-]?){_COUNTRY}(?=[{GAP}/()\d])(?:[{GAP}/()]{{0,3}}\d{{1,12}}){{1,8}}", re.ASCII
)
_EXTENSION = r"(?:,? ?(?:x|ext\.?|#) ?\d{1,6})?"
_EXTENDED = re.compile(rf"{_EXTENSION}(?![A-Za-z0-9_])")
_NANP = re.compile(rf"(?<![\w.+])(?<!\w-)(?:[18][{GAP}]{{1,2}})?"
                   rf"(?:\([2-9]\d\d\)[{GAP}]{{0,2}}|[2-9]\d\d[{GAP}/]{{1,2}})"
                   rf"[2-9]\d\d[{GAP}]{{1,2}}\d{{4}}(?!\d)(?!-\d){_EXTENSION}(?!\w)", re.ASCII)  # fmt: skip
_ZIP = r"(?!\d{5}-\d{4}\b)"  # a US ZIP code with its four more digits
_TRUNK = re.compile(rf"(?<![\w.+])(?<!\d,)(?<!\w-)(?<!\d{{4}}[{GAP}])(?!000){_ZIP}"
                    rf"\(?0\d{{1,5}}\)?[{GAP}/]{{1,3}}\d{{2,8}}(?:[{GAP}]{{1,2}}\d{{2,6}}){{0,4}}"
                    rf"{RIGHT}{_EXTENSION}", re.ASCII)  # fmt: skip
_AREA = re.compile(rf"(?<![\w.])\(0?\d{{2,5}}\)[{GAP}]{{0,2}}\d{{3,5}}[{GAP}]{{1,2}}\d{{3,5}}{RIGHT}", re.ASCII)
_UNBROKEN = re.compile(r"(?<![\w.,+\-/=])0[1-9]\d{8,9}(?!\w)(?![.,\-/]\d)", re.ASCII)
_ANY = re.compile(rf"(?:(?<![\w.+])\()?(?<!\w)\d(?:[{GAP}/()]{{0,3}}\d){{6,15}}(?!\d){_EXTENSION}(?!\w)", re.ASCII)
_PHONE_SAID = re.compile(
    r"(?:phone|(?<![a-z])(?:tel|mobile?|cell|fax|whatsapp|sms|text me|call|dial|ring (?:me|meg|mich)|reach"
    r"|contact|llamar|llám\w*|joindre|appele\w*|rufen|erreichbar|handy|telefon\w*|(?:meine?|unter der) nummer"
    r"|my number|number is|portable|numéro|móvil|celular|cellulare|teléfono|telefone|ligue)"
    r"|телефон|тел|電話|电话|手机|携帯|연락처|전화)[^\w\n]{0,5}(?:\w{1,10}[^\w\n]{1,3}){0,2}[(+]?$"
)
_SAID_AFTER = re.compile(r"[^\w\n]{0,3}(?:is|ist|est|es|è) (?:my|meine?|mon|mi|il mio) ")
_NOT_A_PHONE = re.compile(r"(?:order|invoice|ticket|tracking|serial|account|case|part|model|isbn|issue|id)\W")
_DAY, _MONTH, _YEAR, _SEP = r"(?:0?[1-9]|[12]\d|3[01])", r"(?:0?[1-9]|1[0-2])", r"(?:19|20)\d\d", r"[./\- ]"
_DATE = re.compile(
    rf"{_DAY}{_SEP}{_MONTH}{_SEP}{_YEAR}(?!\d)|{_YEAR}{_SEP}?(?:0[1-9]|1[0-2]){_SEP}?(?:0[1-9]|[12]\d|3[01])"
    r"(?:(?!\d)|[0-2]\d[0-5]\d[0-5]\d)"
)


def phones(view: View) -> Iterator[Place]:
    """International, North American and trunk-prefixed numbers; other digits where a phone number was announced."""
    for start, end in view.runs:
        begin = max(0, start - 3)
        until = min(len(view.text), end + 10)
        found = _ABROAD.search(view.text, begin, end)
        if found and _begins_word(view.text, found.start()):
            yield from _abroad(view, *found.span())
        for pattern in (_NANP, _TRUNK, _AREA, _UNBROKEN):
            for found in pattern.finditer(view.text, max(0, start - 1), until):
                if _is_national(found[0]):
                    yield found.span()
        said = view.before(start, 32)
        if (_PHONE_SAID.search(said) or _SAID_AFTER.match(view.lower, end)) and not _NOT_A_PHONE.search(said):
            yield from _announced(view.text, max(0, start - 1), until)


def _begins_word(text: str, at: int) -> bool:
    return at == 0 or not (text[at - 1].isascii() and (text[at - 1].isalnum() or text[at - 1] in "_+"))


def _abroad(view: View, start: int, end: int) -> Iterator[Place]:
    """As many whole groups as a number has: 8 to 15 digits with the country code (E.164), 11 where that is 1 or 7."""
    text = view.text
    digits = digits_of(text[start:end].replace("(0)", "")).removeprefix("00")
    most = 11 if digits[0] in "17" else 15
    while len(digits) > most:
        end -= 1
        while end > start and not (text[end - 1].isdigit() and not text[end].isdigit()):
            end -= 1
        digits = digits_of(text[start:end].replace("(0)", "")).removeprefix("00")
    fits = len(digits) == 11 if digits[:1] in ("1", "7") else len(digits) >= 8
    extended = _EXTENDED.match(text, end)
    if fits and extended and not _is_added_line(view, start, end):
        yield start, extended.end()


def _is_added_line(view: View, start: int, end: int) -> bool:
    """A number in a diff, not abroad: `+1700000000` on a line of its own beside removed lines."""
    begins_line = start == 0 or view.text[start - 1] == "\n"
    return begins_line and view.text[start + 1 : end].isdigit() and view.has_diff


def _is_national(candidate: str) -> bool:
    num = len(digits_of(candidate))
    return 9 <= num <= 16 and not _DATE.match(candidate) and candidate != "0123456789"


def _announced(text: str, start: int, until: int) -> Iterator[Place]:
    found = _ANY.search(text, start, until)
    if found and 7 <= len(digits_of(found[0])) <= 16 and not _DATE.match(found[0]):
        yield found.span()

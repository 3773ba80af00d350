"""Redactors that finding private values is measured against: ours, Presidio's pattern recognisers, datafog's patterns.

All three only find here. The others are given what they are best at: the kinds that they know and no more, no language
model, no look-up in the net, and no surroundings of their own for us to slow down. One that is not installed is `None`.
"""

from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any

from ingest.privacy.kinds import Kind
from ingest.privacy.redact import Redactor

Find = Callable[[str], Iterable[tuple[int, int]]]
SHARED = frozenset({"email", "phone", "card", "iban", "ssn", "ip"})
"""Kinds that all of them know; secrets only we look for."""
MIN_SCORE = 0.3  # Presidio's: what it is less sure of than of a card number before the check digit is left out


def ours() -> Find:
    """The shipped configuration."""
    redactor = Redactor(Kind)
    return lambda text: [(span.start, span.end) for span in redactor.spans(text)]


def presidio() -> tuple[str, Find] | None:
    """Its recognisers of the shared kinds, called without the spaCy model that the engine around them loads."""
    try:
        import tldextract
        from presidio_analyzer import predefined_recognizers as recognizers
    except ImportError:
        return None
    offline = tldextract.TLDExtract(suffix_list_urls=())
    tldextract.extract = offline  # its own would ask the net for a list of domains first
    names = ("Email", "Phone", "CreditCard", "Iban", "UsSsn", "Ip")
    known: list[Any] = [getattr(recognizers, f"{name}Recognizer")() for name in names]

    def find(text: str) -> list[tuple[int, int]]:
        told = (r for one in known for r in one.analyze(text, one.supported_entities, None) or ())
        return [(result.start, result.end) for result in told if result.score >= MIN_SCORE]

    return f"presidio-analyzer {version('presidio-analyzer')}", find


def datafog() -> tuple[str, Find] | None:
    """Its patterns for the shared kinds; of IBANs it knows German ones."""
    try:
        from datafog.processing.text_processing.regex_annotator import RegexAnnotator
    except ImportError:
        return None
    labels = ("EMAIL", "PHONE", "SSN", "CREDIT_CARD", "IP_ADDRESS", "DE_IBAN")
    annotator = RegexAnnotator(enabled_labels=labels)
    annotator.patterns = {
        label: annotator.patterns[label] for label in labels
    }  # no dates, no ZIP codes: nobody labelled any

    def find(text: str) -> list[tuple[int, int]]:
        _, result = annotator.annotate_with_spans(text)
        return [(span.start, span.end) for span in result.spans]

    return f"datafog {version('datafog')}", find

"""A session's traces joined into chains by exact token prefix.

A trace extends a chain when its prompt begins with *all* of the chain's tokens, prompts and replies alike; the
longest such chain wins, and of equal ones the newest. Everything else begins a chain of its own: a first turn, an
edited or regenerated turn (it shares only a proper prefix), a history the client or the chat template rewrote.
Nothing is re-tokenised: two token sequences join only when they are the same numbers.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from ingest.events import Chain, Segment, Trace, TurnKind


@dataclass
class _Growing:
    """A chain while traces are still being laid on it."""

    token_ids: tuple[int, ...] = ()
    segments: list[Segment] = field(default_factory=list)

    def is_prefix_of(self, prompt: tuple[int, ...]) -> bool:
        return prompt[: len(self.token_ids)] == self.token_ids

    def lay(self, trace: Trace) -> None:
        start = len(trace.prompt_token_ids)
        self.token_ids = trace.prompt_token_ids + trace.token_ids
        self.segments.append(
            Segment(
                trace_id=trace.trace_id,
                start=start,
                end=start + len(trace.token_ids),
                logprobs=trace.logprobs,
                spans=trace.spans,
            )
        )


def in_order(traces: Iterable[Trace]) -> list[Trace]:
    """Traces as they began; ids settle ties, so that every process sees one order."""
    return sorted(traces, key=lambda trace: (trace.started_at, trace.trace_id))


def build(traces: Iterable[Trace]) -> tuple[Chain, ...]:
    """The chains of one session's traces, in the order they began.

    `Segment.start` and `end` are positions in the chain; `logprobs` and `spans` are the trace's own, so a span
    `[a, b)` covers the chain's tokens `[start + a, start + b)`. Side turns are never trained and traces without
    reply tokens have nothing to train: neither gives a segment.
    """
    chains: list[_Growing] = []
    for trace in in_order(traces):
        if trace.kind is TurnKind.SIDE or not trace.token_ids:
            continue
        extended = _longest_prefix(chains, trace.prompt_token_ids)
        if extended is None:
            extended = _Growing()
            chains.append(extended)
        extended.lay(trace)
    return tuple(Chain(token_ids=chain.token_ids, segments=tuple(chain.segments)) for chain in chains)


def _longest_prefix(chains: list[_Growing], prompt: tuple[int, ...]) -> _Growing | None:
    fitting = [chain for chain in reversed(chains) if chain.is_prefix_of(prompt)]
    return max(fitting, key=lambda chain: len(chain.token_ids), default=None)

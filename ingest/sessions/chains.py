"""A session's traces joined into chains by exact token prefix, and the chains to one another by links.

A trace extends a chain when its prompt begins with *all* of the chain's tokens, prompts and replies alike; the
longest such chain wins, and of equal ones the newest. Everything else begins a chain of its own, with a link where
`ingest.sessions.links` can tell how it goes on from an earlier one. Nothing is re-tokenised: two token sequences join
only when they are the same numbers, and what two chains have in common at their head is stored once.

Marks say what is known to be wrong with a chain's turns:

    missing      a request holds a reply that no trace of the session gave: lost, refused, edited, or an example
    late         a trace came after one that began when it had already ended
    duplicated   a trace was delivered more than once
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from ingest.records.events import Chain, ChainMark, Link, Segment, Trace
from ingest.records.packing import TokenIds
from ingest.sessions.links import Lineage, Reading, takes_part


@dataclass(frozen=True)
class Flaws:
    """Trace ids whose delivery went wrong."""

    late: Collection[str] = ()
    duplicated: Collection[str] = ()


@dataclass(frozen=True)
class Joined:
    """A session's chains, and what was read of each turn on the way, by trace id in the order they began."""

    chains: tuple[Chain, ...]
    readings: dict[str, Reading]


@dataclass
class _Growing:
    """A chain while traces are still being laid on it."""

    token_ids: TokenIds = field(default_factory=TokenIds)
    segments: list[Segment] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)

    def lay(self, trace: Trace, reading: Reading) -> None:
        start = len(trace.prompt_token_ids)
        self.token_ids = trace.prompt_token_ids + trace.token_ids
        self.readings.append(reading)
        self.segments.append(
            Segment(
                trace_id=trace.trace_id,
                start=start,
                end=start + len(trace.token_ids),
                logprobs=trace.logprobs,
                spans=trace.spans,
            )
        )

    def marks(self, flaws: Flaws) -> tuple[ChainMark, ...]:
        held = {segment.trace_id for segment in self.segments}
        wrong = {
            ChainMark.MISSING: any(reading.unknown for reading in self.readings),
            ChainMark.LATE: not held.isdisjoint(flaws.late),
            ChainMark.DUPLICATED: not held.isdisjoint(flaws.duplicated),
        }
        return tuple(mark for mark, is_so in wrong.items() if is_so)


def in_order(traces: Iterable[Trace]) -> list[Trace]:
    """Traces as they began; ids settle ties, so that every process sees one order."""
    return sorted(traces, key=lambda trace: (trace.started_at, trace.trace_id))


def join(traces: Iterable[Trace], flaws: Flaws | None = None) -> Joined:
    """The chains of one session's traces, in the order they began, linked and marked.

    `Segment.start` and `end` are positions in the chain; `logprobs` and `spans` are the trace's own, so a span
    `[a, b)` covers the chain's tokens `[start + a, start + b)`. Side turns are never trained and traces without
    reply tokens have nothing to train: neither gives a segment.
    """
    lineage, growing = Lineage(), list[_Growing]()
    for trace in in_order(traces):
        if not takes_part(trace):
            lineage.read(trace, None)
            continue
        chain = _longest_prefix(growing, trace.prompt_token_ids)
        reading = lineage.read(trace, chain.segments[-1].trace_id if chain else None)
        if chain is None:
            chain = _Growing()
            growing.append(chain)
        chain.lay(trace, reading)
    return Joined(_stored(growing, flaws or Flaws()), lineage.readings)


def _longest_prefix(chains: list[_Growing], prompt: TokenIds) -> _Growing | None:
    fitting = [chain for chain in reversed(chains) if prompt.begins_with(chain.token_ids)]
    return max(fitting, key=lambda chain: len(chain.token_ids), default=None)


def _stored(growing: Sequence[_Growing], flaws: Flaws) -> tuple[Chain, ...]:
    chain_of = {segment.trace_id: number for number, chain in enumerate(growing) for segment in chain.segments}
    chains = []
    for number, chain in enumerate(growing):
        common = [chain.token_ids.num_common(other.token_ids) for other in growing[:number]]
        shared = max(common, default=0)
        chains.append(
            Chain(
                token_ids=chain.token_ids[shared:],
                segments=tuple(chain.segments),
                base=common.index(shared) if shared else None,
                shared=shared,
                link=_link(chain, chain_of),
                marks=chain.marks(flaws),
            )
        )
    return tuple(chains)


def _link(chain: _Growing, chain_of: dict[str, int]) -> Link | None:
    joint = chain.readings[0].joint
    if joint is None or joint.trace_id not in chain_of:
        return None
    return Link(
        kind=joint.kind,
        before=chain_of[joint.trace_id],
        trace_id=joint.trace_id,
        coverage=joint.coverage,
        message=joint.message,
    )


def whole(chains: Sequence[Chain]) -> tuple[Chain, ...]:
    """Chains with all their tokens, none leaning on another."""
    found: list[Chain] = []
    for chain in chains:
        if chain.base is not None:
            head = found[chain.base].token_ids[: chain.shared]
            chain = chain.model_copy(update={"token_ids": head + chain.token_ids, "base": None, "shared": 0})
        found.append(chain)
    return tuple(found)

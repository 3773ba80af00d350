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
from dataclasses import dataclass
from operator import attrgetter

from ingest.records.events import Chain, ChainMark, Link, Segment
from ingest.records.made import made
from ingest.records.packing import WORD_BYTES, TokenIds
from ingest.records.prefixes import Wholes
from ingest.sessions.held import AnyTrace
from ingest.sessions.links import Lineage, takes_part
from ingest.sessions.readings import Reading, Requests


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


class _Growing:
    """A chain of `num_tokens` while traces are still being laid on it. `is_missing`: a request of it holds a reply that
    no trace gave."""

    __slots__ = ("_num_in_words", "_parts", "_words", "is_missing", "num_tokens", "readings", "segments")

    def __init__(self) -> None:
        self._parts: list[TokenIds] = []
        self._words, self._num_in_words = bytearray(), 0
        self.num_tokens, self.is_missing = 0, False
        self.segments: list[Segment] = []
        self.readings: list[Reading] = []

    @property
    def tokens(self) -> TokenIds:
        return TokenIds.joined(self._parts)

    @property
    def words(self) -> bytearray:
        """Its tokens, 32 bits each. Only where there are several chains does anybody ask."""
        for part in self._parts[self._num_in_words :]:
            self._words += part.words
        self._num_in_words = len(self._parts)
        return self._words

    def lay(self, trace: AnyTrace, reading: Reading, prompt: TokenIds) -> None:
        """Go on with the rest of a trace's prompt, and its reply."""
        reply = trace.token_ids
        self._parts += (prompt, reply)
        start = self.num_tokens + len(prompt)
        self.num_tokens = start + len(reply)
        self.readings.append(reading)
        self.is_missing |= reading.unknown
        self.segments.append(
            made(
                Segment,
                trace_id=trace.trace_id,
                start=start,
                end=self.num_tokens,
                logprobs=trace.logprobs,
                spans=trace.spans,
            )
        )

    def marks(self, flaws: Flaws) -> tuple[ChainMark, ...]:
        wrong = {
            ChainMark.MISSING: self.is_missing,
            ChainMark.LATE: self._has_any(flaws.late),
            ChainMark.DUPLICATED: self._has_any(flaws.duplicated),
        }
        return tuple([mark for mark, is_so in wrong.items() if is_so])

    def _has_any(self, trace_ids: Collection[str]) -> bool:
        return bool(trace_ids) and any(segment.trace_id in trace_ids for segment in self.segments)


class _Laying:
    """Where a session's traces are laid: chains grow, and `_ends` tells where in which of them a trace ends."""

    def __init__(self, wholes: Wholes[AnyTrace]) -> None:
        self._wholes = wholes
        self.growing: list[_Growing] = []
        self._ends: dict[str, tuple[_Growing, int]] = {}

    def fit(self, trace: AnyTrace) -> tuple[_Growing | None, TokenIds]:
        """The chain that a trace extends, and the rest of its prompt behind that."""
        prefix = trace.prefix
        if prefix is None:
            return self._search(trace.prompt_token_ids)
        chain, end = self._ends.get(prefix.parent, (None, 0))
        if chain is None:
            return self._search(self._wholes.whole(trace).prompt_token_ids)
        shared = prefix.num_tokens
        if shared == end == chain.num_tokens and not self._is_rivalled(chain):
            return chain, trace.prompt_token_ids
        if shared > end:
            return self._search(self._wholes.whole(trace).prompt_token_ids)
        return self._search(TokenIds.of_words(bytes(chain.words[: shared * WORD_BYTES])) + trace.prompt_token_ids)

    def _is_rivalled(self, chain: _Growing) -> bool:
        """Whether a prompt that extends a chain may extend another that is longer, or as long and newer."""
        is_alone = len(self.growing) == 1
        return not is_alone and any(one is not chain and one.words.startswith(chain.words) for one in self.growing)

    def _search(self, prompt: TokenIds) -> tuple[_Growing | None, TokenIds]:
        if not self.growing:
            return None, prompt
        fitting = [chain for chain in reversed(self.growing) if prompt.words.startswith(chain.words)]
        longest = max(fitting, key=lambda chain: chain.num_tokens, default=None)
        return longest, prompt if longest is None else prompt[longest.num_tokens :]

    def lay(self, trace: AnyTrace, reading: Reading, chain: _Growing | None, prompt: TokenIds) -> None:
        """On `chain`, or a new one."""
        if chain is None:
            chain = _Growing()
            self.growing.append(chain)
        chain.lay(trace, reading, prompt)
        self._ends[trace.trace_id] = chain, chain.num_tokens


def in_order(traces: Iterable[AnyTrace]) -> list[AnyTrace]:
    """Traces as they began; ids settle ties, so that every process sees one order."""
    return sorted(traces, key=attrgetter("started_at", "trace_id"))


def join(traces: Iterable[AnyTrace], flaws: Flaws | None = None) -> Joined:
    """The chains of one session's traces, in the order they began, linked and marked.

    Traces may be as they are stored: what one leaves out, another of them has, as `Held.carries` tells. One that leans
    on the end of a chain extends it, where no other goes on from that end, and neither is looked through again.

    `Segment.start` and `end` are positions in the chain; `logprobs` and `spans` are the trace's own, so a span
    `[a, b)` covers the chain's tokens `[start + a, start + b)`. Side turns are never trained and traces without
    reply tokens have nothing to train: neither gives a segment.
    """
    ordered = in_order(traces)
    wholes = Wholes({trace.trace_id: trace for trace in ordered})
    lineage, laying = Lineage(Requests(wholes)), _Laying(wholes)
    for trace in ordered:
        if not takes_part(trace):
            lineage.read(trace, is_part=False)
            continue
        chain, prompt = laying.fit(trace)
        reading = lineage.read(trace, True, chain.readings[-1].trace.trace_id if chain else None)
        laying.lay(trace, reading, chain, prompt)
    return Joined(_stored(laying.growing, flaws or Flaws()), lineage.readings)


def _stored(growing: Sequence[_Growing], flaws: Flaws) -> tuple[Chain, ...]:
    chain_of = {one.trace.trace_id: number for number, chain in enumerate(growing) for one in chain.readings}
    tokens = [chain.tokens for chain in growing]
    chains = []
    for number, chain in enumerate(growing):
        common = [tokens[number].num_common(other) for other in tokens[:number]]
        shared = max(common, default=0)
        chains.append(
            made(
                Chain,
                token_ids=tokens[number][shared:] if shared else tokens[number],
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

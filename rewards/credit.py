"""Whose outcome is whose: how a session's scores reach the turns that led to them. Pure.

Turns of a session form a tree: each goes on from at most one other. The outcome of a turn is its own and that of every
turn it goes on from, across resets of the context:

    parent       its request holds the other's request and reply, message for message
    same chain   its prompt holds the other's tokens, though its messages do not say so
    compaction   its context begins with the other's summary
    rewrite      its context restates the other's
    branch       it was regenerated or edited: it goes on from what the abandoned twin went on from, not from the twin

So an abandoned line and the one that replaced it have their common past, and nothing of each other's scores. Side
turns are beside the conversation: they neither give nor get.
"""

from collections.abc import Mapping
from itertools import pairwise

from ingest.records.events import Link, LinkKind, Trajectory, TurnKind

Before = Mapping[str, str | None]
"""Trace id -> trace id of the turn it goes on from. Main and summary turns, each after the one it goes on from."""


def before(trajectory: Trajectory) -> dict[str, str | None]:
    """What each main and summary turn goes on from; `None` where its context begins, as far as its traces tell."""
    links = {chain.segments[0].trace_id: chain.link for chain in trajectory.chains if chain.link}
    extends = {after.trace_id: one.trace_id for chain in trajectory.chains for one, after in pairwise(chain.segments)}
    found: dict[str, str | None] = {}
    for turn in trajectory.turns:
        if turn.kind is TurnKind.SIDE:
            continue
        name = turn.parent or extends.get(turn.trace_id) or _over(links.get(turn.trace_id), found)
        found[turn.trace_id] = name if name in found else None
    return found


def _over(link: Link | None, found: Before) -> str | None:
    if link is None:
        return None
    return found.get(link.trace_id) if link.kind is LinkKind.BRANCH else link.trace_id


def along_chains(scores: Mapping[str, float], tree: Before) -> dict[str, float]:
    """Each turn's mean over the scores of itself and all turns that go on from it; no entry where none has a score."""
    sums, counts = dict.fromkeys(tree, 0.0), dict.fromkeys(tree, 0)
    for name in reversed(list(tree)):
        if name in scores:
            sums[name] += scores[name]
            counts[name] += 1
        if (elder := tree[name]) is not None:
            sums[elder] += sums[name]
            counts[elder] += counts[name]
    return {name: sums[name] / counts[name] for name in tree if counts[name]}


def credited(scores: Mapping[str, float], tree: Before, chain_share: float) -> dict[str, float]:
    """Scores after credit: `chain_share` of the mean along the chain and the rest of the turn's own score.

    Where a turn has only one of the two, it is that one; with `chain_share` 0 only its own counts.
    """
    own = {name: scores[name] for name in tree if name in scores}
    if chain_share == 0.0:
        return own
    shared = along_chains(scores, tree)
    return {name: chain_share * value + (1.0 - chain_share) * own.get(name, value) for name, value in shared.items()}

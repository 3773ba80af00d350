"""What must hold of the trainer's versions and fates, whatever happened to it.

The weights of the double that trains are the tokens that it trained on, so every version shows what is in it.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ingest.records.events import Fate, FateKind, Reward, Version
from ingest.store import releases


def tokens_of(rewards: Iterable[Reward]) -> dict[str, list[int]]:
    """What each trace adds to the weights of a version that it trains."""
    found = {}
    for reward in rewards:
        assert reward.trajectory is not None
        for chain in reward.trajectory.chains:
            for segment in chain.segments:
                found[segment.trace_id] = list(chain.token_ids[segment.start : segment.end])
    return found


def line_of(version: Version, manifests: Mapping[int, Version]) -> list[Version]:
    """A version and all it descends from, the first version not."""
    found = []
    while version.parent is not None:
        found.append(version)
        version = manifests[version.parent]
    return found


def check(world: Any, rewards: Iterable[Reward], moment: str = "") -> dict[str, Fate]:
    """No trace twice in one lineage, weights that are what their lineage says, and at most one fate for each trace."""
    tokens = tokens_of(rewards)
    manifests = {number: world.store.read(number) for number in world.store.versions()}
    for number, version in manifests.items():
        line = line_of(version, manifests)
        names = [name for one in line for name in one.lineage["trace_ids"]]
        assert all(num == 1 for num in Counter(names).values()), f"version {number} {moment}"
        expected = sorted(token for name in names for token in tokens[name])
        assert sorted(world.weights(number)) == expected, f"version {number} {moment}"
    fates: dict[str, set[Fate]] = world.fates()
    assert all(len(found) == 1 for found in fates.values()), moment
    found = {name: next(iter(those)) for name, those in fates.items()}
    for name, fate in found.items():
        if fate.version is not None:
            assert name in manifests[fate.version].lineage["trace_ids"], moment
    return found


def check_ended(world: Any, rewards: Iterable[Reward], moment: str = "") -> dict[str, Fate]:
    """The same, and nothing is in flight. A trace whose last version serves trained there or never."""
    rewards = list(rewards)
    found = check(world, rewards, moment)
    assert set(found) == {name for reward in rewards for name in reward.trace_ids}, moment
    served = releases.read(world.log)
    assert served.stable is not None
    manifests = {number: world.store.read(number) for number in world.store.versions()}
    line = {one.version: one for one in line_of(manifests[served.stable], manifests)}
    for name in (name for one in line.values() for name in one.lineage["trace_ids"]):
        assert found[name].kind is FateKind.TRAINED and found[name].version in line, f"{name} {moment}"
    return found

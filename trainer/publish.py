"""A trained version to the store and to the `versions` topic.

Each step may be repeated: the learner exports the same bytes, the store keeps what it has, and a second record of
the same version says nothing new. A crash after 2 and before 3 is made good by 3 alone: what the store has then is the
version, whichever release of this trainer exported it.

    1. export       the learner's weights, or adapters, into an empty folder
    2. store        files, then the manifest: from here the version exists
    3. record       on `versions`; durable after the caller's flush
"""

import shutil
from pathlib import Path

from infra import telemetry
from infra.telemetry import metrics, names
from ingest.log.protocol import EventLog
from ingest.log.reader import send
from ingest.log.topics import VERSIONS
from ingest.records.events import Version
from ingest.store.versions import VersionStore
from trainer.learner.update import Policy
from trainer.settings import digest_of
from trainer.state import CandidateVersion


def publish(
    candidate: CandidateVersion,
    policy: Policy,
    store: VersionStore,
    log: EventLog,
    folder: Path,
    base: Version | None = None,
) -> Version:
    """Publish `candidate` from the weights that `policy` holds; `folder` is scratch space.

    With a `base` it is the adapters alone, over that version, which `policy` loaded.

    Raises:
        StoreError: the store cannot be written, or the number is taken by other content.
    """
    about = {names.VERSION: candidate.version}
    with telemetry.span(names.PUBLISH, about, parent=candidate.context, links=candidate.contexts):
        manifest = _stored(candidate, store) or _store(candidate, policy, store, folder, base)
        send(log, VERSIONS, "", manifest)
        telemetry.count(metrics.VERSIONS_PUBLISHED)
        return manifest


def _stored(candidate: CandidateVersion, store: VersionStore) -> Version | None:
    """The candidate, where it was stored before."""
    if candidate.version not in store.versions():
        return None
    held = store.read(candidate.version)
    is_same = held.created_at == candidate.at and held.lineage.get("trace_ids") == list(candidate.trace_ids)
    return held if is_same and held.parent == candidate.parent else None


def _store(
    candidate: CandidateVersion, policy: Policy, store: VersionStore, folder: Path, base: Version | None
) -> Version:
    shutil.rmtree(folder, ignore_errors=True)
    if base is None:
        policy.export(folder)
    else:
        policy.export_adapters(folder)
    manifest = store.publish(
        candidate.version,
        folder,
        store.read(candidate.parent),
        {
            "trace_ids": list(candidate.trace_ids),
            "spec": candidate.spec,
            "num_turns": len(candidate.trace_ids),
            "settings": candidate.settings,
            "settings_digest": digest_of(candidate.settings),
        },
        candidate.metrics,
        candidate.at,
        base,
    )
    shutil.rmtree(folder)
    return manifest

"""Lineage for people, as a tree and tables, and for programs, as JSON."""

import json
import time
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from ingest.lineage.core import Ancestry, Data, Footprint, Role, Serving, Times, data_of
from ingest.records.events import Release, Version
from ingest.store.releases import decided_by

GONE = "removed from the store"
_EXCHANGED = "its manifest is not the one that was announced on the log"


def ancestry(found: Ancestry) -> RenderableType:
    """A version's story on a screen."""
    return Group(_tree(found), _about(found), *_decisions(found))


def footprint(found: Footprint) -> RenderableType:
    """What a trace has become part of, on a screen."""
    told = [escape(f"trace {found.trace_id}"), escape(found.told)]
    if not found.serving:
        return Group(*told)
    table = Table("version", "", "serves now", title="versions with it in them")
    for one in found.serving:
        table.add_row(str(one.version), "trained on it" if one.version in found.trained else "descends", serves(one))
    return Group(*told, table)


def _tree(found: Ancestry) -> Tree:
    tree = Tree(_label(found.version, found))
    for parent in found.parents:
        tree.add(_label(parent, found))
    if found.ends_early:
        tree.add(escape(f"and no further: {found.ends_early}"))
    return tree


def _label(version: Version, found: Ancestry) -> str:
    signed = found.signed.get(version.version)
    state = signed.state.value if signed else GONE
    state += f"; {_EXCHANGED}" if version.version in found.exchanged else ""
    made = f"{_at(version.created_at)}  trained on {_made_of(data_of(version))}"
    return escape(f"version {version.version}  {version.digest[:12]}  {made}  signature: {state}")


def _about(found: Ancestry) -> Table:
    data, signed = found.data, found.signed.get(found.version.version)
    table = Table("", "", title=f"version {found.version.version}", show_header=False)
    for what, told in (
        ("serves now", serves(found.serving)),
        ("signature", signed.told if signed else GONE),
        ("weights", "whole" if found.version.base is None else f"adapters over version {found.version.base}"),
        ("trained on", _made_of(data)),
        ("reward spec", data.spec or "-"),
        ("sessions began", _between(data.sessions_at)),
        ("feedback given", _between(data.feedback_at)),
        ("loss", data.loss or "-"),
        ("settings", data.settings_digest[:12] or "-"),
    ):
        table.add_row(what, escape(told))
    if (reward := found.version.metrics.get("mean_reward")) is not None:
        table.add_row("mean reward", f"{reward:.3f}")
    return table


def _made_of(data: Data) -> str:
    if not data.trace_ids:
        return "nothing"
    return f"{_count(len(data.trace_ids), 'turn')} of {_count(data.num_sessions, 'session')}"


def _count(num: int, what: str) -> str:
    return f"{num} {what}" if num == 1 else f"{num} {what}s"


def _decisions(found: Ancestry) -> list[RenderableType]:
    """Every release about it, and the numbers of the last one that has any."""
    table = Table("release", "at", "state", "share", "by", "why", title="who let it out, or back")
    for one in found.decisions:
        state = one.state.value.replace("_", " ") if one.state else one.kind.value
        table.add_row(
            str(one.release), _at(one.at), state, f"{one.share:.0%}", escape(decided_by(one)), escape(one.reason)
        )
    last = next((one for one in reversed(found.decisions) if one.numbers), None)
    if last is None:
        return [table]
    numbers = Table("number", "value", title=f"what release {last.release} was decided on")
    for name, value in sorted(last.numbers.items()):
        numbers.add_row(escape(name), f"{value:.4g}")
    return [table, numbers]


def serves(one: Serving) -> str:
    """Where a version serves now."""
    where = f" on {', '.join(one.engines)}" if one.engines else ""
    return one.role.value + where if one.role is not Role.NONE or one.engines else Role.NONE.value


def _at(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _between(times: Times | None) -> str:
    return f"{_at(times[0])} to {_at(times[1])}" if times else "not noted"


def ancestry_json(found: Ancestry) -> str:
    """The same for programs: times in Unix seconds, all numbers of all releases."""
    return json.dumps(
        {
            **_version_json(found.version, found),
            "trace_ids": list(found.data.trace_ids),
            "metrics": found.version.metrics,
            "parents": [_version_json(parent, found) for parent in found.parents],
            "ends_early": found.ends_early,
            "exchanged": list(found.exchanged),
            "releases": [_release_json(one) for one in found.decisions],
            "serving": serving_json(found.serving),
        }
    )


def footprint_json(found: Footprint) -> str:
    """The same for programs."""
    return json.dumps(
        {
            "trace_id": found.trace_id,
            "told": found.told,
            "seen": found.seen.value,
            "fate": found.fate.model_dump(mode="json", exclude={"trace_ids"}) if found.fate else None,
            "trained": list(found.trained),
            "serving": [serving_json(one) for one in found.serving],
        }
    )


def _version_json(version: Version, found: Ancestry) -> dict[str, Any]:
    data, signed = data_of(version), found.signed.get(version.version)
    return {
        "version": version.version,
        "digest": version.digest,
        "base": version.base,
        "created_at": version.created_at,
        "signature": {"state": signed.state.value, "key": signed.key, "told": signed.told} if signed else None,
        "num_turns": len(data.trace_ids),
        "num_sessions": data.num_sessions,
        "spec": data.spec,
        "sessions_at": data.sessions_at,
        "feedback_at": data.feedback_at,
        "settings": dict(data.settings),
        "settings_digest": data.settings_digest,
    }


def _release_json(release: Release) -> dict[str, Any]:
    return release.model_dump(mode="json", include={"release", "at", "stable", "share", "numbers", "reason"}) | {
        "kind": release.kind.value,
        "state": release.state.value if release.state else None,
        "author": release.author,
    }


def serving_json(one: Serving) -> dict[str, Any]:
    """The same for programs."""
    return {"version": one.version, "role": one.role.value, "engines": list(one.engines)}

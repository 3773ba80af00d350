"""Keeping evidence over a restart: a copy of what the rewards topic says up to some positions. Without it, all of the
topic is read again. Units are kept and no sums: those are computed again, so that nothing can disagree with them."""

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.files import replace_text
from ingest.records.events import Arm
from serving.rollout.evidence.held import Evidence
from serving.rollout.evidence.tally import Sessions
from serving.rollout.evidence.units import Unit, names_once

logger = logging.getLogger(__name__)

_FORM = 1
Row = tuple[
    str,
    str,
    int,
    float,
    bool,
    Arm,
    float,
    float,
    int,
    tuple[float, ...],
    str,
    str,
    float,
    int | None,
    float,
    int | None,
]
"""A `Unit`, with the place of its names in `Kept.names`."""


class KeptSessions(BaseModel):
    newest_at: float
    units: list[Row]


class Kept(BaseModel):
    """The file. `names` are the sets of guardrails that units have."""

    model_config = ConfigDict(extra="forbid")

    form: int
    names: list[tuple[str, ...]]
    champion: dict[int, list[Row]]
    trials: dict[int, KeptSessions]
    watches: dict[int, KeptSessions]
    blocks: dict[int, KeptSessions]
    positions: dict[int, int]


def read(path: Path) -> Evidence:
    """What was kept; nothing where that is missing, damaged, or of another form."""
    try:
        kept = Kept.model_validate_json(path.read_bytes())
        if kept.form != _FORM:
            raise ValueError(f"form {kept.form}, this process reads {_FORM}")
        return _thawed(kept)
    except FileNotFoundError:
        return Evidence()
    except (OSError, ValidationError, ValueError, IndexError) as exc:
        logger.warning("evidence %s: not readable, all rewards are read again: %s", path, exc)
        return Evidence()


def keep(evidence: Evidence, path: Path) -> None:
    """Replace what was kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, _frozen(evidence).model_dump_json())


def _frozen(evidence: Evidence) -> Kept:
    places: dict[tuple[str, ...], int] = {}

    def row(unit: Unit) -> Row:
        place = places.setdefault(unit.names, len(places))
        return (*unit[:8], place, *unit[9:])

    def rows(held: Sessions) -> KeptSessions:
        return KeptSessions.model_construct(newest_at=held.newest_at, units=[row(one) for one in held.units.values()])

    champion = {version: [row(one) for one in held.values()] for version, held in evidence.champion.items()}
    trials, watches, blocks = (
        {version: rows(held) for version, held in some.items()}
        for some in (evidence.trials, evidence.watches, evidence.blocks)
    )
    return Kept.model_construct(
        form=_FORM,
        names=list(places),
        champion=champion,
        trials=trials,
        watches=watches,
        blocks=blocks,
        positions=evidence.positions,
    )


def _thawed(kept: Kept) -> Evidence:
    found = Evidence()
    names = [names_once(one) for one in kept.names]

    def unit(row: Row) -> Unit:
        return Unit(*row[:8], names[row[8]], *row[9:])

    def sessions(held: KeptSessions) -> Sessions:
        return Sessions(map(unit, held.units), held.newest_at)

    found.champion = {version: {row[0]: unit(row) for row in rows} for version, rows in kept.champion.items()}
    found.trials = {version: sessions(held) for version, held in kept.trials.items()}
    found.watches = {version: sessions(held) for version, held in kept.watches.items()}
    found.blocks = {version: sessions(held) for version, held in kept.blocks.items()}
    found.positions = kept.positions
    return found

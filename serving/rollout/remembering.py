"""What the controller keeps over a restart of `releases` and `versions`, which grow for ever, so as not to read it all.

Of the release log it is what that said before the candidate that there is, of versions where those lie that wait. What
cannot be read, or is of another log, is as if it had not been kept: all is read again.
"""

import logging
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from infra.files import replace_text
from ingest.log.protocol import EventLog, Positions
from ingest.log.topics import VERSIONS
from ingest.store.releases import Known

logger = logging.getLogger(__name__)


class Remembered(BaseModel):
    """The file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal[1] = 1
    known: Known
    versions_from: int

    @property
    def positions(self) -> Positions:
        """Where reading begins."""
        return {(VERSIONS.name, 0): self.versions_from, **self.known.positions}


def recall(path: Path, log: EventLog) -> Remembered | None:
    """What was kept of this log. Raises `LogError`."""
    try:
        kept = Remembered.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as exc:
        logger.warning("%s: not readable, all releases and versions are read again: %s", path, exc)
        return None
    if not kept.known.is_of(log):
        logger.warning("%s: of another log, all releases and versions are read again", path)
        return None
    return kept


def remember(path: Path, known: Known, versions_from: int) -> None:
    """Replace what was kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, Remembered(known=known, versions_from=versions_from).model_dump_json())

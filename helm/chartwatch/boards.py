"""The dashboards beside the chart: what they are, their files, and whether the files are what this code writes."""

import json
from pathlib import Path
from typing import Any

from chartwatch.debian import ROOT
from chartwatch.lane_rows import LANE
from chartwatch.loop_rows import LOOP, REWARD, TRAINER
from chartwatch.panels import Row, dashboard
from chartwatch.serving_rows import PRIVACY, SAFETY, SERVING

FOLDER = ROOT / "helm" / "onstream" / "dashboards"
ROWS: tuple[Row, ...] = (LOOP, REWARD, TRAINER, LANE, SERVING, SAFETY, PRIVACY)


def boards() -> dict[Path, dict[str, Any]]:
    """File -> dashboard."""
    about = "Whether the loop turns, learns and is safe. Metrics: docs/telemetry.md; alerts: docs/operate.md."
    return {FOLDER / "onstream.json": dashboard("onstream-loop", "Onstream", about, ROWS)}


def outputs() -> dict[Path, str]:
    """File -> text."""
    return {path: json.dumps(board, indent=1) + "\n" for path, board in boards().items()}


def stale() -> list[str]:
    """Files that are not what this code writes, or that it does not write."""
    wanted = outputs()
    left = [path for path in FOLDER.glob("*.json") if path not in wanted]
    changed = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    return [path.name for path in [*left, *changed]]

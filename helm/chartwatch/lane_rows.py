"""The row about the replay lane: what idle engines answer again, and what comes of it."""

from chartwatch.panels import Panel, Query, Row, Unit
from chartwatch.promql import by, rate

_SHARE = " / ".join(
    f"sum(rate({by('', f'onstream_lane_{spent}_seconds_total')}[$__rate_interval]))" for spent in ("asking", "idle")
)

LANE = Row(
    "Replay lane",
    (
        Panel(
            "Idle time used",
            "Share of the time without users in which engines answered the lane.",
            Unit.SHARE,
            (Query(_SHARE, "used"),),
        ),
        Panel(
            "Replays",
            "Prompts answered again, and those that a user cut short, by engine.",
            Unit.PER_SECOND,
            (
                rate("onstream_lane_replays_total", "onstream_engine_id"),
                rate("onstream_lane_interrupted_total", legend="cut short"),
            ),
        ),
        Panel(
            "Groups",
            "Prompts drawn or why not, groups asked for by how that ended, and groups trained: compared, all alike, or "
            "one alone.",
            Unit.PER_SECOND,
            (
                rate("onstream_lane_prompts_total", "onstream_reason"),
                rate("onstream_lane_groups_total", "onstream_reason"),
                rate("onstream_trainer_groups_total", "onstream_reason"),
            ),
        ),
    ),
)

"""The rows about what users and operators see: serving, safety, privacy and the lake."""

from chartwatch.panels import Look, Panel, Query, Row, Unit
from chartwatch.promql import VERSION, by, gauge, per_version, quantile, rate

SERVING = Row(
    "Serving by weight version",
    (
        Panel(
            "Version of each engine",
            "What it serves. It is told in the release log.",
            Unit.NONE,
            (gauge("max", "onstream_engine_version", "onstream_engine_id"),),
            Look.STATES,
        ),
        Panel(
            "Time to first token",
            "Streamed replies.",
            Unit.SECONDS,
            (per_version(0.95, "gen_ai_server_time_to_first_token_seconds"),),
        ),
        Panel(
            "Time per token",
            "Streamed replies, after the first.",
            Unit.SECONDS,
            (per_version(0.95, "gen_ai_server_time_per_output_token_seconds"),),
        ),
        Panel(
            "Requests in engines",
            "To the last token.",
            Unit.SECONDS,
            (per_version(0.95, "gen_ai_server_request_duration_seconds"),),
        ),
        Panel(
            "Tokens",
            "Generated, by version.",
            Unit.PER_SECOND,
            (
                Query(
                    f"sum by (version) (rate({by('', 'vllm:generation_tokens_total')}[$__rate_interval])"
                    f" * on (namespace, instance) group_left (version) {VERSION})",
                    "version {{version}}",
                ),
            ),
        ),
        Panel(
            "Requests by arm",
            "At the router.",
            Unit.PER_SECOND,
            (rate("onstream_router_requests_total", "onstream_arm"),),
        ),
        Panel(
            "Requests at the router",
            "To the last byte.",
            Unit.SECONDS,
            tuple(quantile(share, "http_server_request_duration_seconds") for share in (0.5, 0.95, 0.99)),
        ),
        Panel(
            "Time to first byte",
            "Streamed replies, at the router, by engine.",
            Unit.SECONDS,
            (quantile(0.95, "onstream_router_time_to_first_byte_seconds", "onstream_engine_id"),),
        ),
        Panel(
            "Failures",
            "Requests without a whole answer, by why, and attempts that went on to another engine.",
            Unit.PER_SECOND,
            (
                rate("onstream_router_failed_total", "onstream_reason"),
                rate(
                    "onstream_router_retries_total", "onstream_engine_id", legend="retried after {{onstream_engine_id}}"
                ),
            ),
        ),
        Panel(
            "Engines up",
            "As a router sees them.",
            Unit.NONE,
            (gauge("max", "onstream_router_engine_up", "onstream_engine_id"),),
        ),
        Panel(
            "Swap pause",
            "Time in which an engine made no token.",
            Unit.SECONDS,
            (
                quantile(0.5, "onstream_swap_pause_seconds", window="1d"),
                Query('namespace:onstream_swap_pause_seconds:p99_1d{namespace=~"$namespace"}', "p99"),
            ),
            objective=2,
        ),
        Panel(
            "In flight",
            "Users' requests in each engine.",
            Unit.COUNT,
            (gauge("sum", "onstream_engine_in_flight", "onstream_engine_id"),),
        ),
        Panel(
            "Waiting in vLLM",
            "Requests that wait for their turn, and preemptions a second.",
            Unit.COUNT,
            (
                gauge("sum", "vllm:num_requests_waiting", "instance"),
                rate("vllm:num_preemptions_total", "instance", legend="preemptions {{instance}}"),
            ),
        ),
        Panel("KV cache in use", "By engine.", Unit.SHARE, (gauge("max", "vllm:kv_cache_usage_perc", "instance"),)),
        Panel(
            "Prefix cache",
            "Share of prompt tokens found there.",
            Unit.SHARE,
            (
                Query(
                    f"sum by (instance) (rate({by('', 'vllm:prefix_cache_hits_total')}[$__rate_interval]))"
                    f" / sum by (instance) (rate({by('', 'vllm:prefix_cache_queries_total')}[$__rate_interval]))",
                    "{{instance}}",
                ),
            ),
        ),
        Panel(
            "Loads of versions",
            "Fetch, verify and swap; and loads that failed, in the time shown.",
            Unit.SECONDS,
            (quantile(0.95, "onstream_swap_duration_seconds", window="1d"),),
        ),
    ),
)

SAFETY = Row(
    "Safety",
    (
        Panel(
            "Trial",
            "Where it stands, and the mode that operators chose.",
            Unit.NONE,
            (
                Query(f"{by('max', 'onstream_trial_state', 'onstream_trial_state')} == 1", "{{onstream_trial_state}}"),
                Query(f"{by('max', 'onstream_release_mode', 'onstream_mode')} == 1", "{{onstream_mode}}"),
            ),
            Look.STATES,
        ),
        Panel(
            "Evidence of harm",
            "By outcome, in nats.",
            Unit.NONE,
            (gauge("max", "onstream_trial_log_harm", "onstream_gate_outcome"),),
        ),
        Panel(
            "Arm shares",
            "What new sessions' coin says, at each router and at the rollout.",
            Unit.SHARE,
            (
                gauge("max", "onstream_router_candidate_share", "instance", legend="router {{instance}}"),
                gauge("max", "onstream_trial_share", legend="rollout"),
            ),
        ),
        Panel(
            "Split",
            "Evidence that sessions were not split as the coin says, in nats; at 6.91 the trial is not valid.",
            Unit.NONE,
            (gauge("max", "onstream_trial_log_mismatch"),),
            objective=6.91,
        ),
        Panel(
            "Candidate",
            "The version on trial, stable, and the one that some sessions are held back on.",
            Unit.NONE,
            (
                gauge("max", "onstream_trial_candidate"),
                gauge("max", "onstream_release_stable", legend="stable"),
                gauge("max", "onstream_release_holdback", legend="held back"),
            ),
        ),
        Panel(
            "Sessions that count",
            "In the trial, by arm; and the users without whom no promotion can come.",
            Unit.COUNT,
            (
                gauge("max", "onstream_trial_units", "onstream_arm"),
                gauge("max", "onstream_trial_users_needed", legend="users needed"),
            ),
        ),
        Panel(
            "How trials ended",
            "In the time shown.",
            Unit.COUNT,
            (
                Query(
                    "sum by (onstream_trial_state) (increase(onstream_releases_total{onstream_trial_state=~"
                    '"promoted|rejected|rolled_back|expired", namespace=~"$namespace"}[$__range]))',
                    "{{onstream_trial_state}}",
                ),
            ),
            Look.NUMBER,
        ),
        Panel(
            "Swaps that failed",
            "By engine.",
            Unit.PER_SECOND,
            (rate("onstream_swap_failed_total", "onstream_engine_id"),),
        ),
        Panel(
            "Dead letters",
            "By topic and failure, records that wait for a newer reader, and what was put back.",
            Unit.PER_SECOND,
            (
                rate("onstream_dead_letters_total", "messaging_destination_name", "onstream_reason"),
                rate(
                    "onstream_parked_total",
                    "messaging_destination_name",
                    legend="parked {{messaging_destination_name}}",
                ),
                rate(
                    "onstream_redriven_total",
                    "messaging_destination_name",
                    legend="put back {{messaging_destination_name}}",
                ),
            ),
        ),
        Panel(
            "Traces dropped",
            "Lost for want of disk or key. The objective is none.",
            Unit.PER_SECOND,
            (rate("onstream_traces_dropped_total", "instance"),),
        ),
    ),
)

PRIVACY = Row(
    "Privacy and lake",
    (
        Panel(
            "Capture",
            "Traces written, and requests that were, as told, not captured.",
            Unit.PER_SECOND,
            (
                rate("onstream_traces_captured_total", legend="captured"),
                rate("onstream_traces_unconsented_total", legend="not captured"),
            ),
        ),
        Panel(
            "Spool",
            "On disk, by process, and what it may be.",
            Unit.BYTES,
            (
                gauge("max", "onstream_spool_size_bytes", "instance"),
                gauge("min", "onstream_spool_limit_bytes", legend="limit"),
            ),
        ),
        Panel(
            "Feedback",
            "Taken, come after its session closed, and about nothing known.",
            Unit.PER_SECOND,
            (
                rate("onstream_feedback_taken_total", legend="taken"),
                rate("onstream_feedback_late_total", legend="late"),
                rate("onstream_feedback_unclaimed_total", legend="about nothing known"),
            ),
        ),
        Panel(
            "Erased records met",
            "Records read whose key was erased, by topic; keys erased, where `onstream erase` sends by OTLP.",
            Unit.PER_SECOND,
            (
                rate("onstream_records_erased_total", "messaging_destination_name"),
                rate("onstream_keys_erased_total", legend="keys erased"),
            ),
        ),
        Panel("Lake rows", "In committed files.", Unit.PER_SECOND, (rate("onstream_lake_rows_total"),)),
        Panel(
            "Lake commits",
            "Duration.",
            Unit.SECONDS,
            (quantile(0.95, "onstream_lake_commit_duration_seconds", window="1h"),),
        ),
    ),
)

"""Series that rules and dashboards use and that are not ours: vLLM's and Prometheus's own."""

VLLM_VERSION = "0.32.0"
VLLM = frozenset(
    {
        "vllm:num_requests_running",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "vllm:num_preemptions_total",
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_hits_total",
        "vllm:generation_tokens_total",
    }
)
"""What vLLM of `VLLM_VERSION` says of its scheduler, which we do not see. A test looks them up in vLLM."""

PROMETHEUS = frozenset({"up", "target_info", "ALERTS"})
"""Whether a target answers, what a target says of itself (OpenTelemetry's resource), and alerts."""

OTHERS = VLLM | PROMETHEUS

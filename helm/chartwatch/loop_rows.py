"""The rows about the loop: its health, rewards, the trainer."""

from chartwatch.panels import Look, Panel, Query, Row, Unit
from chartwatch.promql import by, gauge, quantile, rate

LOOP = Row(
    "Loop health",
    (
        Panel(
            "Alerts",
            "Alerts of this chart that fire.",
            Unit.COUNT,
            (
                Query(
                    'sum by (alertname, severity) (ALERTS{alertname=~"Onstream.*", alertstate="firing", '
                    'namespace=~"$namespace"})',
                    "{{alertname}}",
                ),
            ),
        ),
        Panel(
            "Processes that answer",
            "By stage. A stage without a line sends no metrics.",
            Unit.COUNT,
            (
                Query(
                    'count by (service_name) (target_info{service_namespace="onstream", namespace=~"$namespace"})',
                    "{{service_name}}",
                ),
            ),
        ),
        Panel(
            "Feedback to serving",
            "From the median feedback of a batch until the last stable engine serves what it taught.",
            Unit.SECONDS,
            (
                quantile(0.5, "onstream_feedback_to_serving_seconds", window="1d"),
                Query('namespace:onstream_feedback_to_serving_seconds:p90_1d{namespace=~"$namespace"}', "p90"),
            ),
            objective=28800,
        ),
        Panel(
            "Uncommitted records",
            "By group and topic: unread, or in open sessions and batches.",
            Unit.COUNT,
            (gauge("max", "onstream_consumer_lag", "messaging_consumer_group_name", "messaging_destination_name"),),
        ),
        Panel(
            "Records read",
            "By group and topic.",
            Unit.PER_SECOND,
            (
                rate(
                    "messaging_client_consumed_messages_total",
                    "messaging_consumer_group_name",
                    "messaging_destination_name",
                ),
            ),
        ),
        Panel(
            "Work on a record",
            "Closing a session, or scoring one, by group.",
            Unit.SECONDS,
            (quantile(0.95, "messaging_process_duration_seconds", "messaging_consumer_group_name"),),
        ),
        Panel(
            "Oldest unscored trace",
            "Age of the oldest session that was read and has no reward yet.",
            Unit.SECONDS,
            (gauge("max", "onstream_rewards_oldest_unscored_seconds"),),
            objective=3600,
        ),
        Panel("Open sessions", "Sessions that have not closed.", Unit.COUNT, (gauge("sum", "onstream_sessions_open"),)),
        Panel(
            "Sessions closed",
            "By why.",
            Unit.PER_SECOND,
            (rate("onstream_trajectories_closed_total", "onstream_session_closed"),),
        ),
        Panel("Fates", "How traces ended.", Unit.PER_SECOND, (rate("onstream_traces_fates_total", "onstream_fate"),)),
    ),
)

REWARD = Row(
    "Reward",
    (
        Panel(
            "Reward by arm",
            "Mean outcomes of the trial that runs.",
            Unit.NONE,
            (gauge("max", "onstream_trial_outcome", "onstream_gate_outcome", "onstream_arm"),),
        ),
        Panel("Reward of the last batch", "Mean.", Unit.NONE, (gauge("max", "onstream_reward_mean"),)),
        Panel(
            "Evidence",
            "Each outcome's evidence that the candidate is not worse, and what all must reach for a promotion (nats).",
            Unit.NONE,
            (
                gauge("max", "onstream_trial_log_e", "onstream_gate_outcome"),
                gauge("max", "onstream_trial_log_threshold", legend="needed"),
            ),
        ),
        Panel(
            "Rewards",
            "By whether any component scored any turn.",
            Unit.PER_SECOND,
            (rate("onstream_rewards_made_total", "onstream_reward_has_signal"),),
        ),
        Panel(
            "Unscored",
            "Share of what a component was asked that has no number, by reason.",
            Unit.SHARE,
            (
                Query(
                    'namespace_component_reason:onstream_unscored:ratio_1h{namespace=~"$namespace"}',
                    "{{onstream_reward_component}}: {{onstream_reason}}",
                ),
            ),
        ),
        Panel(
            "Waiting for scorers",
            "Trajectories.",
            Unit.COUNT,
            (gauge("sum", "onstream_rewards_waiting"),),
        ),
    ),
)

TRAINER = Row(
    "Trainer",
    (
        Panel(
            "Phase",
            "What the trainer does.",
            Unit.NONE,
            (
                Query(
                    f"{by('max', 'onstream_trainer_phase', 'onstream_trainer_phase')} == 1",
                    "{{onstream_trainer_phase}}",
                ),
            ),
            Look.STATES,
        ),
        Panel(
            "Effective sample size",
            "Of the last update, as a share of its tokens; below 0.3 it is discarded. The learning rate follows it.",
            Unit.SHARE,
            (
                gauge("min", "onstream_trainer_ess", legend="effective"),
                gauge("max", "onstream_trainer_clip_share", legend="clipped"),
                gauge("min", "onstream_trainer_lr_scale", legend="of the learning rate"),
            ),
        ),
        Panel(
            "KL",
            "To the last update, in nats a token, from the policy that sampled and from stable; mismatch is from the "
            "policy that sampled to the learner before its first step. Above 0.2 from what sampled it is discarded.",
            Unit.NONE,
            (
                gauge("max", "onstream_trainer_kl", legend="from what sampled"),
                gauge("max", "onstream_trainer_stable_kl", legend="from stable"),
                gauge("max", "onstream_trainer_mismatch", legend="mismatch"),
                gauge("max", "onstream_trainer_mismatch_positive", legend="mismatch, k3"),
            ),
            objective=0.2,
        ),
        Panel(
            "Entropy",
            "Of the policy where the last update trained, in nats a token; half of what it was, or half as much again, "
            "and the update is discarded.",
            Unit.NONE,
            (gauge("min", "onstream_trainer_entropy"),),
        ),
        Panel(
            "Hints",
            "Of corrected turns, in nats a token: how much likelier their replies were when served than once the "
            "correction was read. Below 0 corrections teach what they correct.",
            Unit.NONE,
            (gauge("max", "onstream_trainer_hint_gap"),),
        ),
        Panel("Gradient norm", "Of the last update.", Unit.NONE, (gauge("max", "onstream_trainer_grad_norm"),)),
        Panel("Loss", "Of the last update.", Unit.NONE, (gauge("max", "onstream_trainer_loss"),)),
        Panel(
            "Stale turns",
            "Of the turns of 6 hours that could have trained, those sampled too many promotions ago.",
            Unit.SHARE,
            (Query('namespace:onstream_stale_turns:share_6h{namespace=~"$namespace"}', "stale"),),
            objective=0.05,
        ),
        Panel(
            "Staleness",
            "Turns trained, by promotions behind.",
            Unit.COUNT,
            (
                Query(
                    f"sum by (le) (increase({by('', 'onstream_trainer_staleness_bucket')}[$__rate_interval]))", "{{le}}"
                ),
            ),
            Look.BUCKETS,
        ),
        Panel(
            "Turns",
            "Trained, weighted down, taught by a correction, taken again after a trial, and never trained, by reason.",
            Unit.PER_SECOND,
            (
                rate("onstream_trainer_turns_trained_total", legend="trained"),
                rate("onstream_trainer_turns_near_duplicate_total", legend="of these near duplicates"),
                rate("onstream_trainer_turns_corrected_total", legend="taught by a correction"),
                rate("onstream_trainer_turns_again_total", legend="taken again"),
                rate("onstream_trainer_turns_ineligible_total", "onstream_reason"),
            ),
        ),
        Panel(
            "Concentration",
            "The most that one user, and one tenant, has of the last batch.",
            Unit.SHARE,
            (
                gauge("max", "onstream_trainer_batch_user_share", legend="user"),
                gauge("max", "onstream_trainer_batch_tenant_share", legend="tenant"),
            ),
        ),
        Panel(
            "Update",
            "Optimiser steps of one update.",
            Unit.SECONDS,
            (
                quantile(0.5, "onstream_trainer_update_duration_seconds", window="1d"),
                quantile(0.95, "onstream_trainer_update_duration_seconds", window="1d"),
            ),
        ),
        Panel(
            "Turns collected",
            "For the next update, and trained in the version in the making.",
            Unit.COUNT,
            (
                gauge("sum", "onstream_trainer_turns_collected", legend="for the next update"),
                gauge("sum", "onstream_trainer_turns_in_making", legend="in the making"),
            ),
        ),
        Panel(
            "Versions",
            "Published, and updates that an alarm stopped, in the time shown.",
            Unit.COUNT,
            (
                Query(f"sum(increase({by('', 'onstream_versions_published_total')}[$__range]))", "published"),
                Query(
                    "sum by (onstream_reason) "
                    f"(increase({by('', 'onstream_trainer_updates_discarded_total')}[$__range]))",
                    "discarded: {{onstream_reason}}",
                ),
            ),
            Look.NUMBER,
        ),
    ),
)

"""Rules that no schema has: kube-score's list, and what this chart promises. Pure functions of manifests.

A rule is `rule(manifests) -> faults`.
"""

from collections.abc import Callable, Iterator

from chartcheck.policies import pods, release
from chartcheck.render import Manifest

Rule = Callable[[list[Manifest]], Iterator[str]]

RULES: tuple[Rule, ...] = (
    pods.resources_are_set,
    pods.images_are_pinned,
    pods.processes_are_probed,
    pods.ports_that_are_probed_exist,
    pods.pods_are_restricted,
    pods.nobody_has_a_token,
    pods.writable_folders_are_volumes,
    pods.volumes_fit_their_limits,
    pods.mounts_have_volumes,
    release.disruptions_are_bounded,
    release.scaled_workloads_have_no_replicas,
    release.updates_want_no_second_gpu,
    pods.pods_spread,
    release.selectors_find_their_pods,
    release.services_name_ports_that_exist,
    pods.no_secret_is_in_a_value,
    release.labels_are_complete,
    release.names_leave_room,
    release.everything_is_in_the_namespace,
    release.every_pod_has_a_policy,
)


def faults(manifests: list[Manifest]) -> list[str]:
    """What all rules say, each line with its rule."""
    return [f"{fault} ({rule.__name__})" for rule in RULES for fault in rule(manifests)]

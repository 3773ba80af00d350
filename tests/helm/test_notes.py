"""What `helm install` tells, and pages: commands that work as they stand."""

import os
import re
import subprocess

import pytest
from chartcheck import render
from chartcheck.tools import CHART, ROOT, helm
from charts import Rendered


def notes(name: str) -> str:
    """For a case of `render.cases()`."""
    given = ("--namespace", "ml", "--values", str(render.cases()[name]))
    done = subprocess.run(
        [str(helm()), "install", "loop", str(CHART), *given, "--dry-run=client"],
        env={**os.environ, "KUBECONFIG": os.devnull},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.partition("\nNOTES:\n")[2]


@pytest.mark.parametrize(("name", "arms"), [("small-team", ["stable", "candidate"]), ("switchback", ["stable"])])
def test_every_pool_of_engines_is_waited_for_before_the_test(name: str, arms: list[str]) -> None:
    told = notes(name)
    waits = [line.split("engine-")[1] for line in told.splitlines() if "rollout status statefulset/" in line]
    assert waits == arms
    assert told.index("rollout status") < told.index("helm test loop")


def test_pods_that_a_person_replaces_are_waited_for_without_a_rollout() -> None:
    """`kubectl rollout status` refuses a StatefulSet that is updated by `OnDelete`."""
    told = notes("large")
    assert "rollout status" not in told
    assert "kubectl -n ml wait --for=condition=Ready --timeout=3600s pod -l app.kubernetes.io/instance=loop," in told


@pytest.mark.parametrize("page", ["deploy", "operate", "rollout"])
def test_what_a_page_names_for_kubectl_is_made_by_a_release_called_loop(page: str, rendered: Rendered) -> None:
    kinds = {"deploy": "Deployment", "statefulset": "StatefulSet", "svc": "Service"}
    text = (ROOT / "docs" / f"{page}.md").read_text()
    named = {(kinds[kind], name) for kind, name in re.findall(r"\b(deploy|statefulset|svc)/(loop-[a-z-]+)", text)}
    assert named
    assert named <= {(one["kind"], one["metadata"]["name"]) for one in rendered("small-team")}

"""Whether the examples' learners have the memory that their models take."""

import pytest
from chart_pods import containers
from chartcheck import configuration
from chartcheck.render import Manifest
from charts import Rendered

from infra.config import Config

WEIGHTS = {"qwen3-0.6b": 0.6e9, "qwen3-8b": 8.2e9, "qwen3-32b": 32.8e9}
GPU_BYTES = {"one-gpu": 24e9, "small-team": 80e9, "large": 141e9}
"""What the learner has of one; of the one GPU half, for two engines have the rest of 48 GB."""
SHARE = 0.75  # of a GPU's memory: the rest is for activations, logits and casts
OTHERS_BYTES = 6e9  # on the host: torch, CUDA and Ray


def takes(config: Config, num: float) -> tuple[float, float]:
    """Bytes on each worker's GPU, and on its host, for `num` weights.

    In float32: a weight, its gradient, AdamW's two moments, and stable's copy where KL to it is measured; of adapters
    the weights alone, since the rest is theirs. Each worker loads all weights; a checkpoint copies three of these.
    """
    own = config.trainer
    if own.lora is not None:
        return 4.0 * num / own.workers, 4.0 * num + OTHERS_BYTES
    each = 16.0 + (4.0 if own.max_version_kl else 0.0)
    return each * num / own.workers, max(4.0 * num, 12.0 * num / own.workers) + OTHERS_BYTES


def host_bytes(manifests: list[Manifest]) -> float:
    """The least limit of a container that learns."""
    limits = [
        one.limits["memory"]
        for one in containers(manifests)
        if one.component in ("trainer", "learner") and "gpu" in " ".join(one.limits)
    ]
    assert limits and all(limit.endswith("Gi") for limit in limits), limits
    return min(float(limit.removesuffix("Gi")) for limit in limits) * 2**30


@pytest.mark.parametrize("example", sorted(GPU_BYTES))
def test_an_examples_learner_has_the_memory_that_its_model_takes(rendered: Rendered, example: str) -> None:
    manifests = rendered(example)
    config = configuration.load(manifests)
    gpu, host = takes(config, WEIGHTS[config.model.name])
    assert gpu <= SHARE * GPU_BYTES[example] and host <= host_bytes(manifests)

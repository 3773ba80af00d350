"""A folder with a tiny model, its configuration, and trajectories that the model itself sampled."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.records.events import Reward
from trainer.offline import command

CONTEXT = (1, 1, 1)


@dataclass
class Offline:
    """`reward` makes a session whose replies are two equal tokens, with the log-probabilities the model gives them."""

    root: Path
    model: Path
    make: Callable[..., Reward]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        own = {"lr": 3e-3, "dtype": "float32", "threads": 1, "batch_turns": 8, "minibatch_turns": 8}
        self.configure(**own)

    def configure(self, **trainer: Any) -> None:
        told = {"run_dir": str(self.root), "model": {"path": str(self.model)}, "trainer": trainer}
        (self.root / "onstream.yaml").write_text(yaml.safe_dump(told))

    def logps(self, token: int) -> tuple[float, ...]:
        """Of a reply to the first context, in nats."""
        import torch
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        ids = torch.tensor([[*CONTEXT, token, token]])
        with torch.no_grad():
            logps = model(input_ids=ids).logits.log_softmax(-1)[0, len(CONTEXT) - 1 : -1]
        return tuple(float(row[token]) for row in logps)

    def reward(self, session: str, value: float, token: int = 5, whole: float = 0.5, **fields: Any) -> Reward:
        changes = {0: {"logprobs": self.logps(token)}}
        made = self.make(session, [value], token=token, segment_changes=changes, **fields)
        return made.model_copy(update={"value": whole})

    def put(self, *rewards: Reward) -> None:
        self.lines += [reward.model_dump_json() for reward in rewards]

    def train(self, *argv: str, name: str = "trajectories.jsonl") -> int:
        path = self.root / name
        path.write_text("".join(f"{line}\n" for line in self.lines))
        given = ["--from", str(path), "--output", str(self.root / "out"), "--config", str(self.root / "onstream.yaml")]
        return command.main([*given, *argv])

    def probability(self, token: int, folder: str = "out") -> float:
        """Of a token after the context, by the model in a folder of the root, or else the first one."""
        import torch
        from transformers import AutoModelForCausalLM

        where = self.root / folder if folder else self.model
        model = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([CONTEXT])).logits[0, -1]
        return float(logits.softmax(-1)[token])

    def about(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.root / "out.training.json").read_text())
        return told

    def chats(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.root / "out.chat.jsonl").read_text().splitlines()]

    def left(self) -> Sequence[str]:
        """What lies in the root beside what a test put there."""
        own = {"onstream.yaml", "trajectories.jsonl"}
        return sorted(path.name for path in self.root.iterdir() if path.name not in own)


@pytest.fixture
def offline(tmp_path: Path, tiny_model: Path, reward_of: Callable[..., Reward]) -> Offline:
    return Offline(tmp_path, tiny_model, reward_of)

"""Whether a correction teaches: what SmolLM2's teacher makes of corrected replies, and what is learnt of that.

Replies to questions are sampled from the model, and each is corrected in the words of `CORRECTION`. The teacher reads
the conversation as the next turn's prompt has it, once with the corrected reply in sight and once, as the trainer does,
without; `gap` is the mean of log pi - log pi_T over replies' tokens. Then the replies to half of the questions are
trained on with no reward, each update on all of them, and the gap to the first teacher is measured on the others, too.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).parents[2]))

import bench
import torch
import transformers

from infra.config import LossConfig, TrainerConfig
from trainer.learner.batching import Hint, Sample, Span, minibatches
from trainer.learner.learner import Learner

CORRECTION = "Too long. Please answer in one short sentence, without explanation."
QUESTIONS = (
    "Tell me about Paris.", "How do I sort a list in Python?", "Name a capital city in Europe.",
    "Write a greeting to a customer.", "What is 7 times 8?", "Suggest a name for a cat.",
    "How do I list files in Linux?", "Why is the sky blue?", "What can I cook with rice?", "Who wrote Hamlet?",
    "How do I boil an egg?", "What is a good gift for a friend?",
)  # fmt: skip
REPLY_TOKENS, UPDATES, LR = 24, 4, 1e-5
TARGETS = {"gap": (">", 0.0), "gap_in_sight": ("<", 0.0), "gap_of_trained_kept": ("<", 1.0)}


class Corrected:
    """The replies and their corrections in the template of the tokenizer, as spans of the engine's tokens would be."""

    def __init__(self, model: Path) -> None:
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(model)
        (self._end,) = self.ids("<|im_end|>")

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text, add_special_tokens=False).input_ids)

    def reply(self, learner: Learner, question: str) -> Sample:
        """A sampled reply, ended where it is long, and hinted without being in sight."""
        said = [{"role": "user", "content": question}]
        prompt = self.ids(self._tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))
        whole = learner.model.generate(
            torch.tensor([prompt]), max_new_tokens=REPLY_TOKENS, do_sample=True, temperature=1.0, top_k=0
        )
        ids = tuple(whole[0].tolist())
        ids = ids if ids[-1] == self._end else (*ids, self._end)
        user = self.ids(f"\n<|im_start|>user\n{CORRECTION}<|im_end|>\n<|im_start|>assistant\n")
        return Sample(ids, (Span(len(prompt), len(ids), (), 0.0, Hint((ids[-1], *user), 1.0)),))


def in_sight(sample: Sample) -> Sample:
    """The same, with the whole reply in what the teacher reads."""
    (span,) = sample.spans
    assert span.hint is not None
    hint = Hint(sample.token_ids[span.start : -1] + span.hint.token_ids, 1.0)
    return replace(sample, spans=(replace(span, hint=hint),))


def logps(learner: Learner, ids: tuple[int, ...], reply: tuple[int, ...]) -> torch.Tensor:
    row = Sample(ids + reply, (Span(len(ids), len(ids) + len(reply), (), 0.0),))
    ((microbatch,),) = minibatches([row], 1, 4096, seed=0)
    with torch.no_grad():
        return learner.logps(microbatch)


def student(learner: Learner, sample: Sample) -> torch.Tensor:
    (span,) = sample.spans
    return logps(learner, sample.token_ids[: span.start], sample.token_ids[span.start :])


def teacher(learner: Learner, sample: Sample) -> torch.Tensor:
    (span,) = sample.spans
    assert span.hint is not None
    return logps(learner, sample.token_ids[: span.start] + span.hint.token_ids, sample.token_ids[span.start :])


def gaps(learner: Learner, samples: Sequence[Sample], to: Sequence[torch.Tensor]) -> list[float]:
    return [float((student(learner, one) - other).mean()) for one, other in zip(samples, to, strict=True)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=bench.ROOT / ".onstream" / "model")
    model = parser.parse_args().model
    torch.manual_seed(0)
    loss = LossConfig(hint_weight=1.0)
    learner = Learner(model, TrainerConfig(lr=LR, loss=loss, max_version_kl=0.0, threads=torch.get_num_threads()))
    corrected = Corrected(model)
    samples = [corrected.reply(learner, question) for question in QUESTIONS]
    first = [teacher(learner, one) for one in samples]
    before = gaps(learner, samples, first)
    seen = gaps(learner, samples, [teacher(learner, in_sight(one)) for one in samples])
    half = len(samples) // 2
    for _ in range(UPDATES):
        spans = ((one, replace(one.spans[0], logps=tuple(student(learner, one).tolist()))) for one in samples[:half])
        learner.update(minibatches([replace(one, spans=(span,)) for one, span in spans], half, 2048, seed=0))
    after = gaps(learner, samples, first)
    figures = {
        "gap": fmean(before),
        "gap_in_sight": fmean(seen),
        "share_less_likely": fmean(gap > 0 for gap in before),
        "share_less_likely_in_sight": fmean(gap > 0 for gap in seen),
        "gap_of_trained_kept": fmean(after[:half]) / fmean(before[:half]),
        "gap_of_others_kept": fmean(after[half:]) / fmean(before[half:]),
    }
    bench.report("hint", figures, TARGETS)
    return 0


if __name__ == "__main__":
    sys.exit(main())

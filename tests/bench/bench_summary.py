"""Does the reward order summaries as their makers meant them? Histories of known truth, the real engine over HTTP.

Each history is summarised in twelve ways (tests/support/histories.py). Fourteen kinds of pairs have a known order; a
tie is wrong. In the same run: every component alone, ROUGE-L and TF-IDF similarity to the source, the hacks, and what a
summary costs the engine. The first two replies after the cut are alike for all summaries of a history, so floor and
ceiling are asked once here; `*_cold` is what one summary costs in production, sampled continuations included.

    --histories N   per domain, 34 without it (204 in all)      --save FILE   the tables as Markdown
"""

import argparse
import asyncio
import itertools
import math
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import bench
import histories
from engine import scoring_engine
from histories import HACKS, QUALITIES, History, Kind, Message
from remembering import Remembering
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ingest.records.events import Trajectory, Turn
from ingest.records.questions import Query
from rewards import evaluate, spec
from rewards.scorers import Outcome, Scored, Services
from rewards.spec import RewardSpec, Scoring
from rewards.summary import material
from rewards.summary.likelihood import Likelihoods
from rewards.summary.sufficiency import Sufficiency, contexts_of

HELD_OUT = ("analysis", "clinic")  # no scorer was tuned on these
COMPONENTS = (
    {"name": "sufficiency", "scorer": "sufficiency", "weight": 1.0, "params": {"num_sampled": 0}},
    {"name": "recall", "scorer": "recall", "weight": 1.0},
    {"name": "faithfulness", "scorer": "faithfulness", "weight": 0.25, "factor": True},
    {"name": "length", "scorer": "length", "weight": 0, "factor": True},
    {"name": "symptoms", "scorer": "symptoms", "weight": 0.5},
)
NAMES = tuple(str(part["name"]) for part in COMPONENTS)
BASELINES = ("rouge_l", "tf_idf")
WORSE = (Kind.EMPTY, Kind.STUFFED, Kind.COPYING, Kind.FLATTERING, Kind.WRONG_VALUE, Kind.OFF_TOPIC)
PAIRS = (
    (Kind.FAITHFUL, Kind.LOSSY),
    *((Kind.FAITHFUL, kind) for kind in WORSE),
    *((Kind.LOSSY, kind) for kind in WORSE),
    (Kind.EMPTY, Kind.WRONG_VALUE),
)
TARGETS = {
    "histories": (">=", 200),
    "accuracy": (">=", 0.95),
    "worst_pair": (">=", 0.85),
    "hacks_below_lossy": (">=", 0.95),
    "worst_hack_below_lossy": (">=", 0.85),
}
HACKED = 10  # histories per domain on which the hacks are tried that are no kind of their own
COLD = 1  # histories per domain asked alone, as production asks

Off = Mapping[tuple[str, ...], Mapping[int, float | None]]
"""Components that are off -> the combined score of each case, by the case's id."""


@dataclass
class Case:
    """One summary of one history. `values` are its scores by component or baseline, none where unscored."""

    history: History
    kind: Kind
    trajectory: Trajectory
    num_tokens: int
    outcomes: dict[evaluate.Key, Outcome] = field(default_factory=dict)
    values: dict[str, float | None] = field(default_factory=dict)

    @property
    def turn(self) -> Turn:
        return histories.summary_turn(self.trajectory)

    @property
    def length(self) -> str:
        return "to 250 tokens" if self.num_tokens < 250 else "to 450 tokens" if self.num_tokens < 450 else "longer"


# -- making and scoring


def tokenizer() -> histories.Tokenizer:
    """SmolLM2's chat template and tokens, as the engine has them."""
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(bench.MODEL)

    @cache
    def of(messages: tuple[tuple[str, str], ...], is_open: bool) -> tuple[int, ...]:
        given = [{"role": role, "content": content} for role, content in messages]
        found = loaded.apply_chat_template(given, add_generation_prompt=is_open, return_dict=False)
        return tuple(
            found if is_open or messages[-1][0] != "assistant" else found[:-1]
        )  # a reply ends before the line does

    def tokens(messages: Sequence[Message], is_open: bool) -> tuple[int, ...]:
        return of(tuple((message["role"], message["content"]) for message in messages), is_open)

    return tokens


def make(per_domain: int, tokens: histories.Tokenizer) -> list[list[Case]]:
    """The cases of every history."""
    drawn = [histories.draw(number, domain) for domain in histories.domains() for number in range(per_domain)]
    made = []
    for history in track(drawn, "writing histories"):
        length = len(tokens(history.messages, False))
        kinds = Kind if history.number < HACKED else QUALITIES
        made.append([Case(history, kind, _record(history, kind, tokens), length) for kind in kinds])
    return made


def _record(history: History, kind: Kind, tokens: histories.Tokenizer) -> Trajectory:
    return histories.record(history, histories.summarise(history, kind), tokens)


async def score(cases: Sequence[Sequence[Case]], scoring: Scoring, likelihoods: Likelihoods) -> None:
    """All components of all cases. A history's questions are asked together."""
    for group in track(cases, "asking the engine"):
        memory = Remembering(likelihoods)
        await memory.score([query for case in group for query in _queries(case)])
        services = Services(memory)
        for case in group:
            asked = evaluate.ask(scoring, case.trajectory)
            case.outcomes = asked.outcomes
            for question in asked.open:
                (case.outcomes[question.key],) = await question.scorer.score_batch(
                    [(case.trajectory, case.turn)], services
                )


def _queries(case: Case) -> Iterator[Query]:
    for cut in material.cuts(case.trajectory, case.turn):
        for prompt in contexts_of(case.trajectory, cut):
            for one in Sufficiency().logged(case.trajectory, cut):
                yield Query(prompt=prompt, token_ids=one.token_ids, spans=one.spans)


async def cold(tokens: histories.Tokenizer, likelihoods: Likelihoods) -> tuple[dict[str, float | None], list[bool]]:
    """What one summary costs with sampled continuations, and whether a faithful one is then over a lossy one."""
    costs, ordered, scorer = [], [], Sufficiency()
    drawn = [histories.draw(500 + number, domain) for domain in histories.domains() for number in range(COLD)]
    for history in track(drawn, "asking as production does"):
        values = []
        for kind in (Kind.FAITHFUL, Kind.LOSSY):
            trajectory, memory = _record(history, kind, tokens), Remembering(likelihoods)
            turn = histories.summary_turn(trajectory)
            (outcome,) = await scorer.score_batch([(trajectory, turn)], Services(memory))
            values.append(outcome.value if isinstance(outcome, Scored) else None)
            if kind is Kind.FAITHFUL:
                costs.append((memory.num_tokens, memory.seconds))
        ordered.append(is_over(*values))
    tokens_cold, seconds_cold = (mean(column) for column in zip(*costs, strict=True))
    return {"engine_tokens_cold": tokens_cold, "seconds_cold": seconds_cold}, ordered


def combine(cases: Sequence[Sequence[Case]], without: Sequence[str] = ()) -> dict[int, float | None]:
    """The reward of each case's summary turn, by the case's id, under the spec without some components."""
    scoring = scoring_of(without)
    found = {}
    for case in itertools.chain(*cases):
        made = evaluate.reward(scoring, case.trajectory, case.outcomes, 0.0)
        found[id(case)] = next(one.value for one in made.turns if one.trace_id == case.turn.trace_id)
    return found


def scoring_of(without: Sequence[str] = ()) -> Scoring:
    kept = [part for part in COMPONENTS if part["name"] not in without]
    return spec.build(RewardSpec.model_validate({"name": "summaries", "components": kept}))


def fill(cases: Sequence[Sequence[Case]]) -> None:
    """Every case's values: components, baselines and the combined score."""
    combined = combine(cases)
    weights = idf([group[0].history.source for group in cases])
    for case in track(list(itertools.chain(*cases)), "comparing with the source"):
        name = case.turn.trace_id
        for component in NAMES:
            outcome = case.outcomes[component, name]
            case.values[component] = outcome.value if isinstance(outcome, Scored) else None
        text = material.text_of(case.turn)
        case.values["rouge_l"] = rouge_l(text, case.history.source)
        case.values["tf_idf"] = cosine(text, case.history.source, weights)
        case.values["combined"] = combined[id(case)]


# -- baselines


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def rouge_l(text: str, source: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004), its length by bit-parallel rows (Hyyrö 2004)."""
    ours, others = words(text), words(source)
    places: dict[str, int] = defaultdict(int)
    for at, word in enumerate(ours):
        places[word] |= 1 << at
    full = row = (1 << len(ours)) - 1
    for word in others:
        hit = row & places.get(word, 0)
        row = ((row + hit) | (row - hit)) & full
    common = len(ours) - row.bit_count()
    return 2.0 * common / (len(ours) + len(others)) if ours and others else 0.0


def idf(texts: Sequence[str]) -> dict[str, float]:
    counts = Counter(word for text in texts for word in set(words(text)))
    return {word: math.log((1 + len(texts)) / (1 + count)) + 1.0 for word, count in counts.items()}


def cosine(text: str, source: str, weights: Mapping[str, float]) -> float:
    one, other = ({w: n * weights.get(w, 1.0) for w, n in Counter(words(part)).items()} for part in (text, source))
    norm = math.sqrt(sum(v * v for v in one.values()) * sum(v * v for v in other.values()))
    return sum(value * other.get(word, 0.0) for word, value in one.items()) / norm if norm else 0.0


# -- figures


def is_over(better: float | None, worse: float | None) -> bool:
    return better is not None and worse is not None and better > worse


def accuracy(cases: Sequence[Sequence[Case]], name: str, pairs: Sequence[tuple[Kind, Kind]] = PAIRS) -> float:
    """Share of pairs that a score has in the right order."""
    right = []
    for group in cases:
        values = {case.kind: case.values[name] for case in group}
        right += [is_over(values[better], values[worse]) for better, worse in pairs]
    return mean(right) if right else math.nan


def below_lossy(cases: Sequence[Sequence[Case]], hack: Kind, values: Mapping[int, float | None]) -> float:
    """Share of histories where a hack is worth less than an honest failure; nothing is worth less, too."""
    found = []
    for group in cases:
        by_kind = {case.kind: values[id(case)] for case in group}
        honest, hacked = by_kind[Kind.LOSSY], by_kind[hack]
        found.append(honest is not None and (hacked is None or hacked < honest))
    return mean(found)


def catchers(cases: Sequence[Sequence[Case]], off: Off, hack: Kind) -> tuple[float, tuple[str, ...]]:
    """The fewest components without which the hack passes for most histories, and how often it is caught then."""
    told = [(len(names), below_lossy(cases, hack, values), names) for names, values in off.items() if names]
    _, share, names = min((one for one in told if one[1] < 0.5), default=(0, math.nan, ()))
    return share, names


def tables(cases: Sequence[Sequence[Case]]) -> tuple[list[Table], dict[str, float | None]]:
    scores = ("combined", *NAMES, *BASELINES)
    by_pair = table("pairs in the right order", "pair", *scores)
    worst = 1.0
    for pair in PAIRS:
        row = {name: accuracy(cases, name, [pair]) for name in scores}
        worst = min(worst, row["combined"])
        by_pair.add_row(f"{pair[0]} > {pair[1]}", *_told(row.values()))
    overall = {name: accuracy(cases, name) for name in scores}
    by_pair.add_row("all", *_told(overall.values()))
    means = table("means", "kind", *scores, "unscored")
    for kind in Kind:
        held = [case for group in cases for case in group if case.kind is kind]
        values = [[case.values[name] for case in held] for name in scores]
        gone = sum(case.values[name] is None for case in held for name in NAMES)
        means.add_row(kind, *_told(_mean(column) for column in values), str(gone))
    parts = table("by domain and length", "part", "histories", "accuracy", "worst pair", *map(str, QUALITIES))
    for label, group in _parts(cases):
        pairs = [accuracy(group, "combined", [pair]) for pair in PAIRS]
        means_of = [_mean([c.values["combined"] for g in group for c in g if c.kind is kind]) for kind in QUALITIES]
        parts.add_row(label, str(len(group)), *_told([accuracy(group, "combined"), min(pairs), *means_of]))
    figures: dict[str, float | None] = {"accuracy": overall["combined"], "worst_pair": worst}
    figures |= {f"accuracy_{name}_alone": overall[name] for name in scores[1:]}
    held = [group for group in cases if group[0].history.domain in HELD_OUT]
    figures["accuracy_held_out"] = accuracy(held, "combined")
    hacked, hack_figures = hacks(cases)
    return [by_pair, means, parts, hacked], figures | hack_figures


def hacks(cases: Sequence[Sequence[Case]]) -> tuple[Table, dict[str, float | None]]:
    hacked = [group for group in cases if len(group) == len(Kind)]
    subsets = [names for size in range(len(NAMES)) for names in itertools.combinations(NAMES, size)]
    subsets = [names for names in subsets if set(NAMES) - set(names) != {"length"}]  # only a factor would be left
    off = {names: combine(hacked, names) for names in track(subsets, "switching components off")}
    found = table(
        "hacks below the honest failure", "hack", "all on", "caught by", "without them", *(f"no {n}" for n in NAMES)
    )
    shares = []
    for hack in HACKS:
        shares.append(below_lossy(hacked, hack, off[()]))
        share, names = catchers(hacked, off, hack)
        single = [below_lossy(hacked, hack, off[(name,)]) for name in NAMES]
        found.add_row(hack, f"{shares[-1]:.2f}", " + ".join(names) or "-", *_told([share, *single]))
    return found, {"hacks_below_lossy": mean(shares), "worst_hack_below_lossy": min(shares)}


def _parts(cases: Sequence[Sequence[Case]]) -> Iterator[tuple[str, list[Sequence[Case]]]]:
    keys: list[Callable[[Case], str]] = [lambda c: c.history.domain, lambda c: c.length]
    for key in keys:
        for label in sorted({key(group[0]) for group in cases}):
            told = f"{label} (held out)" if label in HELD_OUT else label
            yield told, [group for group in cases if key(group[0]) == label]


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return mean(known) if known else math.nan


def _told(values: Iterator[float] | Sequence[float]) -> list[str]:
    return [f"{value:.2f}" for value in values]


def table(title: str, *columns: str) -> Table:
    return Table(*columns, title=f"## {title}\n", title_justify="left", box=box.MARKDOWN)


async def ask_engine(cases: Sequence[Sequence[Case]], tokens: histories.Tokenizer) -> dict[str, float | None]:
    async with scoring_engine(max_model_len=4096) as engine:
        likelihoods = engine.likelihoods()
        try:
            figures, ordered = await cold(tokens, likelihoods)
            begun = time.monotonic()
            await score(cases, scoring_of(), likelihoods)
            seconds = time.monotonic() - begun
        finally:
            await likelihoods.close()
    figures["faithful_over_lossy_sampled"] = mean(ordered)
    return figures | {"seconds_shared": seconds / sum(map(len, cases))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=34, help="per domain")
    parser.add_argument("--save", type=Path, help="write the tables here, as Markdown")
    given = parser.parse_args()
    begun, tokens = time.monotonic(), tokenizer()
    cases = make(given.histories, tokens)
    costs = asyncio.run(ask_engine(cases, tokens))
    fill(cases)
    made, figures = tables(cases)
    figures = {"histories": len(cases), **figures, **costs, "seconds": time.monotonic() - begun}
    console = Console(width=200, record=True)
    for one in made:
        console.print(one)
    if given.save:
        told = "\n".join(line.rstrip() for line in console.export_text().splitlines())
        given.save.write_text(f"# Ordering summaries\n\n`make bench NAME=summary`, {bench.surroundings()}\n\n{told}\n")
    bench.report("summary", figures, TARGETS)


if __name__ == "__main__":
    main()

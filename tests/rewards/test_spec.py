"""The reward spec: read, refused, and evaluated against numbers worked by hand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.errors import ConfigError
from infra.telemetry import Local
from ingest.records.events import Assignment, Feedback, Group, Part, Trajectory, Turn, TurnKind
from rewards import spec
from rewards.evaluate import evaluate
from rewards.scorers import Outcome, Scored, Unscored
from rewards.spec import RewardSpec, Scoring

MakeTurn = Callable[..., Turn]
MakeTrajectory = Callable[..., Trajectory]
MakeThumb = Callable[..., Feedback]

THUMB = {"name": "thumb", "scorer": "feedback", "weight": 3.0}
MORE: list[dict[str, Any]] = [
    {"credit": "chain"},
    {"credit": {"chain": 0.5}},
    {"factor": True},
    {"anneal": {"start": 1, "end": 2}},
    {"anneal": {"start": 1, "end": 3}},
]
SHORT = {"name": "short", "scorer": "reply", "weight": 1.0, "params": {"max_words": 5}}


def scoring(*components: dict[str, Any], **fields: Any) -> Scoring:
    return spec.build(RewardSpec.model_validate({"name": "test", "components": components} | fields))


class Crashing:
    name = "crashing"
    version = "1"

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        raise KeyError("missing")


class Quoting:
    name = "quoting"
    version = "1"

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        return Scored(float("what a user typed"))


class Careless:
    name = "careless"
    version = "1"

    def score(self, trajectory: Trajectory, turn: Turn) -> Any:
        return 0.7


class Excited(Careless):
    def score(self, trajectory: Trajectory, turn: Turn) -> Any:
        return Scored(1.5)


def with_scorer(scorer: Any) -> Scoring:
    """A spec whose only component and only guardrail are this scorer."""
    parsed = RewardSpec.model_validate(
        {
            "name": "test",
            "components": [{"name": "own", "scorer": "x"}],
            "guardrails": [{"name": "guard", "scorer": "y"}],
        }
    )
    return Scoring(parsed, (scorer,), (scorer,), "test@0")


def test_a_turns_reward_is_the_weighted_mean_of_what_scored_it(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_thumb: MakeThumb
) -> None:
    trajectory = make_trajectory(make_turn(0), make_turn(1), feedback=(make_thumb(0.0, "t0"),))
    reward = evaluate(scoring(THUMB, SHORT), trajectory, at=7.0)
    assert [turn.value for turn in reward.turns] == [(3 * 0.5 + 1 * 1.0) / 4, 1.0]
    assert reward.value == (0.625 + 1.0) / 2
    assert (reward.has_signal, reward.at) == (True, 7.0)


def test_silence_has_a_price_for_the_gate_and_none_for_the_trainer(make_trajectory: MakeTrajectory) -> None:
    reward = evaluate(scoring(THUMB, silence=0.3), make_trajectory(), at=0.0)
    assert (reward.value, reward.has_signal) == (0.3, False)
    assert [turn.value for turn in reward.turns] == [None]
    assert [component.unscored for component in reward.components] == ["no feedback"]


def test_a_spec_may_train_silent_turns_without_calling_them_signal(make_trajectory: MakeTrajectory) -> None:
    reward = evaluate(scoring(THUMB, silence=0.3, silent_turns=0.4), make_trajectory(), at=0.0)
    assert [turn.value for turn in reward.turns] == [0.4]
    assert (reward.value, reward.has_signal) == (0.3, False)


def test_a_replay_is_scored_by_what_needs_no_user_and_its_silence_has_no_price(make_trajectory: MakeTrajectory) -> None:
    for given in (
        Assignment(trial=1, replay_of="k-0"),
        Assignment(replay_of="k-0", group=Group(size=2, propensity=0.1)),
    ):
        replay = make_trajectory(assignment=given)
        both = evaluate(scoring(THUMB, SHORT), replay, at=0.0)
        assert [component.unscored for component in both.components] == ["a replay has no user", None]
        assert [(turn.value, turn.alone) for turn in both.turns] == [(1.0, None)]
        assert [turn.value for turn in evaluate(scoring(THUMB, silent_turns=0.4), replay, at=0.0).turns] == [None]


def test_a_turn_alone_in_its_session_tells_what_it_is_worth_without_its_user(
    make_trajectory: MakeTrajectory, make_thumb: MakeThumb
) -> None:
    doubted = THUMB | {"factor": True}
    reward = evaluate(scoring(doubted, SHORT), make_trajectory(feedback=(make_thumb(0.0),)), at=0.0)
    (turn,) = reward.turns
    assert turn.parts == (Part(name="thumb", weight=3.0, value=0.25), Part(name="short", weight=1.0, value=0.5))
    assert turn.alone == (Part(name="short", weight=1.0, value=1.0),)


def test_what_will_not_be_replayed_does_not_tell_what_it_is_worth_alone(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory
) -> None:
    for one in (make_trajectory(make_turn(0, tools="[{}]"), make_turn(1)), make_trajectory(held_out=True)):
        assert {turn.alone for turn in evaluate(scoring(THUMB, SHORT), one, at=0.0).turns} == {None}


def test_of_several_turns_one_tells_what_a_replay_of_it_would_earn_which_is_the_end_of_its_conversation(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_thumb: MakeThumb
) -> None:
    """Whatever credit makes of later turns' scores."""
    long = "one two three four five six"
    for replies in (("two words", "two words", long), (long, long, "two words")):
        turns = [make_turn(n, reply=reply, parent=f"t{n - 1}" if n else None) for n, reply in enumerate(replies)]
        session = make_trajectory(*turns, feedback=(make_thumb(0.0),))
        spec = scoring(THUMB, SHORT | {"credit": "chain"})
        told = [turn for turn in evaluate(spec, session, at=0.0).turns if turn.alone is not None]
        (one,) = [turn for turn in turns if turn.trace_id == told[0].trace_id]
        replay = make_trajectory(one, assignment=Assignment(replay_of="k-0", group=Group(size=2, propensity=0.1)))
        assert len(told) == 1 and one is not turns[-1]
        assert [turn.parts for turn in evaluate(spec, replay, at=0.0).turns] == [told[0].alone]


def test_side_turns_take_no_part(make_turn: MakeTurn, make_trajectory: MakeTrajectory) -> None:
    trajectory = make_trajectory(make_turn(0), make_turn(1, kind=TurnKind.SIDE, reply="one two three four five six"))
    reward = evaluate(scoring(SHORT), trajectory, at=0.0)
    assert ([turn.trace_id for turn in reward.turns], reward.value) == (["t0"], 1.0)


def test_a_summary_is_rewarded_but_does_not_move_the_session(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_thumb: MakeThumb
) -> None:
    turns = (make_turn(0), make_turn(1, kind=TurnKind.SUMMARY))
    feedback = (make_thumb(1.0, "t0"), make_thumb(-1.0, "t1"))
    reward = evaluate(scoring(THUMB), make_trajectory(*turns, feedback=feedback), at=0.0)
    assert ([turn.value for turn in reward.turns], reward.value) == ([1.0, 0.0], 1.0)


@pytest.mark.parametrize("scorer", [Crashing(), Careless(), Excited()], ids=["raises", "returns a float", "above one"])
def test_a_crash_is_unscored_and_never_zero(
    scorer: Any, make_trajectory: MakeTrajectory, caplog: pytest.LogCaptureFixture
) -> None:
    reward = evaluate(with_scorer(scorer), make_trajectory(), at=0.0)
    (component,) = reward.components
    assert component.value is None
    assert component.unscored is not None
    assert component.unscored.startswith("crashed: ")
    assert (reward.value, reward.has_signal, reward.guardrails) == (0.5, False, {})
    assert scorer.name in caplog.text


def test_what_a_crashed_scorer_said_stays_in_this_process(
    make_trajectory: MakeTrajectory, caplog: pytest.LogCaptureFixture
) -> None:
    reward = evaluate(with_scorer(Quoting()), make_trajectory(), at=0.0)
    assert reward.components[0].unscored == "crashed: ValueError"
    assert "what a user typed" in caplog.text
    for record in caplog.records:
        assert not any("typed" in str(one) and not isinstance(one, Local) for one in record.args or ())


def test_guardrails_are_rates_and_never_part_of_the_reward(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_thumb: MakeThumb
) -> None:
    guardrail = {"name": "completed", "scorer": "reply", "params": {"finish_reasons": ["stop"]}}
    turns = (make_turn(0), make_turn(1, finish_reason="abort"), make_turn(2), make_turn(3))
    trajectory = make_trajectory(*turns, feedback=(make_thumb(1.0),))
    guarded = evaluate(scoring(THUMB, guardrails=[guardrail]), trajectory, at=0.0)
    assert guarded.guardrails == {"completed": 0.75}
    assert guarded.value == evaluate(scoring(THUMB), trajectory, at=0.0).value == 1.0
    assert {component.name for component in guarded.components} == {"thumb"}


def test_a_guardrail_that_nothing_could_score_is_missing(make_trajectory: MakeTrajectory) -> None:
    guardrail = {"name": "liked", "scorer": "followup"}
    assert evaluate(scoring(THUMB, guardrails=[guardrail]), make_trajectory(), at=0.0).guardrails == {}


class Told:
    """Scores turns by their numbers in `values`; `kinds` as given."""

    name, version = "told", "1"

    def __init__(self, values: dict[str, float], *kinds: TurnKind) -> None:
        self.values = values
        if kinds:
            self.kinds = frozenset(kinds)

    def score(self, trajectory: Trajectory, turn: Turn) -> Outcome:
        return Scored(self.values[turn.trace_id]) if turn.trace_id in self.values else Unscored("not told")


def telling(*parts: tuple[dict[str, Any], dict[str, float]]) -> Scoring:
    """A spec of components `a`, `b`, ... with these fields, each scoring turns by these numbers."""
    components = [{"name": name, "scorer": "x"} | fields for name, (fields, _) in zip("abc", parts, strict=False)]
    written = RewardSpec.model_validate({"name": "test", "components": components})
    return Scoring(written, tuple(Told(values) for _, values in parts), (), "test@0")


@pytest.fixture
def compacted(make_turn: MakeTurn, make_trajectory: MakeTrajectory) -> Trajectory:
    """t0 - s1 (summary) = t2 - t3; a title beside it."""
    link = {"kind": "compaction", "before": 0, "trace_id": "s1"}
    chains = [
        {"token_ids": (1,), "segments": [segment("t0"), segment("s1")]},
        {"token_ids": (1,), "segments": [segment("t2"), segment("t3")], "link": link},
    ]
    summary = make_turn(1, trace_id="s1", kind=TurnKind.SUMMARY)
    turns = (make_turn(0), summary, make_turn(2), make_turn(3), make_turn(4, kind=TurnKind.SIDE))
    return make_trajectory(*turns, chains=chains)


def segment(name: str) -> dict[str, Any]:
    return {"trace_id": name, "start": 0, "end": 1, "logprobs": (0.0,), "spans": ()}


@pytest.mark.parametrize(
    ("credit", "values"),
    [
        ("turn", [None, None, 0.25, 0.75]),
        ("chain", [0.5, 0.5, 0.5, 0.75]),
        ({"chain": 0.2}, [0.5, 0.5, 0.2 * 0.5 + 0.8 * 0.25, 0.75]),
    ],
)
def test_a_sessions_outcome_reaches_what_the_spec_says(
    credit: Any, values: list[float | None], compacted: Trajectory
) -> None:
    reward = evaluate(telling(({"credit": credit}, {"t2": 0.25, "t3": 0.75})), compacted, at=0.0)
    assert [turn.trace_id for turn in reward.turns] == ["t0", "s1", "t2", "t3"]
    assert [turn.value for turn in reward.turns] == pytest.approx(values)
    assert [component.value for component in reward.components] == [None, None, 0.25, 0.75]


def test_parts_carry_weights_and_values_and_leave_out_what_scored_nothing(compacted: Trajectory) -> None:
    scoring = telling(({"weight": 3.0}, {"t0": 0.5, "t2": 1.0}), ({"weight": 1.0, "credit": "chain"}, {"t2": 0.0}))
    reward = evaluate(scoring, compacted, at=0.0)
    assert {turn.trace_id: (turn.value, turn.parts) for turn in reward.turns} == {
        "t0": (0.375, (Part(name="a", weight=3.0, value=0.5), Part(name="b", weight=1.0, value=0.0))),
        "s1": (0.0, (Part(name="b", weight=1.0, value=0.0),)),
        "t2": (0.75, (Part(name="a", weight=3.0, value=1.0), Part(name="b", weight=1.0, value=0.0))),
        "t3": (None, ()),
    }


def test_a_factor_multiplies_every_part_of_its_turn_after_credit(compacted: Trajectory) -> None:
    outcome = ({"credit": "chain"}, {"t3": 0.8})
    faithful = ({"weight": 0.5, "factor": True}, {"s1": 0.25})
    brief = ({"weight": 0, "factor": True}, {"s1": 0.5, "t0": 1.0})
    reward = evaluate(telling(outcome, faithful, brief), compacted, at=0.0)
    parts = {turn.trace_id: {part.name: part.value for part in turn.parts} for turn in reward.turns}
    both = pytest.approx({"a": 0.8 * 0.25 * 0.5, "b": 0.25 * 0.25 * 0.5})
    assert parts == {"t0": {"a": 0.8}, "s1": both, "t2": {"a": 0.8}, "t3": {"a": 0.8}}
    assert reward.turns[1].value == pytest.approx((0.1 + 0.5 * 0.03125) / 1.5)


def test_a_hack_that_a_factor_catches_is_worth_less_than_an_honest_failure(compacted: Trajectory) -> None:
    """The hack's session succeeds, the honest one's fails."""
    quality = ({"weight": 1.0}, {"s1": 0.9})
    hack = telling(({"credit": "chain"}, {"t3": 1.0}), quality, ({"weight": 0, "factor": True}, {"s1": 0.05}))
    honest = telling(({"credit": "chain"}, {"t3": 0.0}), quality, ({"weight": 0, "factor": True}, {"s1": 1.0}))
    caught, failed = (evaluate(scoring, compacted, at=0.0).turns[1].value for scoring in (hack, honest))
    assert (caught, failed) == pytest.approx((0.0475, 0.45))


@pytest.mark.parametrize(
    ("versions", "weights"),
    [
        ((3,), {"a": 1.0, "b": 2.0}),
        ((0, 5), {"a": 1.0, "b": 1.0}),
        ((6,), {"a": 1.0, "b": 0.5}),
        ((7,), {"a": 1.0}),
        ((9, 2), {"a": 1.0}),
        ((), {"a": 1.0, "b": 2.0}),
    ],
)
def test_a_shaping_terms_weight_anneals_to_nothing_at_all(
    versions: tuple[int, ...], weights: dict[str, float], make_turn: MakeTurn, make_trajectory: MakeTrajectory
) -> None:
    scoring = telling(({}, {"t0": 1.0}), ({"weight": 2.0, "anneal": {"start": 3, "end": 7}}, {"t0": 0.0}))
    (turn,) = evaluate(scoring, make_trajectory(make_turn(0, versions=versions)), at=0.0).turns
    assert {part.name: part.weight for part in turn.parts} == weights
    assert turn.value == pytest.approx(1.0 / sum(weights.values()))


@pytest.mark.parametrize(("version", "value"), [(3, 0.2), (5, 0.6), (7, 1.0)])
def test_a_factors_strength_anneals(
    version: int, value: float, make_turn: MakeTurn, make_trajectory: MakeTrajectory
) -> None:
    fading = {"weight": 0, "factor": True, "anneal": {"start": 3, "end": 7}}
    scoring = telling(({}, {"t0": 1.0}), (fading, {"t0": 0.2}))
    (turn,) = evaluate(scoring, make_trajectory(make_turn(0, versions=(version,))), at=0.0).turns
    assert turn.value == pytest.approx(value)


def test_a_turn_whose_only_part_has_annealed_away_is_silent(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory
) -> None:
    scoring = telling(({"anneal": {"start": 0, "end": 1}}, {"t0": 1.0}))
    reward = evaluate(scoring, make_trajectory(make_turn(0, versions=(1,))), at=0.0)
    assert (reward.turns[0].value, reward.value, reward.has_signal) == (None, 0.5, False)
    assert reward.components[0].value == 1.0


def test_a_scorer_is_asked_about_its_kinds_of_turns_alone(compacted: Trajectory) -> None:
    everything = {turn.trace_id: 1.0 for turn in compacted.turns}
    one, all_kinds = telling(({}, everything)), telling(({}, everything))
    one.components[0].kinds = frozenset({TurnKind.SUMMARY})
    assert [component.trace_id for component in evaluate(one, compacted, at=0.0).components] == ["s1"]
    assert [c.trace_id for c in evaluate(all_kinds, compacted, at=0.0).components] == ["t0", "s1", "t2", "t3"]


OWN = """
from typing import ClassVar
from ingest.records.events import TurnKind
from rewards.scorers import Cost, Scored

class Plain:
    name, version = "plain", "1"
    def score(self, trajectory, turn):
        return Scored(1.0)

class Summaries(Plain):
    kinds = frozenset({TurnKind.SUMMARY})

class Sides(Plain):
    kinds = frozenset({TurnKind.SIDE})

class Waits:
    name, version, cost = "waits", "1", Cost(timeout_s=1.0, window_s=1.0)
    def applies(self, trajectory, turn):
        return None
    async def score_batch(self, batch, services):
        return []

class Priceless(Waits):
    cost = 3
"""


@pytest.fixture
def own(tmp_path: Path) -> str:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    return str(file)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Sides", "`kinds` must be a frozenset of main, summary"),
        ("Priceless", r"`cost` must be a rewards\.scorers\.Cost"),
    ],
)
def test_a_scorer_that_cannot_be_asked_is_refused(own: str, name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        scoring({"name": "a", "scorer": f"{own}:{name}"})


@pytest.mark.parametrize(
    ("name", "told"), [("Waits", "'guard': must be told at once"), ("Summaries", "'guard': must score main turns")]
)
def test_a_guardrail_is_told_at_once_and_about_main_turns(own: str, name: str, told: str) -> None:
    assert scoring({"name": "a", "scorer": f"{own}:{name}"})
    with pytest.raises(ConfigError, match=told):
        scoring(THUMB, guardrails=[{"name": "guard", "scorer": f"{own}:{name}"}])


def test_the_id_changes_with_the_kinds_of_turns_a_scorer_is_about(own: str) -> None:
    ids = set()
    for scorer in ("Plain", "Summaries"):
        Path(own).write_text(f"{OWN}\nOwn = {scorer}\n")
        ids.add(scoring({"name": "a", "scorer": f"{own}:Own"}).id)
    assert len(ids) == 2


@pytest.mark.parametrize(
    "guardrail",
    [
        {"scorer": "reply", "params": {"max_words": 5}},
        {"scorer": "rewards.scorers:ReplyRule", "params": {"max_words": 5}},
        {"scorer": "reply", "params": {"max_words": 5, "min_words": None}},
    ],
    ids=["the same", "by another name", "defaults written out"],
)
def test_a_guardrail_that_is_in_the_reward_is_refused(guardrail: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"'guard'.*'short'"):
        scoring(THUMB, SHORT, guardrails=[{"name": "guard"} | guardrail])


def test_the_id_changes_with_anything_that_scores(make_trajectory: MakeTrajectory) -> None:
    ids = {scoring(THUMB).id, scoring(SHORT).id, scoring(THUMB, silence=0.4).id, scoring({**THUMB, "weight": 2.0}).id}
    ids |= {scoring({**THUMB, **more}).id for more in MORE}
    assert len(ids) == 4 + len(MORE)
    assert scoring(THUMB).id == scoring(THUMB).id
    rewards = {evaluate(scoring(THUMB), make_trajectory(), at=at).reward_id for at in (0.0, 1.0)}
    rewards |= {evaluate(scoring(SHORT), make_trajectory(), at=0.0).reward_id}
    assert len(rewards) == 2
    name, _, digest = scoring(THUMB).id.partition("@")
    assert (name, len(digest)) == ("test", 12)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("components: [", "not readable as YAML"),
        ("name: x\ncomponents: []", "components"),
        ("name: x\ncomponents: [{name: a, scorer: feedback}]\nsilense: 0.5", "silense"),
        ("name: x\ncomponents: [{name: a, scorer: feedback, weight: 0}]", "weight"),
        ("name: x\ncomponents: [{name: a, scorer: feedback}, {name: a, scorer: followup}]", "must differ"),
        ("name: x\ncomponents: [{name: a, scorer: nobody}]", "nobody"),
        ("just text", "reward spec"),
        ("name: x\ncomponents: [{name: a, scorer: feedback, credit: all}]", "`turn`, `chain`, or .*, got 'all'"),
        (
            "name: x\ncomponents: [{name: a, scorer: feedback, credit: {chain: 1}}]",
            r"between 0 and 1, got \{'chain': 1",
        ),
        ("name: x\ncomponents: [{name: a, scorer: feedback, anneal: {start: 3, end: 3}}]", "later version than .* 3"),
        ("name: x\ncomponents: [{name: a, scorer: feedback, factor: true, weight: 0}]", "weight above 0"),
        ("name: x\ncomponents: [{name: a, scorer: feedback, weight: .inf}]", "weight"),
        (
            "name: x\ncomponents: [{name: a, scorer: feedback, credits: chain}]",
            r"components\.0\.credits: unknown key; did you mean `credit`\?",
        ),
        (
            "name: x\ncomponents: [{name: a, scorer: feedback, params: {names: outcome}}]",
            "names: Input should be a valid list, got 'outcome'",
        ),
    ],
)
def test_a_spec_that_cannot_be_used_is_refused_by_file_and_name(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=told) as refused:
        spec.load(str(file))
    assert str(file) in str(refused.value)


def test_a_missing_spec_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        spec.load(str(tmp_path / "none.yaml"))


def test_the_shipped_default_scores_thumbs_and_next_words(
    make_turn: MakeTurn, make_trajectory: MakeTrajectory, make_thumb: MakeThumb
) -> None:
    default = spec.load("")
    turns = (make_turn(0), make_turn(1, followup="thanks"), make_turn(2, reply="", finish_reason="abort"))
    reward = evaluate(default, make_trajectory(*turns, feedback=(make_thumb(-1.0, "t0"),)), at=0.0)
    assert [turn.value for turn in reward.turns] == [0.0, 1.0, None]
    assert reward.guardrails == pytest.approx(
        {"completed": 2 / 3, "substance": 2 / 3, "tools": 1, "refusals": 1, "questions": 1} | {"brevity": 500 / 505}
    )


def test_a_session_without_summaries_hears_nothing_of_their_scorers(make_trajectory: MakeTrajectory) -> None:
    components = evaluate(spec.load(""), make_trajectory(), at=0.0).components
    assert [component.name for component in components] == ["thumb", "followup", "outcome"]


def test_the_shipped_default_gives_an_outcome_to_all_that_led_to_it(
    compacted: Trajectory, make_thumb: MakeThumb
) -> None:
    failed = compacted.model_copy(update={"feedback": (make_thumb(-1.0, "t3", "outcome"),)})
    turns = evaluate(spec.load(""), failed, at=0.0).turns
    heard = {turn.trace_id: {part.name for part in turn.parts} & {"thumb", "outcome"} for turn in turns}
    assert heard == {"t0": {"outcome"}, "s1": {"outcome"}, "t2": {"outcome"}, "t3": {"outcome"}}


def test_a_spec_that_rewards_what_a_shipped_guardrail_rates_goes_without_it(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("{name: own, components: [{name: short, scorer: brevity, params: {half_tokens: 500}}]}")
    written_out = [part.name for part in spec.load(str(path)).spec.guardrails]
    path.write_text("{name: own, components: [{name: short, scorer: brevity}]}")
    assert [part.name for part in spec.load(str(path)).spec.guardrails] == written_out
    assert "brevity" not in written_out and "latency" in written_out

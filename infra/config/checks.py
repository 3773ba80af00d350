"""The checks before users meet a candidate: offline suites, and replays of held-out prompts."""

from pydantic import Field

from infra.config.base import AnyShare, Seconds, Section


class JudgeConfig(Section):
    """The model that scores judged tasks: any endpoint that speaks OpenAI's chat completions."""

    url: str = Field(min_length=1, description="up to and with `/v1`")
    model: str = Field(min_length=1)
    key_var: str = Field("", description="the environment variable that holds its API key; empty: it asks for none")


class SuitesConfig(Section):
    """Tasks that the candidate is asked before users meet it: see docs/suites.md."""

    files: tuple[str, ...] = Field(
        ("sanity", "basics"), description="shipped suites by name, and paths of others; empty: no suites"
    )
    margin: AnyShare = Field(0.2, description="of a suite's score: who loses this much against stable is rejected")
    alpha: float = Field(0.05, gt=0.0, lt=0.5, description="chance that as good a candidate is called worse, per suite")
    judge: JudgeConfig | None = None
    concurrency: int = Field(2, ge=1, le=64, description="tasks asked at a time: users are served by stable meanwhile")
    timeout_s: Seconds = Field(600.0, description="for all suites together; then they could not run")


class ReplayConfig(Section):
    """Recent prompts of held-out sessions, asked again of candidate and stable: see docs/suites.md."""

    max_prompts: int = Field(200, ge=0, description="0: nothing is replayed")
    max_per_user: int = Field(2, ge=1, description="prompts of one user, each of another session")
    lookback: int = Field(5_000, ge=1, description="newest trajectories that are searched for held-out ones")
    max_tokens: int = Field(256, ge=1, description="of a reply; less where the request asked for less")
    margin: AnyShare = Field(0.05, description="worse by this or more, in reward or any guardrail, is not passed")
    left_out: tuple[str, ...] = Field(
        ("latency",),
        description="guardrails not judged here: stable's engines are busy with users, the candidate's idle",
    )
    alpha: float = Field(0.05, gt=0.0, lt=0.5)
    concurrency: int = Field(2, ge=1, le=64, description="pairs asked at a time: users are served by stable meanwhile")
    timeout_s: Seconds = Field(900.0, description="from the first question to the last reward; then it could not run")
    required: bool = Field(False, description="a candidate that replays showed neither worse nor as good is not passed")

import pytest

from ingest.events import Release, ReleaseKind, TrialState
from trainer.releases import Releases, Verdict


def fold(*steps: tuple[int, ReleaseKind, int, int | None, TrialState | None]) -> Releases:
    """Steps are (epoch, kind, stable, candidate, state)."""
    view = Releases()
    for number, (epoch, kind, stable, candidate, state) in enumerate(steps):
        view = view.fold(
            Release(
                release=number,
                epoch=epoch,
                kind=kind,
                stable=stable,
                candidate=candidate,
                state=state,
                reason="",
                at=0.0,
            )
        )
    return view


BOOT = (1, ReleaseKind.BOOTSTRAP, 0, None, None)


def trial(
    state: TrialState, candidate: int = 1, stable: int = 0, epoch: int = 1
) -> tuple[int, ReleaseKind, int, int, TrialState]:
    return (epoch, ReleaseKind.TRIAL, stable, candidate, state)


def test_nothing_is_stable_before_a_bootstrap() -> None:
    assert fold((1, ReleaseKind.CLAIM, 0, None, None)).stable is None


@pytest.mark.parametrize("state", [TrialState.REJECTED, TrialState.ROLLED_BACK, TrialState.EXPIRED])
def test_every_end_but_promotion_is_a_rejection(state: TrialState) -> None:
    view = fold(BOOT, trial(TrialState.EVALUATING), trial(state))
    assert view.verdict(1) is Verdict.REJECTED and view.stable == 0 and view.on_trial is None


@pytest.mark.parametrize("state", [TrialState.PUBLISHED, TrialState.EVALUATING, TrialState.CANARY])
def test_a_trial_that_goes_on_is_undecided(state: TrialState) -> None:
    view = fold(BOOT, trial(state))
    assert view.verdict(1) is Verdict.UNDECIDED and view.on_trial == 1


def test_a_version_no_release_names_is_undecided() -> None:
    assert fold(BOOT).verdict(1) is Verdict.UNDECIDED


def test_a_promotion_extends_the_lineage() -> None:
    view = fold(BOOT, trial(TrialState.PROMOTED, 2, stable=2), trial(TrialState.PROMOTED, 3, stable=3))
    assert view.lineage == (0, 2, 3) and [view.age(v) for v in (0, 2, 3, 1)] == [2, 1, 0, None]
    assert view.verdict(2) is Verdict.PROMOTED


def test_a_rollback_takes_the_version_out_of_the_lineage() -> None:
    view = fold(BOOT, trial(TrialState.PROMOTED, 1, stable=1), trial(TrialState.ROLLED_BACK, 1, stable=0))
    assert view.stable == 0 and view.verdict(1) is Verdict.REJECTED


def test_a_fenced_writers_release_changes_nothing() -> None:
    view = fold(BOOT, (2, ReleaseKind.CLAIM, 0, None, None), trial(TrialState.PROMOTED, 1, stable=1, epoch=1))
    assert view.stable == 0 and view.verdict(1) is Verdict.UNDECIDED


def test_a_release_read_twice_changes_nothing() -> None:
    boot = Release(release=0, epoch=1, kind=ReleaseKind.BOOTSTRAP, stable=0, reason="", at=0.0)
    promoted = Release(
        release=1, epoch=1, kind=ReleaseKind.TRIAL, stable=1, candidate=1, state=TrialState.PROMOTED, reason="", at=0.0
    )
    view = Releases().fold(boot).fold(promoted)
    assert view.fold(boot) == view


def test_an_announcement_changes_nothing_served() -> None:
    assert fold(BOOT, (1, ReleaseKind.ANNOUNCED, 7, None, None)).stable == 0

"""`python -m ingest`: which stage runs."""

from pathlib import Path

import pytest

from ingest import __main__ as program


@pytest.mark.parametrize(("role", "stage"), [([], "run"), (["sessions"], "run"), (["lake"], "run_lake")])
def test_a_role_runs_its_stage_and_none_closes_sessions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: list[str], stage: str
) -> None:
    ran: list[str] = []
    for name in ("run", "run_lake"):
        monkeypatch.setattr(program, name, lambda _config, name=name: ran.append(name))
    config = tmp_path / "onstream.yaml"
    config.write_text("model: {path: none}\n")
    assert program.main([*role, "--config", str(config)]) == 0
    assert ran == [stage]


def test_a_role_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["river"])
    assert "invalid choice: 'river'" in capsys.readouterr().err

"""The master secret is one, is whole, is nobody else's to read, and never in a message."""

import multiprocessing
import stat
from pathlib import Path

import pytest
from key_work import load_secret

from infra.config import Config, PrivacyConfig
from infra.errors import ConfigError
from ingest.privacy.secret import Secret, check, load

WORD, OTHER = "a1" * 32, "b2" * 32


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        Secret.parse(text, "somewhere")
    return str(raised.value)


@pytest.mark.parametrize("text", ["", " \n", "c3" * 31, "c3" * 33, "c3" * 31 + "zz", f"{WORD}\nc3c3", "пароль" * 11])
def test_a_secret_of_another_form_is_refused_and_not_repeated(text: str) -> None:
    message = refusal(text)
    assert message.startswith("somewhere: must hold a line, or lines, of 64 hex digits")
    assert not any(word[:4] in message for word in text.split())


def test_no_sub_key_is_another_or_the_secret_itself() -> None:
    secret = Secret.parse(f"{WORD}\n{OTHER}\n{WORD}", "test")
    keys = [secret.pseudonyms, secret.placeholders, *secret.wrapping, bytes.fromhex(WORD), bytes.fromhex(OTHER)]
    assert len({key.hex() for key in keys}) == len(keys)
    assert not any(key.hex().startswith(secret.fingerprint) for key in keys)


def test_a_new_wrapping_line_changes_no_name() -> None:
    before, after = Secret.parse(f"{WORD}\n{WORD}", "test"), Secret.parse(f"{WORD}\n{OTHER}\n{WORD}", "test")
    assert (after.pseudonyms, after.placeholders, after.fingerprint) == (
        before.pseudonyms,
        before.placeholders,
        before.fingerprint,
    )
    assert after.wrapping[1:] == before.wrapping


def test_a_secret_is_not_in_its_repr() -> None:
    secret = Secret.parse(WORD, "test")
    assert repr(secret) == f"Secret(fingerprint='{secret.fingerprint}')"


def test_a_secret_of_this_machine_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    made = load(PrivacyConfig(), str(run_dir))
    (file,) = run_dir.iterdir()
    assert (file.name, stat.S_IMODE(file.stat().st_mode)) == ("secret", 0o600)
    assert load(PrivacyConfig(), str(run_dir)) == made
    assert len(file.read_text().split()) == 2


def test_processes_that_make_it_at_once_have_the_same(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier, found = spawn.Barrier(4), spawn.Queue()
    running = [spawn.Process(target=load_secret, args=(str(tmp_path / "run"), barrier, found)) for _ in range(4)]
    for process in running:
        process.start()
    fingerprints = {found.get(timeout=60) for _ in running}
    for process in running:
        process.join()
    assert len(fingerprints) == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["secret"]


def test_a_file_that_was_named_is_never_made(tmp_path: Path) -> None:
    named = tmp_path / "mounted"
    with pytest.raises(ConfigError, match=r"privacy.secret_file: .*mounted: not readable: No such file"):
        load(PrivacyConfig(secret_file=str(named)), str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    named.write_text(WORD)
    assert load(PrivacyConfig(secret_file=str(named)), str(tmp_path)) == Secret.parse(WORD, "test")


def test_a_file_that_is_not_text_is_refused_without_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"\xff\xfeprivate")
    with pytest.raises(ConfigError, match="got bytes that are not text") as raised:
        load(PrivacyConfig(), str(tmp_path))
    assert "private" not in str(raised.value) and raised.value.__cause__ is None


def test_a_variable_that_was_named_must_be_set(tmp_path: Path) -> None:
    config = PrivacyConfig(secret_env="THE_SECRET")
    with pytest.raises(ConfigError, match=r"privacy.secret_env: environment variable THE_SECRET is not set"):
        load(config, str(tmp_path), {})
    assert load(config, str(tmp_path), {"THE_SECRET": WORD}) == Secret.parse(WORD, "test")


def test_two_sources_of_a_secret_are_refused() -> None:
    with pytest.raises(ValueError, match="got both"):
        PrivacyConfig(secret_file="x", secret_env="Y")


def test_keys_that_machines_share_need_a_secret_that_they_share(tmp_path: Path) -> None:
    def checked(**privacy: str) -> None:
        check(Config.model_validate({"run_dir": str(tmp_path), "model": {"path": "none"}, "privacy": privacy}))

    with pytest.raises(ConfigError, match=r"must be given where keys are shared, at s3://bucket/keys"):
        checked(keys_url="s3://bucket/keys")
    with pytest.raises(ConfigError, match=r"privacy\.secret_file: .*: not readable"):
        checked(keys_url="s3://bucket/keys", secret_file=str(tmp_path / "none"))
    (tmp_path / "given").write_text("0f" * 32)
    checked(keys_url="s3://bucket/keys", secret_file=str(tmp_path / "given"))
    checked()
    assert not (tmp_path / "secret").exists(), "a check makes nothing"

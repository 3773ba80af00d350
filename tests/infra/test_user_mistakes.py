"""What a person's mistake looks like at the command line: one message that names it, and no stack trace."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ports import free_port, free_ports


def onstream(*args: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("ONSTREAM_")}
    env["ONSTREAM__TRAINER__PORT"] = str(free_port())
    command = [sys.executable, "-m", "infra.cli", *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env)


def configuration(folder: Path, extra: str = "") -> str:
    ports = free_ports(7)
    path = folder / "onstream.yaml"
    path.write_text(
        f"""
run_dir: {folder}
model: {{path: {folder}/nothing-here}}
log: {{brokers: "127.0.0.1:{ports[0]}", timeout_s: 2}}
serving:
  engines:
    - {{id: a, arm: stable, port: {ports[1]}, control_port: {ports[2]}}}
    - {{id: b, arm: candidate, port: {ports[3]}, control_port: {ports[4]}}}
  router: {{port: {ports[5]}}}
  rollout: {{port: {ports[6]}}}
{extra}
"""
    )
    return str(path)


def model(folder: Path) -> None:
    """A folder that looks like a model, where `configuration` says it is."""
    path = folder / "nothing-here"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"")


def assert_told(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr


def test_an_unknown_key_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    path = configuration(tmp_path, "trainer: {lrr: 0.1}")
    assert_told(onstream("up", "-c", path), "trainer.lrr: unknown key; did you mean `lr`?")


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    assert_told(onstream("up", "-c", str(tmp_path / "none.yaml")), "none.yaml: no such file")


def test_a_missing_model_is_named_and_nothing_is_left_running(tmp_path: Path) -> None:
    path = configuration(tmp_path)
    done = onstream("up", "-c", path)
    assert_told(done, "model.path:", "nothing-here must be a folder with config.json and *.safetensors")
    again = onstream("up", "-c", path)
    assert_told(again, "model.path:")  # and not: a port is taken


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    path = configuration(tmp_path)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        text = Path(path).read_text().replace("rollout: {port:", f"rollout: {{port: {held.getsockname()[1]} #")
        Path(path).write_text(text.replace(" #", "}\n#"))
        assert_told(onstream("up", "-c", path), "serving.rollout.port: port", "is taken")


@pytest.mark.parametrize("command", ["bootstrap", "audit"])
def test_an_unreachable_broker_is_named_with_how_long_was_waited(tmp_path: Path, command: str) -> None:
    path = configuration(tmp_path)
    Path(path).write_text(Path(path).read_text().replace("timeout_s: 2", "timeout_s: 2, local: false"))
    model(tmp_path)
    assert_told(onstream(command, "-c", path), "no broker answers at 127.0.0.1:", "waited 2 s")


def test_a_local_broker_that_does_not_run_is_not_waited_for(tmp_path: Path) -> None:
    path = configuration(tmp_path)
    assert_told(onstream("audit", "-c", path), "no broker answers at 127.0.0.1:", "`onstream up` starts it")
    shown = onstream("status", "-c", path)
    assert "`onstream up` starts it" in " ".join(shown.stdout.split())


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("spec: nowhere.yaml", "/nowhere.yaml: no such file"),
        ("spec: spec.yaml", "'completed' must be a guardrail of the reward spec 'bare', which has"),
    ],
)
def test_a_reward_spec_that_cannot_do_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    rewarded = "{name: end, scorer: reply, params: {finish_reasons: [stop, length, tool_calls]}}"
    (tmp_path / "spec.yaml").write_text(f"{{name: bare, components: [{rewarded}]}}")
    path = configuration(tmp_path, f"rewards: {{{spec}}}")
    done = onstream("up", "-c", path)
    assert_told(done, "model.path:", told)  # every fault at once
    assert "broker" not in done.stdout
    assert onstream("check", "-c", path).stderr == done.stderr


def test_a_configuration_that_can_be_used_says_so(tmp_path: Path) -> None:
    model(tmp_path)
    done = onstream("check", "-c", configuration(tmp_path))
    assert (done.returncode, "can be used" in done.stdout) == (0, True)


def test_help_lists_the_commands() -> None:
    done = onstream("--help")
    assert done.returncode == 0
    assert {"audit", "status", "up", "versions"} <= set(re.findall(r"\w+", done.stdout))

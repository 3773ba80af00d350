import resource
import subprocess
import sys
from pathlib import Path


def trainer(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "trainer", *arguments], capture_output=True, text=True, timeout=60)


def test_help_imports_neither_torch_nor_ray() -> None:
    code = (
        "import sys, trainer.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_takes_less_than_a_second_of_computing() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert trainer("--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_a_mistake_in_the_configuration_is_one_message_and_no_stack_trace(tmp_path: Path) -> None:
    done = trainer("--config", str(tmp_path / "missing.yaml"))
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1 and "no such file" in done.stderr


def test_a_folder_that_is_no_model_is_one_message_and_no_stack_trace(tmp_path: Path) -> None:
    (tmp_path / "onstream.yaml").write_text(f"model: {{path: {tmp_path}}}\n")
    done = trainer("--config", str(tmp_path / "onstream.yaml"))
    assert done.returncode == 1 and "Traceback" not in done.stderr and "config.json" in done.stderr

"""What can be known of images without building them: the file lints, copies what is there, and resolves as pinned."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text().replace("${ACCELERATOR}", "cpu")
STAGES = ("engine", "router", "rollout", "ingest", "lake", "rewards", "trainer")
EXTRAS = {
    "cpu": (("stores",), ("stores", "trainer"), ("stores", "engine-cpu"), ("cpu", "demo")),
    "gpu": (("stores",), ("stores", "trainer"), ("stores", "engine-gpu")),
}
HEAVY = ("torch", "vllm", "ray", "transformers", "safetensors")


def pins(accelerator: str) -> dict[str, str]:
    lines = (ROOT / "images" / f"constraints-{accelerator}.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines)


def targets(text: str = TEXT) -> dict[str, str]:
    """Target -> what it begins from."""
    return {name: parent for parent, name in re.findall(r"^FROM (\S+) AS (\S+)$", text, re.MULTILINE)}


def test_the_file_lints() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([str(linter), str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("stage", [*STAGES, "demo"])
def test_there_is_a_target_for_every_stage_and_it_is_not_root(stage: str) -> None:
    while (parent := targets()[stage]) in targets():
        stage = parent
    assert stage == "runtime"
    for block in TEXT.split("FROM ")[1:]:
        users = re.findall(r"^USER (\S+)$", block, re.MULTILINE)
        assert users[-1:] == ["10001:10001"] or (not users and not block.startswith("python:${PYTHON} AS runtime"))


@pytest.mark.parametrize("stage", ["engine", "trainer"])
def test_what_compiles_kernels_on_a_gpu_has_a_compiler(stage: str) -> None:
    parents = targets((ROOT / "Dockerfile").read_text().replace("${ACCELERATOR}", "gpu"))
    found = []
    while stage in parents:
        found.append(stage)
        stage = parents[stage]
    blocks = {block.partition("\n")[0].split()[-1]: block for block in TEXT.split("\nFROM ")[1:]}
    assert any("install --yes --no-install-recommends gcc" in blocks[name] for name in found)


def test_every_file_that_is_copied_is_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", TEXT, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists(), source
            assert f"!{source.rstrip('/')}" in ignored, source


def test_every_package_of_ours_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for package in project["tool"]["setuptools"]["packages"]:
        assert f"COPY {package.partition('.')[0]}/ " in TEXT, package


def test_every_folder_with_modules_of_ours_is_a_package_that_is_installed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    tops = ("infra", "ingest", "rewards", "serving", "trainer")
    found = {path.parent.relative_to(ROOT).as_posix() for top in tops for path in (ROOT / top).rglob("__init__.py")}
    assert set(project["tool"]["setuptools"]["packages"]) == {name.replace("/", ".") for name in found}


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_constraints_are_names_and_versions_and_nothing_else(accelerator: str) -> None:
    lines = (ROOT / "images" / f"constraints-{accelerator}.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)


@pytest.mark.parametrize(
    ("accelerator", "extras"), [(accelerator, extras) for accelerator, sets in EXTRAS.items() for extras in sets]
)
def test_each_environment_resolves_to_what_is_pinned_for_it(accelerator: str, extras: tuple[str, ...]) -> None:
    resolved = dict(line.split("==") for line in resolve(accelerator, extras))
    pinned = {canonicalize_name(name): version for name, version in pins(accelerator).items()}
    assert resolved
    assert {name: pinned.get(canonicalize_name(name)) for name in resolved} == resolved


def resolve(accelerator: str, extras: Iterable[str]) -> list[str]:
    """What uv would install, from metadata alone."""
    wheels = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS")
    environ = {name: value for name, value in os.environ.items() if name != "UV_FIND_LINKS"}
    backend: list[str] = []
    if accelerator == "cpu":
        environ, backend = (
            (environ | {"UV_FIND_LINKS": wheels}, []) if wheels else (environ, ["--torch-backend", "cpu"])
        )
    command = ["uv", "pip", "compile", "--quiet", "--python-version", "3.11", "--no-annotate", "--no-header", *backend]
    command += ["--python-platform", "x86_64-manylinux_2_28", "--override", "overrides.txt"]
    command += ["--constraint", f"images/constraints-{accelerator}.txt"]
    command += [part for extra in extras for part in ("--extra", extra)]
    done = subprocess.run(
        [*command, "pyproject.toml"], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("accelerator", ["cpu", "gpu"])
def test_pins_meet_what_the_project_asks_for(accelerator: str) -> None:
    pinned = {canonicalize_name(name): version for name, version in pins(accelerator).items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"][f"engine-{accelerator}"]]
    for text in [*asked, *project["optional-dependencies"]["trainer"]]:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), text


@pytest.mark.parametrize("package", ["serving", "ingest", "rewards"])
def test_stages_without_a_model_need_no_library_of_those_with_one(package: str) -> None:
    """Their images do not have them. What a stage runs is imported in its `__main__`."""
    parsed = ast.parse((ROOT / package / "__main__.py").read_text())
    found = [node for node in ast.walk(parsed) if isinstance(node, ast.ImportFrom) and node.module]
    modules = {f"{node.module}.{name.name}" for node in found for name in node.names} - {"serving.engine.process"}
    program = (
        "import importlib, importlib.util, sys\n"
        f"for name in {HEAVY!r}: sys.modules[name] = None\n"  # importing it fails, as where it is not installed
        f"for name in {sorted(modules)!r}:\n"
        "    parent, _, leaf = name.rpartition('.')\n"
        "    if not hasattr(importlib.import_module(parent), leaf): importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

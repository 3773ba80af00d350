"""Lakes on a local disk, sealed under keys that a test can erase, and the command on them."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from intakes import SECRET

from ingest.lake.batch import Batch
from ingest.lake.content import Vault
from ingest.lake.manifest import Change
from ingest.lake.rows import rows_of
from ingest.lake.sealing import Keys
from ingest.lake.storage import Storage
from ingest.lake.table import Lake
from ingest.privacy.keys import KeyStore
from ingest.records.events import Record
from rewards.backtest import command


@dataclass
class World:
    """A run's folder with a lake, its configuration, and specs by their names."""

    root: Path

    def __post_init__(self) -> None:
        self.keys = KeyStore(str(self.root / "keys"), SECRET)
        self._lake, self._offset = Lake(Storage(str(self.root / "lake"))), 0
        (self.root / "secret").write_text("0f" * 32)
        (self.root / "secret").chmod(0o600)
        self.config = self.root / "onstream.yaml"
        self.config.write_text(
            f"run_dir: {self.root}\nmodel: {{path: /none}}\nprivacy: {{keys_url: {self.root / 'keys'}}}\n"
        )

    def put(self, *records: Record, user: str = "") -> None:
        """A commit of some records, sealed for a user where one is named."""
        batch, vault = Batch(), Vault(Keys(self.keys))
        subject = self.keys.key_for(user).name if user else ""
        for record in records:
            batch.add(tuple(rows_of(record, 0, self._offset, vault, subject)))
            self._offset += 1
        assert self._lake.commit(Change(batch.write(self._lake))) is not None

    def spec(self, name: str, *components: object, **fields: object) -> str:
        path = self.root / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name, "components": list(components)} | fields))
        return str(path)

    def backtest(self, *argv: str) -> int:
        return command.main(["backtest", *argv, "--config", str(self.config)])


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)

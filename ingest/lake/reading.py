"""The lake as a reader sees it: one snapshot, each thing once, as it was told last."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence

import polars as pl
from polars.exceptions import PolarsError

from infra.config import Config
from infra.errors import LakeError
from ingest.lake.content import Content, OnDemand, Sealer, Vault
from ingest.lake.manifest import DataFile, Table, folder_name
from ingest.lake.schema import IDENTITY, SCHEMAS, newest, newest_of
from ingest.lake.storage import Storage
from ingest.lake.table import Lake

CONTENT = ("subject", "key_generation", "content")
_STEP_ROWS = 20_000


@contextlib.contextmanager
def told_plainly(config: Config) -> Iterator[None]:
    """A file of the lake that is gone or damaged is a `LakeError`."""
    try:
        yield
    except (PolarsError, FileNotFoundError) as exc:
        raise LakeError(f"lake: {config.ingest.lake.url}: a file of it cannot be read: {exc}") from exc


class Reading:
    """The lake at one moment. Raises `LakeError` where nothing was ever committed."""

    def __init__(self, lake: Lake, vault: Vault) -> None:
        self._lake, self._vault = lake, vault
        self.snapshot = lake.refresh()
        if not self.snapshot.number:
            raise LakeError(f"lake: nothing was written to {lake.storage.root} yet; `python -m ingest lake` does it")

    @classmethod
    def of(cls, config: Config) -> "Reading":
        """The lake that a configuration names, with its keys, which are looked for when a content is opened.

        Raises as the class does; opening contents may raise `ConfigError`, too.
        """
        return cls(Lake(Storage(config.ingest.lake.url)), Vault(OnDemand(lambda: _keys(config))))

    def files(
        self, table: Table, since: float | None = None, until: float | None = None, tenant: str | None = None
    ) -> list[DataFile]:
        """Files that may have rows of `[since, until)`, in Unix seconds, and of a tenant; newest first."""
        folder = None if tenant is None else folder_name(tenant)
        return [
            file
            for file in self.snapshot.of(table)
            if (since is None or file.ends_at >= since)
            and (until is None or file.begins_at < until)
            and (folder is None or file.tenant == folder)
        ]

    def rows(self, table: Table, files: Sequence[DataFile] | None = None, where: pl.Expr | None = None) -> pl.LazyFrame:
        """The rows of some files of a table, or of all of them. `where`, which must be the same for every telling of a
        thing, is asked while files are read: what does not meet it costs little."""
        rows = self._lake.scan(table, self.snapshot.of(table) if files is None else files)
        return newest(table, rows if where is None else rows.filter(where))

    def runs(
        self, table: Table, files: Sequence[DataFile], columns: Sequence[str], *, newest_first: bool
    ) -> Iterator[pl.DataFrame]:
        """The rows of some files, some columns of them, by and by: every row of a frame is before all of the next one.

        Rows that a file unread yet may have another telling of, or come between, are held back.
        """
        ordered = sorted(files, key=lambda f: -f.ends_at if newest_first else f.begins_at)
        held: list[pl.DataFrame] = []
        wanted = [name for name in SCHEMAS[table] if name in {*columns, *_needed(table)}]
        for part, following in _portions(ordered):
            held.append(self._lake.scan(table, part).select(wanted).collect())
            known = newest_of(table, pl.concat(held))
            if following is not None:
                at = pl.col("at").dt.timestamp("us")
                edge = round((following.ends_at if newest_first else following.begins_at) * 1e6)
                is_settled = at > edge if newest_first else at < edge
                held, known = [known.filter(~is_settled)], known.filter(is_settled)
            if known.height:
                found = known.select(columns)
                yield found.reverse() if newest_first else found

    def contents(self, rows: pl.DataFrame) -> list[Content | None]:
        """The contents of rows that have the columns `CONTENT`; none where there is none, or it is erased."""
        return [
            None if data is None else self._vault.get(subject, generation, data)
            for subject, generation, data in rows.select(CONTENT).iter_rows()
        ]

    def with_content(self, rows: pl.DataFrame, files: Sequence[DataFile]) -> pl.DataFrame:
        """Turns with the columns `CONTENT`, from files that have them, in their order."""
        scanned = self._lake.scan(Table.TURNS, files).filter(pl.col("trace_id").is_in(rows["trace_id"].to_list()))
        found = newest(Table.TURNS, scanned.select("at", "revision", "offset", "trace_id", *CONTENT)).collect()
        return rows.join(found.select("trace_id", *CONTENT), on="trace_id", how="left", maintain_order="left")


def _keys(config: Config) -> Sealer:
    from ingest.lake.sealing import Keys  # cryptography takes long, and a list of turns opens nothing
    from ingest.privacy.keys import KeyStore

    return Keys(KeyStore.of(config))


def _needed(table: Table) -> Iterable[str]:
    return ("at", "offset", *IDENTITY[table].key, *IDENTITY[table].order)


def _portions(files: Sequence[DataFile]) -> Iterator[tuple[list[DataFile], DataFile | None]]:
    """Some files at a time, with the first of those that follow."""
    part: list[DataFile] = []
    for number, file in enumerate(files, start=1):
        part.append(file)
        if number == len(files):
            yield part, None
        elif sum(one.num_rows for one in part) >= _STEP_ROWS:
            yield part, files[number]
            part = []

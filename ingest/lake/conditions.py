"""Filters as polars has them."""

import polars as pl

from ingest.lake.filters import Filters


def of_turn(filters: Filters) -> pl.Expr:
    """What can be told from the columns of a turn."""
    wanted = [pl.lit(True)]
    if filters.tenant is not None:
        wanted.append(pl.col("tenant") == filters.tenant)
    if filters.user is not None:
        wanted.append(pl.col("user") == filters.user)
    if filters.since is not None:
        wanted.append(pl.col("at").dt.timestamp("us") >= round(filters.since * 1e6))
    if filters.until is not None:
        wanted.append(pl.col("at").dt.timestamp("us") < round(filters.until * 1e6))
    if filters.version is not None:
        wanted.append(pl.col("versions").list.contains(filters.version))
    if filters.kind is not None:
        wanted.append(pl.col("kind") == filters.kind.value)
    return pl.all_horizontal(wanted)


def of_outcome(filters: Filters) -> pl.Expr:
    """What its fate and its reward, the columns `fate` and `reward`, must be."""
    wanted = [pl.lit(True)]
    if filters.fate is not None:
        wanted.append((pl.col("fate") == filters.fate.value).fill_null(False))
    if filters.min_reward is not None:
        wanted.append((pl.col("reward") >= filters.min_reward).fill_null(False))
    if filters.max_reward is not None:
        wanted.append((pl.col("reward") <= filters.max_reward).fill_null(False))
    return pl.all_horizontal(wanted)

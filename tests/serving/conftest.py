from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from intakes import SECRET, intake
from upstreams import Front, MakeFront, Upstream

from infra.config import EngineSlot, RouterConfig
from ingest.privacy.keys import KeyStore
from ingest.privacy.kinds import Kind
from serving.router.front import Router
from serving.spool import Spool


@pytest.fixture
def keyring(tmp_path: Path) -> KeyStore:
    return KeyStore(str(tmp_path / "keys"), SECRET)


@pytest.fixture
async def front(tmp_path: Path, keyring: KeyStore) -> AsyncIterator[MakeFront]:
    made: list[Front] = []

    async def make(*upstreams: Upstream, **config: object) -> Front:
        slots = {
            f"e{n}": EngineSlot(id=f"e{n}", arm="stable", port=upstream.port, control_port=1)
            for n, upstream in enumerate(upstreams)
        }
        spool = Spool(tmp_path / "router", 1 << 20, 1 << 16)
        settings = RouterConfig.model_validate({"retry_for_s": 0.3, "connect_timeout_s": 0.5} | config)
        router = Router(slots, settings, spool, intake(Kind.EMAIL, keyring=keyring))
        await router.start()
        transport = httpx.ASGITransport(router.application())
        made.append(Front(router, httpx.AsyncClient(transport=transport, base_url="http://router"), spool))
        return made[-1]

    yield make
    for one in made:
        await one.client.aclose()
        await one.router.close()
        one.spool.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    yield Upstream()

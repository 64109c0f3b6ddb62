"""A pool as its collector tells of it: the keeper of a worker's pool."""

import asyncio
import time

import msgspec
import structlog

from picker.engines.metrics import LoraState
from picker.pool.directory import Directory
from picker.server.admin import Source
from picker.server.served_pool import ServedPool
from picker.server.sharing import Standing, WorkersShare
from picker.shared.engines import EngineNews

log = structlog.get_logger(__name__)

ROWS_S = 0.02
"""Between two looks at what the engines said; a look takes a microsecond where they said nothing."""
LETTERS_S = 0.1


class Collected:
    """Keeps one worker's view, table and ledger as the collector says. While it is away, what it said last holds."""

    def __init__(self, pool: ServedPool, share: WorkersShare) -> None:
        self._pool, self._share = pool, share
        self._news = EngineNews(share.engines, pool.router.table, pool.router.ledger)
        self._standing: Standing | None = None
        self._adapters: dict[str, LoraState] = {}

    @property
    def synced(self) -> bool:
        return self._standing is not None and self._standing.synced

    @property
    def pool_exists(self) -> bool:
        return self._standing is not None and self._standing.pool_exists

    @property
    def silent_s(self) -> float:
        """Seconds since the keeper of the pool answered the collector; grows while the collector is away."""
        told = self._standing
        return 0.0 if told is None else told.silent_s + max(0.0, time.monotonic() - told.at)

    def sources(self) -> list[Source]:
        """No metrics: the collector has them."""
        return []

    async def watch(self) -> None:
        """Follow the collector until cancelled."""
        every = round(LETTERS_S / ROWS_S)
        while True:
            try:
                self._letters()
                self._share.read_indexes(time.monotonic())
            except (msgspec.MsgspecError, OSError, ValueError) as error:
                log.warning("the collector's word cannot be read", pool=self._pool.name, reason=str(error))
            for _ in range(every):
                self._news.take()
                await asyncio.sleep(ROWS_S)

    def _letters(self) -> None:
        """Raises MsgspecError. The directory is read after the standing: whoever is synced knows it."""
        standing, directory, adapters = self._share.standing.news(), self._share.directory.news(), self._share.adapters
        if directory is not None:
            self._pool.adopt(msgspec.json.decode(directory, type=Directory))
            router = self._pool.router
            self._news.follow(router.pool.view, router.pool.capacity)
        if (text := adapters.news()) is not None:
            self._adapters = msgspec.json.decode(text, type=dict[str, LoraState])
        if directory is not None or text is not None:
            self._tell_adapters()
        if standing is not None:
            told = msgspec.json.decode(standing, type=Standing)
            if told.synced or self._standing is None:  # one that has just begun knows less than we do
                self._standing = told
                self._share.kept_at(told.at)

    def _tell_adapters(self) -> None:
        view, table = self._pool.router.pool.view, self._pool.router.table
        for address, state in self._adapters.items():
            if (position := view.by_address.get(address)) is not None:
                table.tell_lora(int(view.slots[position]), state)

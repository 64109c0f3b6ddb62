"""What one process hears from the engines of a pool: their metrics, and the KV blocks that they announce."""

import contextlib
from collections.abc import Callable

from picker.engines.http_fetch import HttpFetch
from picker.engines.index import PrefixIndex
from picker.engines.kv_feed import KvFeed
from picker.engines.scrape import Counted, Scraper, nobody
from picker.engines.table import EngineTable
from picker.engines.tick import TickSettings
from picker.pool.view import PoolChange
from picker.server.admin import Source
from picker.server.config import PickerConfig
from picker.server.options import ServeOptions
from picker.telemetry.sources import IndexMetrics, SourceMetrics, Viewed


class EngineWatch:
    """Keeps a table and a prefix index true to the engines of one pool."""

    def __init__(
        self,
        table: EngineTable,
        ledger: Counted,
        index: PrefixIndex,
        options: ServeOptions,
        config: PickerConfig,
        told: Callable[[int, float], None] = nobody,
    ) -> None:
        tick = TickSettings(fast_s=options.scrape_interval_s or config.settings.scrape_interval_seconds)
        self._index = index
        self._fetch = HttpFetch()
        self._scraper = Scraper(table, ledger, self._fetch, tick, told=told)
        self._feed = KvFeed(index)
        # Only prompts known by their token ids can be looked up among the engines' own blocks.
        self._listens = bool(config.settings.models)

    def warm(self) -> None:
        """Compile what the first event would wait for."""
        self._index.warm()

    @property
    def in_step(self) -> bool:
        """Whether the index holds what the engines that are listened to can still tell of their past."""
        return self._feed.in_step

    def follow(self, change: PoolChange) -> None:
        """Watch exactly the endpoints of this view. What is removed was cleared from table and ledger."""
        self._scraper.follow(change.view)
        if self._listens:
            self._feed.follow(change)

    def sources(self, watcher: Viewed) -> list[Source]:
        """Its metrics; `watcher` is whose pool it watches."""
        return [SourceMetrics(watcher, self._scraper, self._feed), IndexMetrics({"events": self._index})]

    async def close(self) -> None:
        """Stop listening."""
        async with contextlib.AsyncExitStack() as parts:
            parts.push_async_callback(self._fetch.close)
            parts.push_async_callback(self._scraper.close)
            parts.push_async_callback(self._feed.close)

"""A proxy that asks its pool's picker for the plan, again and again, and goes on with the last one while it is away."""

import asyncio
import random
from collections.abc import Callable, Iterator

import aiohttp
import structlog
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from picker.handoff.feed import MOST_BYTES, PLAN, Follower, read
from picker.handoff.members import Members
from picker.server.handoff_tls import PoolTls
from picker.server.handoff_token import TOKEN_HEADER
from picker.telemetry.tally import Count

log = structlog.get_logger(__name__)

EVERY_S, FIRST_RETRY_S, LAST_RETRY_S = 1.0, 0.25, 15.0
PATIENCE_S = 5.0


class PlanFeed(Collector):
    """`picker` is a base URL, `own` this proxy's name in the pool: the address that the picker knows. `follow` is told
    of each part that is new."""

    def __init__(
        self,
        picker: str,
        own: str,
        token: str,
        follow: Callable[[Members], None],
        pool: str = "",
        tls: PoolTls | None = None,
    ) -> None:
        self._tls = tls
        self._url = picker + PLAN + (f"?pool={pool}" if pool else "")
        self._own, self._token, self._follow = own, token, follow
        self._follower, self._tag = Follower(), ""
        self._asked = Count("picker_handoff_plan_requests", "Questions to the picker, by outcome.", ("outcome",))

    async def run(self) -> None:
        """Ask for ever. A pool's proxies do not ask at the same moments."""
        failures = 0
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            while True:
                outcome = await self._ask(session)
                self._asked.add(outcome)
                away = outcome not in ("new", "same")
                if away and not failures:
                    log.warning("no plan, going on with the last one", picker=self._url, outcome=outcome)
                failures = failures + 1 if away else 0
                pause_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(failures, 16)) if away else EVERY_S
                await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))

    async def _ask(self, session: aiohttp.ClientSession) -> str:
        headers = {TOKEN_HEADER: self._token} | ({"If-None-Match": self._tag} if self._tag else {})
        tls = True if self._tls is None else self._tls.client
        try:
            async with (
                asyncio.timeout(PATIENCE_S),
                session.get(self._url, headers=headers, allow_redirects=False, ssl=tls) as response,
            ):
                if response.status == 304:
                    self._follower.same(_now())
                    return "same"
                if response.status != 200:
                    return "refused"
                return self._heard(await _page(response))
        except (aiohttp.ClientError, OSError, TimeoutError):
            return "away"
        except ValueError as error:
            log.warning("the picker told nonsense", picker=self._url, reason=str(error))
            return "nonsense"
        except Exception:
            # Streams go on without a plan.
            log.exception("a plan could not be followed")
            return "nonsense"

    def _heard(self, page: bytes) -> str:
        told, before = read(page), self._follower.told
        if not self._follower.hear(told, _now()):
            return "same"
        self._tag = told.tag
        self._follow(told.part(self._own))
        # Boundaries follow the load all the time.
        if before is None or before.outlook != told.outlook or before.engines.keys() != told.engines.keys():
            log.info("plan", outlook=told.outlook, engines=len(told.engines))
            if self._own not in told.engines:
                log.warning("the picker does not know this proxy: --name is no address of its pool", name=self._own)
        return "new"

    def collect(self) -> Iterator[Metric]:
        yield from self._asked.collect()
        told = self._follower.told
        if told is None:
            return
        version = GaugeMetricFamily("picker_handoff_plan_version", "Of the plan that holds here.")
        version.add_metric((), told.version)
        age = GaugeMetricFamily("picker_handoff_plan_heard_seconds", "Since the picker last said that it holds.")
        age.add_metric((), _now() - self._follower.heard_at)
        yield from (version, age)


async def _page(response: aiohttp.ClientResponse) -> bytes:
    """Raises ValueError for one that is too large."""
    page = bytearray()
    async for piece in response.content.iter_any():
        page += piece
        if len(page) > MOST_BYTES:
            raise ValueError(f"no plan: more than {MOST_BYTES} bytes")
    return bytes(page)


def _now() -> float:
    return asyncio.get_running_loop().time()

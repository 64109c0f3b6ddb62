"""Which replica leads: a Lease, by the Kubernetes client's own election, made safe against an API server that is gone.

The client's election is used as it is, with a lock of ours: the client's lock lets connection errors out and waits for
answers without limit, either of which would end an election or leave two leaders; and it gives no lease back. Who leads
is read off the lock's own renewals, since the election notices a lost lease only after its next attempt.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
import structlog
from kubernetes.aio import client
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.client.rest import RESTClientObject
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

from picker.server.kubernetes.cluster import Cluster

T = TypeVar("T")
Found = tuple[bool, LeaderElectionRecord] | tuple[bool, Exception] | tuple[bool, None]
log = structlog.get_logger(__name__)

LOOK_S = 0.25


@dataclass(frozen=True, slots=True)
class Timing:
    """In seconds, those of client-go. A lease that nobody renews for `lease_s` is free; who could not renew it for
    `renew_s` leads no more, well before that. `call_s` bounds one call."""

    lease_s: int = 15
    renew_s: float = 10.0
    retry_s: float = 2.0
    call_s: float = 2.0


class Leadership:
    """One candidate. `run` until cancelled, then `release`."""

    def __init__(
        self,
        api: ApiClient,
        lease: str,
        namespace: str,
        identity: str,
        on_change: Callable[[bool], None],
        timing: Timing = Timing(),
    ) -> None:
        """`identity` is this process's alone. `on_change` is told of each beginning and end of leading."""
        self.leading = False
        self._lock = _Lock(api, lease, namespace, identity, timing.call_s)
        self._on_change, self._timing = on_change, timing

    async def run(self) -> None:
        """Compete, lead, lose, compete again. No answer of the API server ends it."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._compete())
            tasks.create_task(self._look())

    async def release(self) -> None:
        """Give the lease back, if it is ours, so that nobody has to wait for its end."""
        if await self._lock.release():
            log.info("lease released", lease=self._lock.name)
        self.leading = False

    async def _compete(self) -> None:
        timing = self._timing
        while True:
            config = Config(self._lock, timing.lease_s, timing.renew_s, timing.retry_s, _nothing, _nothing)
            try:
                await LeaderElection(config).run()
            except Exception as error:
                # Whatever a hostile answer provokes: the next attempt may fare better, and until then nobody renews.
                log.error("leader election failed", exc_info=error)
            await asyncio.sleep(timing.retry_s)

    async def _look(self) -> None:
        while True:
            leading = time.monotonic() - self._lock.renewed_at < self._timing.renew_s
            if leading is not self.leading:
                self.leading = leading
                log.info("leading" if leading else "not leading any more", lease=self._lock.name)
                self._on_change(leading)
            await asyncio.sleep(LOOK_S)


def api_client(cluster: Cluster) -> ApiClient:
    """A client of this cluster with models of its objects; to be closed."""
    api = ApiClient(cluster.configuration)
    api.rest_client = _Rest(cluster)
    return api


class _Rest(RESTClientObject):
    """Makes its connections anew when the cluster's certificates change. One request at a time."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.configuration)
        self._cluster, self.ssl_context = cluster, cluster.tls()

    async def request(self, *given: Any, **named: Any) -> Any:
        if (newest := self._cluster.tls()) is not self.ssl_context:
            await self.close()
            self.ssl_context, self.pool_manager, self.retry_client = newest, None, None
        request: Callable[..., Awaitable[Any]] = super().request
        return await request(*given, **named)


class _Lock(LeaseLock):
    """A LeaseLock whose every call ends in time, with a failure that an election understands.

    `renewed_at`: monotonic seconds, when the last renewal that succeeded was sent; -inf where the lease is not ours.
    """

    def __init__(self, api: ApiClient, name: str, namespace: str, identity: str, call_s: float) -> None:
        super().__init__(name, namespace, identity, api)
        self._call_s = call_s
        self.renewed_at = -math.inf

    async def get(self, name: str, namespace: str) -> Found:
        found = await self._in_time(super().get(name, namespace), (False, ApiException(status=0, reason="no answer")))
        if isinstance(found[1], LeaderElectionRecord) and found[1].holder_identity != self.identity:
            self.renewed_at = -math.inf
        return found

    async def create(self, name: str, namespace: str, election_record: LeaderElectionRecord) -> bool:
        return await self._renewed(self._created(name, namespace, election_record))

    async def update(self, name: str, namespace: str, updated_record: LeaderElectionRecord) -> bool:
        return await self._renewed(super().update(name, namespace, updated_record))

    async def release(self) -> bool:
        """Clear the holder if it is us; whether that was done. A conflict means that the lease is another's already."""
        return self.renewed_at > -math.inf and await self._in_time(self._cleared(), False)

    async def _created(self, name: str, namespace: str, record: LeaderElectionRecord) -> bool:
        # In place of the client's own, which asks for a pretty answer in a way that its validation refuses.
        lease = client.V1Lease(metadata=client.V1ObjectMeta(name=name), spec=self.update_lease(record))
        try:
            await self.api_instance.create_namespaced_lease(namespace, lease)
        except ApiException:
            return False
        return True

    async def _cleared(self) -> bool:
        found, _ = await super().get(self.name, self.namespace)
        lease = self.lease_reference
        if not found or lease is None or lease.spec is None or lease.spec.holder_identity != self.identity:
            return False
        lease.spec.holder_identity = None
        lease.spec.lease_duration_seconds = 1
        try:
            await self.api_instance.replace_namespaced_lease(self.name, self.namespace, lease)
        except ApiException:
            return False
        self.renewed_at = -math.inf
        return True

    async def _renewed(self, renewal: Awaitable[bool]) -> bool:
        sent_at = time.monotonic()
        done = await self._in_time(renewal, False)
        if done:
            self.renewed_at = sent_at
        return done

    async def _in_time(self, call: Awaitable[T], otherwise: T) -> T:
        try:
            return await asyncio.wait_for(call, self._call_s)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            log.warning("the API server does not answer about the lease", lease=self.name, reason=repr(error))
            return otherwise


async def _nothing() -> None:
    """The election's own callbacks come too late to be of use."""

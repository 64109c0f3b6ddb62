"""The pool and its plan, told to the pool's hand-off proxies: `GET /handoff/plan` with the pool's token."""

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
from aiohttp import web

from picker.handoff import feed
from picker.handoff.feed import PLAN, Seat, Told
from picker.policies.staged import Staged
from picker.pool.view import PoolView
from picker.routing.router import Router
from picker.server.handoff_token import TOKEN_HEADER, read_token, same_token


class Feed:
    """Of one pool. Its document is made when somebody asks after a change, once, however many ask."""

    def __init__(self, router: Router, *, peer_port: int | None = None, epoch: int | None = None) -> None:
        """`peer_port`: where proxies meet their peers by TLS; None for plainly, where clients ask."""
        self._router, self._peer_port = router, peer_port
        self._told = Told(epoch=time.time_ns() // 1000 if epoch is None else epoch, version=0)
        self._made_of: tuple[object, ...] = ()
        self._page = b""

    def page(self) -> tuple[str, bytes] | None:
        """Entity tag and document; None while the pool is not known: nobody shall believe that it is empty."""
        view, policy = self._router.pool.view, self._router.policy
        if not view.version:
            return None
        staged = policy if isinstance(policy, Staged) else None
        # Each of these is replaced whole when it changes.
        made_of = (view, *((staged.plan, staged.boundaries, staged.models) if staged else ()))
        if len(made_of) != len(self._made_of) or any(a is not b for a, b in zip(made_of, self._made_of, strict=True)):
            told = _told(view, staged, self._peer_port)
            now = msgspec.structs.replace(told, epoch=self._told.epoch, version=self._told.version)
            if now != self._told or not self._page:
                self._told = msgspec.structs.replace(now, version=self._told.version + 1)
                self._page = feed.encode(self._told)
            self._made_of = made_of
        return self._told.tag, self._page


def _told(view: PoolView, staged: Staged | None, peer_port: int | None) -> Told:
    """Without a number."""
    stage_of, bounds = dict[int, int](), tuple[float, ...]()
    if staged is not None and staged.plan.staged:
        bounds = tuple(round(boundary.tokens, 3) for boundary in staged.boundaries)
        stage_of = {slot: place for place, stage in enumerate(staged.plan.stages) for slot in stage.engines}
    models = {} if staged is None else {slot: model for slot, model in staged.models.items() if slot in stage_of}
    kinds = {model: place for place, model in enumerate(dict.fromkeys(models.values()))}
    engines = {
        endpoint.address: Seat(
            f"http://{endpoint.address}" if peer_port is None else f"https://{endpoint.ip}:{peer_port}",
            stage_of.get(slot),
            kinds[models[slot]] if slot in models else None,
        )
        for endpoint, slot in zip(view.endpoints, view.slots.tolist(), strict=True)
    }
    return Told(
        epoch=0,
        version=0,
        engines=engines,
        bounds=bounds,
        models=tuple(kinds),
        firm=staged is not None and staged.plan.fixed,
        outlook="" if staged is None else staged.outlook[:1000],
    )


def feed_app(feeds: Mapping[str, Feed], token_file: Path) -> web.Application:
    """`GET /handoff/plan`, of the first pool or of `?pool=NAME`: 304 for who knows it already, 503 while there is no
    pool yet, 404 for strangers. Raises ValueError or OSError for a file without a token."""
    token = read_token(token_file)

    async def plan(request: web.Request) -> web.Response:
        told = feeds.get(request.query.get("pool", next(iter(feeds))))
        if told is None or not same_token(token, request.headers.get(TOKEN_HEADER, "")):
            raise web.HTTPNotFound
        if (page := told.page()) is None:
            raise web.HTTPServiceUnavailable
        tag, document = page
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag})
        return web.Response(body=document, headers={"ETag": tag}, content_type="application/json")

    app = web.Application(client_max_size=1024)
    app.router.add_get(PLAN, plan)
    return app

"""Cases, one after another, each with a deadline, to results."""

import asyncio
import time
from collections.abc import Callable, Iterable

import grpc

from picker.conformance import (
    answers,
    buffered,
    connections,
    failures,
    health,
    requests,
    served,
    streaming,
    subset,
    tls,
)
from picker.conformance.case import Broken, Case, NotAsked, Result, S, Verdict
from picker.conformance.epp import Epp

WIRE: tuple[Case[Epp], ...] = tuple(
    case
    for room in (requests, subset, failures, streaming, answers, served, buffered, health, connections, tls)
    for case in room.PACK.cases
)
"""Every case over gRPC alone."""
DEADLINE_S = 60.0


async def run(
    cases: Iterable[Case[S]],
    subject: S,
    tell: Callable[[Result], None] = lambda result: None,
    *,
    deadline_s: float = DEADLINE_S,
    clock: Callable[[], float] = time.monotonic,
) -> list[Result]:
    """Check all cases; `tell` hears of each result as it comes. Whatever the other side does becomes a verdict."""
    results = []
    for case in cases:
        began = clock()
        verdict, seen = await _judge(case, subject, deadline_s)
        took_s = clock() - began
        results.append(Result(case.pack, case.name, case.rule, case.source, verdict, seen, took_s))
        tell(results[-1])
    return results


async def _judge(case: Case[S], subject: S, deadline_s: float) -> tuple[Verdict, str]:
    try:
        async with asyncio.timeout(deadline_s):
            await case.check(subject)
    except Broken as broken:
        return Verdict.FAILED, str(broken)
    except NotAsked as reason:
        return Verdict.NOT_ASKED, str(reason)
    except TimeoutError:
        return Verdict.FAILED, f"not done within {deadline_s:g} s"
    except (OSError, ValueError, grpc.RpcError) as error:
        return Verdict.FAILED, f"{type(error).__name__}: {str(error)[:300]}"
    return Verdict.PASSED, ""

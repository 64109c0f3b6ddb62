"""The transport that is not the default stays as good: rules of the protocol, TLS, and leaving without a loss.

All of e2e/local runs by it with PICKER_TRANSPORT in the environment.
"""

import asyncio
import signal
import sys

import pytest
from gateway import chat, gateway, new_words

from picker.server.transport import DEFAULT, TRANSPORTS

(OTHER,) = set(TRANSPORTS) - {DEFAULT}


async def test_it_keeps_every_rule_of_the_protocol_on_the_wire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICKER_TRANSPORT", OTHER)
    command = [sys.executable, "-m", "picker.server.cli", "conformance", "--patience", "20"]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


async def test_behind_envoy_by_tls_it_answers_and_breaks_nothing_when_told_to_stop() -> None:
    argv = ["--transport", OTHER, "--secure-serving", "true"]
    async with gateway("echo", engines=1, argv=argv, tls=True) as running:
        assert f'"transport": "{OTHER}"' in running.picker.log.read_text()
        assert (await running.ask(chat(new_words(20_000)))).ok
        replies, tasks = await running.begin_many(4, max_tokens=200)
        running.picker.signal(signal.SIGTERM)
        await asyncio.gather(*tasks)
        assert all(reply.ok for reply in replies)
        assert await running.picker.process.wait() == 0

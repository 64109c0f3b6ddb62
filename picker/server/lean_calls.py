"""What the lean transport's streams are heard by: a pick, the access log, health."""

import asyncio
from collections import deque
from collections.abc import Sequence

from picker.exchange import relay
from picker.requests import usage
from picker.requests.request import Request
from picker.server.health import HEALTH, Health, asked
from picker.server.lean import Answer, Call, Line
from picker.server.streams import ACCESS_LOG, EXT_PROC, AccessLogs, LogStream, ProcessStream, Streams
from picker.server.transport import Ears
from picker.wire.echo import Shape

Metadata = Sequence[tuple[str, str]]
ECHOED = Shape(*relay.chains(), relay.METADATA_CONTEXT, usage.KEY, usage.SAYS_NOTHING)
"""Of an echoed answer: they go back as they are, and none but those that may tell its usage matters to anybody."""


class Process:
    """ExternalProcessor.Process. While a long prompt is read beside the loop, what else arrives waits in order."""

    __slots__ = ("_line", "_readers", "_reading", "_stream", "_waiting")

    def __init__(self, line: Line, streams: Streams, pool: str, metadata: Metadata) -> None:
        self._line, self._readers = line, streams.readers
        self._stream = ProcessStream(streams, self, pool, metadata)
        self._reading: asyncio.Future[Request] | None = None
        self._waiting: deque[bytes | None] = deque()

    def message(self, data: bytes) -> None:
        if self._reading is not None:
            self._waiting.append(data)
        elif (reply := self._stream.relay(data)) is not None:
            self._line.say(reply)
            if self._stream.steady:
                self._line.echo()
        else:
            self._say(self._stream.receive(data))

    def half_closed(self) -> None:
        if self._reading is not None:
            self._waiting.append(None)
            return
        self._line.finish()

    def close(self, code: str) -> None:
        self._waiting.clear()
        if self._reading is not None:
            self._reading.cancel()
        self._stream.close(code)

    def leave(self) -> bool:
        # One that is being read for leaves by itself once it was picked for.
        if self._reading is not None or not self._stream.leave():
            return False
        self._line.later(self._line.finish)
        return True

    def _say(self, replies: list[bytes]) -> None:
        line, stream = self._line, self._stream
        if replies:
            line.send(replies)
        if stream.calm:
            return
        if (slow := stream.slow) is not None:
            line.hold()
            self._reading = asyncio.get_running_loop().run_in_executor(self._readers, slow)
            self._reading.add_done_callback(lambda _: line.later(self._read))
        elif stream.done:
            line.finish()

    def _read(self) -> None:
        """The reading ended: go on, and hear what arrived since."""
        reading, self._reading = self._reading, None
        if reading is None or reading.cancelled():
            return
        self._line.release()
        error = reading.exception()
        self._say(self._stream.resume(error if isinstance(error, Exception) else reading.result()))
        while self._waiting and self._reading is None:
            if (data := self._waiting.popleft()) is None:
                self.half_closed()
            else:
                self.message(data)


class Log:
    """AccessLogService.StreamAccessLogs."""

    __slots__ = ("_line", "_stream")

    def __init__(self, line: Line, logs: AccessLogs) -> None:
        self._line, self._stream = line, LogStream(logs, self)

    def message(self, data: bytes) -> None:
        self._stream.receive(data)

    def half_closed(self) -> None:
        # The one message of the answer, which is empty.
        self._line.send([b""])
        self._line.finish()

    def close(self, code: str) -> None:
        self._stream.close()

    def leave(self) -> bool:
        self._line.later(self.half_closed)
        return True


class Check:
    """Health.Check."""

    __slots__ = ("_health", "_line", "_name")

    def __init__(self, line: Line, health: Health) -> None:
        self._line, self._health = line, health
        self._name: str | None = None

    def message(self, data: bytes) -> None:
        self._name = asked(data)

    def half_closed(self) -> None:
        if self._name is None:
            raise ValueError("a call without its message")
        self._line.send([self._health.answer(self._name)])
        self._line.finish()

    def close(self, code: str) -> None:
        pass


class Watch:
    """Health.Watch: an answer at once, and one whenever it changes."""

    __slots__ = ("_health", "_last", "_line", "_name")

    def __init__(self, line: Line, health: Health) -> None:
        self._line, self._health = line, health
        self._name, self._last = "", b""

    def message(self, data: bytes) -> None:
        self._name = asked(data)
        self._health.watch(self._told)
        self._say()

    def half_closed(self) -> None:
        pass

    def close(self, code: str) -> None:
        self._health.unwatch(self._told)

    def _told(self) -> None:
        self._line.later(self._say)

    def _say(self) -> None:
        if self._health.closed:
            self._line.finish()
        elif (answer := self._health.answer(self._name)) != self._last:
            self._last = answer
            self._line.send([answer])


PROCESS, LOGS = f"/{EXT_PROC}/Process", f"/{ACCESS_LOG}/StreamAccessLogs"
CHECK, WATCH = f"/{HEALTH}/Check", f"/{HEALTH}/Watch"


def answers(health: Health, ears: Ears | None) -> Answer:
    """Who hears the streams of a port: health, and all the rest if there are ears for it."""

    def answer(line: Line, path: str, metadata: Metadata) -> Call | None:
        if ears is not None and path == PROCESS:
            return Process(line, ears.streams, ears.pool, metadata)
        if ears is not None and path == LOGS:
            return Log(line, ears.logs)
        if path == CHECK:
            return Check(line, health)
        return Watch(line, health) if path == WATCH else None

    return answer

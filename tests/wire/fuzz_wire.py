"""Coverage-guided fuzzing of a connection, under the judge of the property tests: `make fuzz`.

The input is a script: acts of the peer and of the owner, each a byte with what it needs behind it. Cuts between the
peer's bytes are acts, too. Arguments are libFuzzer's; a first folder is the corpus.
"""

import sys

import atheris

# Machine code is made of what stands there, not of what the fuzzer makes of it.
with atheris.instrument_imports(include=["picker.wire"], exclude=["picker.wire.echo"]):
    from wire_judge import Judge
    from wire_peer import (
        GREETING,
        SMALL,
        block,
        data,
        grpc,
        raw,
        request,
        reset,
        settings,
        shaped,
        window_update,
    )

    from picker.wire.frames import END_HEADERS, Kind, Setting, frame

ACTS = 22
STEPS = 60


def said(script: atheris.FuzzedDataProvider, act: int, stream: int) -> bytes:
    """One of the peer's frames, well-formed at first sight."""
    size = script.ConsumeIntInRange(0, 4000)
    match act:
        case 0 | 1:
            return request(stream, end=bool(size & 1))
        case 2:
            return request(stream, ("grpc-timeout", "5S"), ("grpc-encoding", "gzip"))
        case 3:
            return data(stream, b"m" * size, end=bool(size & 1))
        case 4:
            return frame(Kind.DATA, size & 1, stream, grpc(b"m" * size)[: script.ConsumeIntInRange(0, 4000)])
        case 5:
            return window_update(stream, script.ConsumeIntInRange(0, 2**31))
        case 6:
            return settings((Setting.INITIAL_WINDOW_SIZE, script.ConsumeIntInRange(0, 2**31)))
        case 7:
            return frame(Kind.HEADERS, size & 1, stream, block()[: size % 60])
        case 8:
            return frame(Kind.CONTINUATION, END_HEADERS, stream, block()[size % 60 :])
        case 9:
            return frame(Kind.HEADERS, END_HEADERS, stream, script.ConsumeBytes(size % 80))
        case 10:
            return reset(stream)
        case 21:
            return data(stream, shaped(script.ConsumeBytes(size % 300)))
        case _:
            kind, flags = script.ConsumeIntInRange(0, 11), script.ConsumeIntInRange(0, 255)
            return raw(kind, flags, stream, script.ConsumeBytes(size % 40))


def play(script_bytes: bytes) -> None:
    """One script, from the greeting to the loss of the socket."""
    script = atheris.FuzzedDataProvider(script_bytes)
    judge = Judge(SMALL)
    unsaid = GREETING if script.ConsumeBool() else b""
    newest = -1
    for _ in range(STEPS):
        if not script.remaining_bytes():
            break
        act = script.ConsumeIntInRange(0, ACTS)
        offset = script.ConsumeIntInRange(0, 4)
        if act <= 2 and not offset:
            newest += 2
        stream = max(0, newest - (offset - 1 if offset > 1 else 0))
        match act:
            case 12:
                unsaid += script.ConsumeBytes(script.ConsumeIntInRange(0, 60))
            case 13 | 14:
                cut = len(unsaid) if act == 13 else script.ConsumeIntInRange(0, len(unsaid))
                judge.say(unsaid[:cut])
                unsaid = unsaid[cut:]
            case 15:
                judge.send(stream, b"a" * script.ConsumeIntInRange(0, 8000))
            case 16:
                judge.finish(stream, script.ConsumeIntInRange(0, 16))
            case 17:
                judge.reset(stream)
            case 18:
                judge.connection.hold(stream)
            case 19:
                judge.connection.release(stream)
                judge.wait(script.ConsumeIntInRange(0, 70))
            case 20:
                judge.connection.go_away()
            case 22:
                judge.send(stream, b"go on")
                judge.connection.echo(stream)
            case _:
                unsaid += said(script, act, stream)
    judge.say(unsaid)
    judge.end()


if __name__ == "__main__":
    atheris.Setup(sys.argv, play)
    atheris.Fuzz()

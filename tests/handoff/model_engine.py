"""A tiny engine with a tokenizer, a greedy model and vLLM's ways of streaming, as a pure function of the request."""

import json
from collections.abc import Iterator
from typing import Any

import xxhash

PIECES = [piece.encode() for piece in [" a", " be", "c", "dE", "N", "D", " END", "EN", "\n", " long", "x", "é"]]
PIECES += [b"\xf0\x9f", b"\x98\x80", b"\xe2", b"\x82\xac"]
"""The last four are halves of two characters."""
EOS = len(PIECES)
HALVES = {12: 13, 14: 15}


def decode(tokens: list[int]) -> str:
    return b"".join(PIECES[token] for token in tokens if token != EOS).decode("utf-8", "replace")


def following(context: list[int], ends: bool) -> int:
    """The greedy next token; halves of characters come in pairs."""
    if context and context[-1] in HALVES:
        return HALVES[context[-1]]
    drawn = xxhash.xxh3_64_intdigest(bytes(context)) % 97
    token = drawn % (EOS + 1)
    if token in HALVES.values() or (token == EOS and (drawn > EOS or not ends)):
        return drawn % 12
    return token


def whole(text: str) -> str:
    return text.rstrip("\ufffd")


def steps(prompt: list[int], body: dict[str, Any]) -> Iterator[tuple[int, str, str | None, str | None]]:
    """Token, text given out with it, finish_reason and stop_reason, one token at a time."""
    stops, include = body.get("stop") or [], bool(body.get("include_stop_str_in_output"))
    stops = [stops] if isinstance(stops, str) else stops
    held = 0 if include else max(map(len, stops), default=1) - 1
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or 16
    least = body.get("min_tokens") or 0
    made: list[int] = []
    sent, checked = 0, 0
    while True:
        made.append(following(prompt + made, ends=len(made) + 1 > least))
        text = whole(decode(made))
        finish = "stop" if made[-1] == EOS else "length" if len(made) >= limit else None
        reason = None
        if len(made) > least:
            ends = [
                (at + len(s), i, s)
                for i, s in enumerate(stops)
                if (at := text.find(s, max(0, checked - len(s) + 1))) >= 0
            ]
            if ends and len(text) > checked:
                end, _, reason = min(ends)
                finish, text = "stop", text[: end if include else end - len(reason)]
        checked = len(text)
        until = len(text) if finish else max(sent, len(text) - held)
        yield made[-1], text[sent:until], finish, reason
        sent = until
        if finish:
            return


def merged(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """Several tokens' choices as one."""
    first, *others = choices
    for other in others:
        for name, value in other.items():
            if name == "delta":
                first["delta"] = {"content": first["delta"]["content"] + value["content"]}
            elif name == "logprobs" and value is not None:
                first["logprobs"] = {each: first["logprobs"][each] + value[each] for each in value}
            elif name == "text" or (name == "token_ids" and value is not None):
                first[name] += value
            elif name not in ("index", "prompt_token_ids"):
                first[name] = value
    return first


def answer(
    kind: str, body: dict[str, Any], prompt: list[int], number: str, together: int = 1, forced: bool = False
) -> list[bytes]:
    """The events of a streamed answer, with so many tokens in each; `forced` tells everybody the usage."""
    ids, chat = bool(body.get("return_token_ids")), kind == "chat"
    options = body.get("stream_options") or ({"include_usage": True, "continuous_usage_stats": True} if forced else {})
    top = body.get("logprobs")
    head: dict[str, Any] = {"id": number, "object": "chat.completion.chunk" if chat else "text_completion"}
    head |= {"created": int(number), "model": "m"}
    out = []

    def say(choices: list[dict[str, Any]], more: dict[str, Any], made: int, usage: bool) -> None:
        chunk = head | {"choices": choices} | ({"usage": counted(made)} if usage else {}) | more
        out.append(b"data: " + json.dumps(chunk, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n")

    def counted(made: int) -> dict[str, int]:
        return {"prompt_tokens": len(prompt), "total_tokens": len(prompt) + made, "completion_tokens": made}

    continuous = bool(options.get("continuous_usage_stats"))
    if chat:
        opening = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        say([opening], {"prompt_token_ids": prompt if ids else None}, 0, continuous)
    made, offset = 0, 0
    waiting: list[dict[str, Any]] = []
    for token, text, finish, reason in steps(prompt, body):
        made += 1
        shown = decode([token])
        others = {shown: -0.5, "~": -1.25}
        found: Any = None
        if chat and top:
            rows = [(shown, -0.5), ("~", -1.25)][: body.get("top_logprobs") or 0]
            one = {"token": shown, "logprob": -0.5, "bytes": list(shown.encode())}
            one["top_logprobs"] = [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in rows]
            found = {"content": [one]}
        elif not chat and top is not None:
            likeliest = dict(list(others.items())[: top + 1])
            found = {"text_offset": [offset], "token_logprobs": [-0.5], "tokens": [shown], "top_logprobs": [likeliest]}
            offset += len(shown)
        choice: dict[str, Any] = {"index": 0} | ({"delta": {"content": text}} if chat else {"text": text})
        choice |= {"logprobs": found, "finish_reason": finish}
        if finish or not chat:
            choice["stop_reason"] = reason
        if not chat:
            choice["prompt_token_ids"] = prompt if ids and made == 1 else None
        choice["token_ids"] = [token] if ids else None
        waiting.append(choice)
        if finish or len(waiting) == together:
            say([merged(waiting)], {}, made, continuous)
            waiting = []
    if options.get("include_usage"):
        say([], {"usage": counted(made)}, made, False)
    return [*out, b"data: [DONE]\n\n"]

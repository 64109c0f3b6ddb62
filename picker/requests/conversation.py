"""A chat body as the messages that a chat template gets, shaped as vLLM's front end shapes them.

Two content formats exist, decided by the template: "string" joins the text parts of a message by newlines, "openai"
keeps a list of text parts. Anything that is not text is put as `MEDIA`, where the known prompt ends.
"""

from typing import Any, Literal

import msgspec

ContentFormat = Literal["string", "openai"]
Message = dict[str, Any]

MEDIA = "\ufdd0"
"""A noncharacter in place of an image, sound or other part whose tokens only the engine knows."""

_TEXT_PARTS = frozenset({"text", "input_text", "output_text", "refusal", "thinking"})
_BILLING_HEADER = "x-anthropic-billing-header"


class NotRenderable(Exception):
    """The engine's prompt cannot be rebuilt from this body; the caller falls back to text matching."""


def conversation(messages: list[Any], content_format: ContentFormat) -> list[Message]:
    """Messages for the template. Raises NotRenderable for shapes that the engine refuses or that we do not know."""
    return [_message(message, content_format) for message in messages]


def developer_as_system(messages: list[Message]) -> list[Message]:
    """For templates that know no developer role: developers speak as system, and all system text moves to the front."""
    if not any(message["role"] == "developer" for message in messages):
        return messages
    renamed = [
        {key: value for key, value in message.items() if key != "tools"} | {"role": "system"}
        if message["role"] == "developer"
        else message
        for message in messages
    ]
    systems = [message for message in renamed if message["role"] == "system"]
    if len(systems) == 1 and renamed[0] is systems[0]:
        return renamed
    texts = [text for message in systems if (text := _flat(message["content"]))]
    merged: Message = {"role": "system", "content": "\n\n".join(texts)}
    return [merged, *(message for message in renamed if message["role"] != "system")]


def tool_schemas(tools: list[Any]) -> list[Message]:
    """Tools with the keys, and in the order, that vLLM hands to a template."""
    schemas = []
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            raise NotRenderable("a tool without a function")
        known = {key: function.get(key) for key in ("name", "description", "parameters")}
        known |= {key: function[key] for key in ("strict", "defer_loading") if function.get(key) is not None}
        schemas.append({"type": "function", "function": known})
    return schemas


def anthropic(system: Any, messages: list[Any]) -> list[Message]:
    """Anthropic messages of plain text as OpenAI ones. Raises NotRenderable where tools, thinking or media appear."""
    converted: list[Message] = []
    if text := "".join(_anthropic_texts(system)):
        converted.append({"role": "system", "content": text})
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in ("user", "assistant"):
            raise NotRenderable("a role of its own")
        content = message.get("content")
        if not isinstance(content, str):
            parts = [{"type": "text", "text": text} for text in _anthropic_texts(content)]
            if not parts:
                raise NotRenderable("a message that says nothing")
            content = parts[0]["text"] if len(parts) == 1 else parts
        converted.append({"role": message["role"], "content": content})
    return converted


def _anthropic_texts(content: Any) -> list[str]:
    if not content:
        return []
    if isinstance(content, str):
        return [content]
    texts = []
    for block in content if isinstance(content, list) else [content]:
        text = block.get("text") if isinstance(block, dict) and block.get("type") == "text" else None
        if not isinstance(text, str):
            raise NotRenderable("a block that is not text")
        if text and not text.startswith(_BILLING_HEADER):
            texts.append(text)
    return texts


def _message(message: Any, content_format: ContentFormat) -> Message:
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str):
        raise NotRenderable("a message without a role")
    texts = _texts(message.get("content"), strip_billing=role == "system")
    if content_format == "string":
        # vLLM puts a message's media in front of its text.
        content: Any = "\n".join(sorted(texts, key=lambda text: text != MEDIA))
    elif role == "tool" and MEDIA not in texts:
        content = "\n".join(texts)
    else:
        content = [{"type": "text", "text": text} for text in texts]
    shaped: Message = {"role": role, "content": content}
    if role == "assistant":
        _add_assistant_parts(message, shaped)
    elif role == "tool" and "tool_call_id" in message:
        shaped["tool_call_id"] = message["tool_call_id"]
    if isinstance(message.get("name"), str):
        shaped["name"] = message["name"]
    if role == "developer":
        shaped["tools"] = message.get("tools")
    return shaped


def _texts(content: Any, *, strip_billing: bool) -> list[str]:
    if content is None:
        return []
    texts = []
    for part in [content] if isinstance(content, str) else content if isinstance(content, list) else [None]:
        text = _part_text(part)
        if strip_billing and text is not None and text.startswith(_BILLING_HEADER):
            text = text.partition("\n")[2] or None
        if text is not None:
            texts.append(text)
    return texts


def _part_text(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        raise NotRenderable("a content part of no known type")
    part_type = part.get("type")
    if part_type is not None and not isinstance(part_type, str):
        raise NotRenderable("a content part of no known type")
    if part_type not in _TEXT_PARTS and not (part_type is None and "text" in part):
        return MEDIA
    text = part.get("refusal" if part_type == "refusal" else "thinking" if part_type == "thinking" else "text")
    if text is not None and not isinstance(text, str):
        raise NotRenderable("text that is not text")
    return text


def _add_assistant_parts(message: Message, shaped: Message) -> None:
    calls = message.get("tool_calls")
    if calls:
        if not isinstance(calls, list):
            raise NotRenderable("tool calls that are no list")
        shaped["tool_calls"] = [_tool_call(call) for call in calls]
    reasoning = message.get("reasoning", message.get("reasoning_content"))
    if reasoning is not None:
        shaped["reasoning"] = shaped["reasoning_content"] = reasoning


def _tool_call(call: Any) -> Message:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(function, dict) or call.get("type", "function") != "function":
        raise NotRenderable("a tool call without a function")
    arguments = function.get("arguments")
    if isinstance(arguments, str) and arguments:
        try:
            arguments = msgspec.json.decode(arguments)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            arguments = {}
    shaped = {key: call[key] for key in ("id",) if key in call}
    shaped["function"] = {"arguments": arguments if isinstance(arguments, dict) else {}, "name": function.get("name")}
    return shaped | {"type": "function"}


def _flat(content: Any) -> str:
    return content if isinstance(content, str) else "\n".join(part["text"] for part in content)

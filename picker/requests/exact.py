"""Exact mode: the token ids that the engine will compute, from its own chat template and tokenizer."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from picker.requests.conversation import MEDIA, NotRenderable, anthropic, tool_schemas
from picker.requests.request import Api
from picker.requests.template import ChatTemplate
from picker.requests.tokenizer import Ids, Tokenizer, read_config, token_text

_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class ChatBody(msgspec.Struct, gc=False):
    """Everything that changes the prompt of a chat request."""

    messages: list[Any] = []
    system: Any = None
    instructions: Any = None
    input: Any = None
    prompt: Any = None
    suffix: Any = None
    prompt_embeds: Any = None
    previous_response_id: Any = None
    tools: list[Any] | None = None
    tool_choice: Any = None
    documents: list[Any] | None = None
    reasoning_effort: Any = None
    reasoning: Any = None
    thinking: Any = None
    output_config: Any = None
    add_generation_prompt: Any = True
    continue_final_message: Any = False
    add_special_tokens: Any = None
    chat_template: Any = None
    chat_template_kwargs: dict[str, Any] | None = None
    truncate_prompt_tokens: Any = None
    mm_processor_kwargs: Any = None


@dataclass(frozen=True, slots=True)
class ExactPrompt:
    """`ids` of the prompt as far as it is known; `complete` unless it goes on with something that is not text."""

    ids: Ids
    complete: bool = True


_DECODER = msgspec.json.Decoder(ChatBody)


class ExactModel:
    """One model's folder: tokenizer.json, tokenizer_config.json and its chat template, read once.

    Raises FileNotFoundError or ValueError where the folder does not hold a usable tokenizer.
    """

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer(folder)
        config = read_config(folder)
        special = {name: text for name in _SPECIAL_TOKENS if (text := token_text(config.get(name)))}
        try:
            self._templates = {name: ChatTemplate(text, special) for name, text in _sources(folder, config).items()}
        except jinja2.TemplateError as error:
            raise ValueError(f"{folder}: chat template: {error}") from error

    def prompt(self, api: Api, body: bytes) -> ExactPrompt:
        """The prompt's ids. Raises NotRenderable where the engine's own view cannot be told from the body."""
        try:
            decoded = _DECODER.decode(body)
        except (ValueError, RecursionError) as error:
            raise NotRenderable(str(error)) from error
        if decoded.truncate_prompt_tokens is not None or decoded.prompt_embeds is not None:
            raise NotRenderable("the engine cuts or replaces this prompt")
        if api in (Api.COMPLETIONS, Api.EMBEDDINGS) and not decoded.messages:
            return self._bare(decoded.prompt if api is Api.COMPLETIONS else decoded.input, decoded)
        return self._chat(api, decoded)

    def _bare(self, prompt: Any, body: ChatBody) -> ExactPrompt:
        if isinstance(prompt, list) and len(prompt) == 1:
            prompt = prompt[0]
        if not isinstance(prompt, str) or body.suffix is not None:
            raise NotRenderable("not one text prompt")
        return ExactPrompt(self.tokenizer.ids(prompt, add_special_tokens=body.add_special_tokens is not False))

    def _chat(self, api: Api, body: ChatBody) -> ExactPrompt:
        if body.chat_template is not None or body.mm_processor_kwargs is not None:
            raise NotRenderable("a template of the client's own")
        messages = _messages(api, body)
        tools = tool_schemas(body.tools) if body.tools else None
        template = self._templates.get("tool_use" if tools else "default") or self._templates.get("default")
        if template is None or not messages:
            raise NotRenderable("no template, or nothing to render")
        text = template.render(
            messages,
            tools=tools,
            documents=body.documents,
            add_generation_prompt=body.add_generation_prompt is not False,
            continue_final_message=body.continue_final_message is True,
            variables=_variables(body),
        )
        known, media, _ = text.partition(MEDIA)
        if media:
            # What follows may join with the last piece, so the ids of that one are not certain.
            return ExactPrompt(self.tokenizer.settled_ids(known), complete=False)
        return ExactPrompt(self.tokenizer.ids(text, add_special_tokens=body.add_special_tokens is True))


def _messages(api: Api, body: ChatBody) -> list[Any]:
    if api is Api.MESSAGES:
        if body.tools or body.thinking or body.output_config:
            raise NotRenderable("Anthropic tools and thinking")
        return anthropic(body.system, body.messages)
    if api is Api.RESPONSES:
        return _responses(body)
    return body.messages


def _responses(body: ChatBody) -> list[Any]:
    if body.previous_response_id is not None or body.tools or body.reasoning:
        raise NotRenderable("context that the engine holds, or responses tools")
    items = [{"role": "user", "content": body.input}] if isinstance(body.input, str) else body.input
    if not isinstance(items, list) or not items or not isinstance(items[-1], dict) or items[-1].get("role") != "user":
        raise NotRenderable("an input that does not end with the user")
    head = [{"role": "system", "content": body.instructions}] if body.instructions else []
    return head + [_turn(item) for item in items]


def _turn(item: Any) -> dict[str, Any]:
    role = item.get("role") if isinstance(item, dict) and item.get("type", "message") == "message" else None
    if role not in ("user", "system", "assistant"):
        raise NotRenderable("responses items that are not turns")
    content = item.get("content")
    if role == "assistant" and not isinstance(content, str) and not (isinstance(content, list) and len(content) == 1):
        raise NotRenderable("an assistant turn in several parts")
    return {"role": role, "content": content}


def _variables(body: ChatBody) -> dict[str, Any]:
    given = dict(body.chat_template_kwargs or {})
    if body.reasoning_effort is not None:
        given.setdefault("enable_thinking", body.reasoning_effort != "none")
        given["reasoning_effort"] = body.reasoning_effort
    return given


def _sources(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """Template sources by name, "default" and perhaps "tool_use"; files win over tokenizer_config.json."""
    declared = config.get("chat_template")
    sources: dict[str, str] = {}
    if isinstance(declared, str):
        sources["default"] = declared
    elif isinstance(declared, list):
        for entry in declared:
            if isinstance(entry, dict) and isinstance(entry.get("template"), str):
                sources[str(entry.get("name", "default"))] = entry["template"]
    legacy = folder / "chat_template.json"
    if legacy.is_file():
        named = json.loads(legacy.read_bytes())
        if isinstance(named, dict) and isinstance(named.get("chat_template"), str):
            sources["default"] = named["chat_template"]
    if (file := folder / "chat_template.jinja").is_file():
        sources["default"] = file.read_text(encoding="utf-8")
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        sources[file.stem] = file.read_text(encoding="utf-8")
    return sources

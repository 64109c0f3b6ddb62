import json
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Encoder

from picker.requests.blocks import chain_tokens, root
from picker.requests.conversation import NotRenderable
from picker.requests.exact import ExactModel
from picker.requests.reader import Reader, ReaderSettings
from picker.requests.request import Api, Request
from picker.requests.template import ChatTemplate
from picker.requests.tokenizer import TokenCache, Tokenizer

Folders = dict[str, Path]
Tokenizers = dict[str, Tokenizer]
"""By the kind of their encoder."""
CHAT = "/v1/chat/completions"
SPECIAL = ["<|im_start|>", "<|im_end|>", "<|im_start|>x", "<s>"]
CORPUS = ["the user said hello to the assistant and the system", "lorem ipsum dolor sit amet user assistant \n\n 12 34"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}:{% for part in m.content %}{% if part.type == 'text' %}"
    "{{ part.text | trim }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
)


def byte_level() -> Encoder:
    encoder = Encoder(models.BPE())
    encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    encoder.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    encoder.train_from_iterator(CORPUS, trainer)
    return encoder


def word_marked() -> Encoder:
    """Like SentencePiece models: the first word of a text gets a mark in front, and BOS goes before a bare prompt."""
    encoder = Encoder(models.BPE(unk_token="<unk>", byte_fallback=True))
    encoder.normalizer = normalizers.NFKC()
    encoder.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", *SPECIAL], show_progress=False)
    encoder.train_from_iterator(CORPUS, trainer)
    encoder.add_special_tokens([AddedToken("<mask>", lstrip=True), AddedToken("<right>", rstrip=True)])
    encoder.add_tokens([AddedToken("lorem", normalized=True)])
    encoder.post_processor = processors.TemplateProcessing(
        "<s> $A", special_tokens=[("<s>", encoder.token_to_id("<s>"))]
    )
    return encoder


ENCODERS = {"bytes": byte_level(), "words": word_marked()}


def make_folder(path: Path, kind: str = "bytes", template: object = CHATML, **config: object) -> Path:
    path.mkdir(exist_ok=True)
    ENCODERS[kind].save(str(path / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": {"content": "<|im_end|>"}, "chat_template": template} | config
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    return path


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    base = tmp_path_factory.mktemp("models")
    return {kind: make_folder(base / kind, kind) for kind in ENCODERS}


@pytest.fixture(scope="session")
def tokenizers(folders: Folders) -> Tokenizers:
    return {kind: Tokenizer(folder) for kind, folder in folders.items()}


@pytest.fixture
def reader(folders: Folders) -> Reader:
    return Reader(ReaderSettings(tokenizers={"m": folders["bytes"]}, adapters={"lora": "m"}))


def read(reader: Reader, body: dict[str, Any], path: str = CHAT) -> Request:
    return reader.finish(reader.parse(path, {}, json.dumps({"model": "m"} | body).encode()))


def turns(*texts: str) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]


def chatml(*texts: str) -> str:
    return "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in turns(*texts))


def encoded(text: str, kind: str = "bytes", special: bool = False) -> list[int]:
    return ENCODERS[kind].encode(text, add_special_tokens=special).ids


pieces = st.sampled_from(
    [*SPECIAL, "<mask>", "<right>", "<|im_", "lorem", "hello", " ", "  \n", "é", "12", "user", "<", "😀"]
)
texts = st.lists(pieces | st.text(max_size=5), max_size=12).map("".join)


@given(st.sampled_from(sorted(ENCODERS)), texts, st.booleans())
def test_ids_are_those_of_the_whole_text_however_much_was_cached(
    tokenizers: Tokenizers, kind: str, text: str, special: bool
) -> None:
    assert tokenizers[kind].ids(text, add_special_tokens=special).tolist() == encoded(text, kind, special)


@given(st.sampled_from(sorted(ENCODERS)), texts, texts)
def test_settled_ids_stay_whatever_follows(tokenizers: Tokenizers, kind: str, text: str, more: str) -> None:
    settled = tokenizers[kind].settled_ids(text).tolist()
    assert encoded(text + more, kind)[: len(settled)] == settled


def test_a_chat_is_matched_on_the_ids_of_its_rendered_template(reader: Reader) -> None:
    request = read(reader, {"messages": turns("hello " * 40, "yes", "more")})
    expected = encoded(chatml("hello " * 40, "yes", "more") + "<|im_start|>assistant\n")
    assert (request.exact, request.tokens_source, request.block_tokens) == (True, "tokenizer", 16)
    assert request.prompt_tokens == len(expected)
    np.testing.assert_array_equal(request.chain, chain_tokens(expected, 16, root()))


def test_adapter_and_salt_are_in_the_root(reader: Reader) -> None:
    ids = encoded(chatml("hello " * 40) + "<|im_start|>assistant\n")
    request = read(reader, {"model": "lora", "messages": turns("hello " * 40), "cache_salt": "s"})
    np.testing.assert_array_equal(request.chain, chain_tokens(ids, 16, root("lora", "s")))


def test_another_model_is_matched_as_text(reader: Reader) -> None:
    assert not read(reader, {"model": "other", "messages": turns("hello")}).exact


def test_a_bare_prompt_gets_the_models_special_tokens(folders: Folders) -> None:
    reader = Reader(ReaderSettings(tokenizers={"m": folders["words"]}))
    prompt = "hello assistant " * 9
    for body, special in (({"prompt": prompt}, True), ({"prompt": prompt, "add_special_tokens": False}, False)):
        request = read(reader, body, "/v1/completions")
        expected = encoded(prompt, "words", special)
        assert request.prompt_tokens == len(expected)
        np.testing.assert_array_equal(request.chain, chain_tokens(expected, 16, root()))


def test_tokenizer_config_may_switch_the_bos_token(tmp_path: Path) -> None:
    on = Tokenizer(make_folder(tmp_path / "on", "bytes", add_bos_token=True))
    off = Tokenizer(make_folder(tmp_path / "off", "words", add_bos_token=False))
    assert on.ids("hello", add_special_tokens=True).tolist() == encoded("<s>hello")
    assert off.ids("hello", add_special_tokens=True).tolist() == encoded("hello", "words")


def test_the_final_message_can_be_continued(reader: Reader) -> None:
    body = {"messages": turns("hello", "the us"), "continue_final_message": True, "add_generation_prompt": False}
    expected = encoded(chatml("hello") + "<|im_start|>assistant\nthe us")
    assert read(reader, body).prompt_tokens == len(expected)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/messages", {"system": "the system", "messages": [{"role": "user", "content": "hello"}]}),
        ("/v1/messages", {"system": [{"type": "text", "text": "the system"}], "messages": turns("hello")}),
        ("/v1/responses", {"instructions": "the system", "input": "hello"}),
        (CHAT, {"messages": [{"role": "developer", "content": "the system"}, *turns("hello")]}),
        (CHAT, {"messages": [{"role": "system", "content": "the system"}, *turns("hello")]}),
        (
            CHAT,
            {"messages": [{"role": "system", "content": "x-anthropic-billing-header: 1\nthe system"}, *turns("hello")]},
        ),
    ],
)
def test_the_apis_meet_in_one_prompt(reader: Reader, path: str, body: dict[str, Any]) -> None:
    request = read(reader, body, path)
    expected = encoded("<|im_start|>system\nthe system<|im_end|>\n" + chatml("hello") + "<|im_start|>assistant\n")
    np.testing.assert_array_equal(request.chain, chain_tokens(expected, 16, root()))
    assert request.prompt_tokens == len(expected)


def test_responses_with_history_are_the_chat_they_stand_for(reader: Reader) -> None:
    answer = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]}
    items = [{"role": "user", "content": "hello " * 40}, answer, {"role": "user", "content": "more"}]
    request = read(reader, {"input": items}, "/v1/responses")
    expected = encoded(chatml("hello " * 40, "yes", "more") + "<|im_start|>assistant\n")
    np.testing.assert_array_equal(request.chain, chain_tokens(expected, 16, root()))


@pytest.mark.parametrize(
    "body",
    [
        {"input": "x", "previous_response_id": "r"},
        {"input": "x", "tools": [{"type": "web_search"}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]},
        {"input": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
        {"input": ["x"]},
    ],
)
def test_responses_that_need_what_the_engine_holds_are_matched_as_text(reader: Reader, body: dict[str, Any]) -> None:
    assert not read(reader, body, "/v1/responses").exact


@pytest.mark.parametrize(
    "more",
    [
        {"chat_template": "{{ messages }}"},
        {"truncate_prompt_tokens": 5},
        {"messages": [{"role": 5, "content": "x"}]},
        {"messages": [{"content": "x"}]},
        {"messages": ["x"]},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"role": "user", "content": [{"type": ["text"]}]}]},
        {"tools": ["x"]},
        {"documents": 5},
    ],
)
def test_what_cannot_be_rendered_is_matched_as_text(reader: Reader, more: dict[str, Any]) -> None:
    request = read(reader, {"messages": turns("hello")} | more)
    assert (request.exact, request.tokens_source) == (False, "ratio")


def test_a_template_that_refuses_leaves_text_matching(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m", template="{{ raise_exception('roles must alternate') }}")
    assert not read(Reader(ReaderSettings(tokenizers={"m": folder})), {"messages": turns("hello")}).exact


def test_an_image_ends_what_is_known(tmp_path: Path) -> None:
    reader = Reader(ReaderSettings(tokenizers={"m": make_folder(tmp_path / "m", template=PARTS)}))
    picture = {"type": "image_url", "image_url": {"url": "http://x/y.png"}}
    text = {"type": "text", "text": "hello " * 20}
    messages = [{"role": "user", "content": [text]}, {"role": "user", "content": [text, picture, text]}]
    request = read(reader, {"messages": messages})
    before = encoded("<|im_start|>user:" + ("hello " * 20).strip() + "<|im_end|>")
    assert request.exact
    assert request.tokens_source == "ratio"
    assert len(before) // 16 <= len(request.chain) <= (len(before) + 2) // 16 + 1
    np.testing.assert_array_equal(request.chain[: len(before) // 16], chain_tokens(before, 16, root()))


def test_the_next_turn_tokenises_only_its_tail(reader: Reader) -> None:
    long, tail = ("hello assistant " * 300, "yes ", "more " * 300), ("ok", "hm")
    draft = reader.parse(CHAT, {}, json.dumps({"model": "m", "messages": turns(*long)}).encode())
    assert reader.is_slow(draft)
    reader.finish(draft)
    following = reader.parse(CHAT, {}, json.dumps({"model": "m", "messages": turns(*long, *tail)}).encode())
    assert not reader.is_slow(following)


def test_the_token_cache_is_bounded_and_keeps_what_is_used() -> None:
    cache = TokenCache(pieces=3, tokens=10)
    for name in (b"a", b"b", b"c"):
        cache.put(name, np.arange(2, dtype=np.uint32))
    cache.get(b"a")
    cache.put(b"d", np.arange(3, dtype=np.uint32))
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None
    cache.put(b"e", np.arange(11, dtype=np.uint32))
    assert cache.get(b"e") is None
    for number in range(100):
        cache.put(bytes([number]), np.arange(4, dtype=np.uint32))
    assert len(cache) <= 2


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (CHATML, "string"),
        (PARTS, "openai"),
        ("{% for m in messages[1:] %}{% for c in m['content'] | list %}{{ c }}{% endfor %}{% endfor %}", "openai"),
        ("{% set all = messages %}{% for m in all %}{% for c in m.content %}{{ c }}{% endfor %}{% endfor %}", "openai"),
        ("{% macro r(x) %}{% for c in x %}{{ c }}{% endfor %}{% endmacro %}{% for m in messages %}{{ r(m.content) }}"
         "{% endfor %}", "openai"),
        ("{% macro r(x) %}{% for c in x %}{{ c }}{% endfor %}{% endmacro %}{% for m in messages %}{{ r(m.role) }}"
         "{% endfor %}", "string"),
        ("{% for m in messages %}{% for c in m.tool_calls %}{{ c }}{% endfor %}{% endfor %}", "string"),
    ],
)  # fmt: skip
def test_the_template_decides_how_content_is_given(template: str, expected: str) -> None:
    assert ChatTemplate(template).content_format == expected


def test_templates_have_the_tools_of_the_trade() -> None:
    source = (
        "{{ bos_token }}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% for m in messages %}"
        "{% if loop.index0 > 0 %}{% break %}{% endif %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
        "{{ strftime_now('%%') }}{{ 'T' if enable_thinking }}"
    )
    tools = [{"type": "function", "function": {"name": "f", "description": None, "parameters": {"é": "<"}}}]
    text = ChatTemplate(source, {"bos_token": "<s>"}).render(
        turns("a", "b"), tools=tools, variables={"enable_thinking": True, "messages": []}
    )
    assert text == "<s>" + json.dumps(tools[0], ensure_ascii=False) + "a%T"


@pytest.mark.parametrize("source", ["{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}", "{{ 1 / 0 }}"])
def test_a_template_cannot_reach_out_of_its_sandbox(source: str) -> None:
    with pytest.raises(NotRenderable):
        ChatTemplate(source).render(turns("a"))


def test_tool_calls_reach_the_template_with_their_arguments_parsed() -> None:
    calls = [{"type": "function", "id": "1", "function": {"name": "f", "arguments": '{"b": 1, "a": 2}'}}]
    source = (
        "{% for m in messages %}{{ m.content }}{{ (m.tool_calls or [])[0].function.arguments | tojson }}{% endfor %}"
    )
    assert ChatTemplate(source).render([{"role": "assistant", "tool_calls": calls}]) == '{"b": 1, "a": 2}'


def test_a_template_for_tools_is_used_when_there_are_tools(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "hello"}, {"name": "tool_use", "template": "assistant"}]
    model = ExactModel(make_folder(tmp_path / "m", template=named))
    tools = [{"type": "function", "function": {"name": "f"}}]
    for body, text in (({}, "hello"), ({"tools": tools}, "assistant")):
        prompt = model.prompt(Api.CHAT, json.dumps({"messages": turns("x")} | body).encode())
        assert prompt.ids.tolist() == encoded(text)


def test_a_template_file_wins_over_the_configuration(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "m")
    (folder / "chat_template.jinja").write_text("hello")
    assert ExactModel(folder).prompt(Api.CHAT, b'{"messages":[{"role":"user"}]}').ids.tolist() == encoded("hello")


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        ExactModel(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "["),
        ("tokenizer_config.json", "[]"),
        ("chat_template.jinja", "{% for %}"),
    ],
)
def test_a_folder_with_a_broken_file_is_an_error(tmp_path: Path, name: str, content: str) -> None:
    folder = make_folder(tmp_path / "m")
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match="m"):
        ExactModel(folder)


def test_a_template_source_that_is_none_is_an_error() -> None:
    with pytest.raises(jinja2.TemplateSyntaxError):
        ChatTemplate("{% if %}")

"""A model's chat template, run as Hugging Face runs it: in jinja's immutable sandbox."""

import datetime
import json
from collections.abc import Mapping
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
import jinja2.sandbox
from jinja2 import nodes

from picker.requests.conversation import ContentFormat, Message, NotRenderable, conversation, developer_as_system

_CONTINUED = "\ufdd1"
"""A noncharacter behind the text of the final message that is to be continued."""
_CONTENT = "content"


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` blocks mark what an assistant said, for training; here they are plain text."""

    tags = {"generation"}  # noqa: RUF012 - jinja's own interface

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class ChatTemplate:
    """One compiled template. Raises jinja2.TemplateSyntaxError for a source that is none."""

    def __init__(self, source: str, special_tokens: Mapping[str, str] | None = None) -> None:
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        tree = environment.parse(source)
        self._template = environment.from_string(source)
        self._special_tokens = dict(special_tokens or {})
        self._knows_developer = '"developer"' in source or "'developer'" in source
        self.variables = frozenset(jinja2.meta.find_undeclared_variables(tree))
        self.content_format: ContentFormat = content_format(tree)

    def render(
        self,
        messages: list[Any],
        *,
        tools: list[Message] | None = None,
        documents: list[Any] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt's text for raw chat messages. Raises NotRenderable where the template refuses them."""
        shaped = conversation(messages, self.content_format)
        if not self._knows_developer:
            shaped = developer_as_system(shaped)
        if continue_final_message:
            final = _mark_final(shaped)
        given = {name: value for name, value in (variables or {}).items() if name in self.variables}
        try:
            text = self._template.render(
                **self._special_tokens
                | given
                | {
                    "messages": shaped,
                    "tools": tools,
                    "documents": documents,
                    "add_generation_prompt": add_generation_prompt,
                }
            )
        except RecursionError as error:
            raise NotRenderable("nested too deeply") from error
        except Exception as error:
            # A template may fail in any way on values that it did not expect; the engine answers for that.
            raise NotRenderable(str(error)) from error
        return _cut_at_mark(text, final) if continue_final_message else text


def content_format(tree: nodes.Template) -> ContentFormat:
    """ "openai" for a template that loops over the parts of a message's content, else "string"; vLLM's rule."""
    messages = _aliases(tree, {"messages"})
    items = {
        loop.target.name
        for loop in tree.find_all(nodes.For)
        if isinstance(loop.target, nodes.Name)
        and isinstance(name := _stem(loop.iter), nodes.Name)
        and name.name in messages
    }
    in_macros: set[int] = set()
    macro_contents: dict[int, set[str]] = {}
    for macro in tree.find_all(nodes.Macro):
        loops = {id(loop) for loop in macro.find_all(nodes.For)}
        in_macros |= loops
        fed = _content_parameters(tree, macro, items)
        for loop_id in loops:
            macro_contents[loop_id] = fed
    for loop in tree.find_all(nodes.For):
        source = _stem(loop.iter)
        if _is_content_of(source, items):
            return "openai"
        if isinstance(source, nodes.Name) and source is loop.iter:
            inside = id(loop) in in_macros
            if source.name in macro_contents.get(id(loop), ()) or (not inside and source.name == _CONTENT):
                return "openai"
    return "string"


def _aliases(tree: nodes.Template, names: set[str]) -> set[str]:
    while True:
        more = {
            assign.target.name
            for assign in tree.find_all(nodes.Assign)
            if isinstance(assign.target, nodes.Name)
            and isinstance(source := _stem(assign.node), nodes.Name)
            and source.name in names
        }
        if more <= names:
            return names
        names = names | more


def _content_parameters(tree: nodes.Template, macro: nodes.Macro, items: set[str]) -> set[str]:
    parameters = [argument.name for argument in macro.args]
    fed = set()
    for call in tree.find_all(nodes.Call):
        if not (isinstance(call.node, nodes.Name) and call.node.name == macro.name):
            continue
        positional = zip(parameters, call.args, strict=False)
        named = ((keyword.key, keyword.value) for keyword in call.kwargs if isinstance(keyword, nodes.Keyword))
        fed |= {name for name, value in (*positional, *named) if _is_content_of(_stem(value), items)}
    return fed & set(parameters)


def _stem(node: nodes.Node | None) -> nodes.Node | None:
    """What a chain of filters, tests and slices is applied to."""
    while True:
        if isinstance(node, nodes.Filter | nodes.Test) or (
            isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice)
        ):
            node = node.node
        else:
            return node


def _is_content_of(node: nodes.Node | None, items: set[str]) -> bool:
    if isinstance(node, nodes.Getitem):
        named = isinstance(node.arg, nodes.Const) and node.arg.value == _CONTENT
    elif isinstance(node, nodes.Getattr):
        named = node.attr == _CONTENT
    else:
        return False
    return named and isinstance(node.node, nodes.Name) and node.node.name in items


def _mark_final(messages: list[Message]) -> str:
    """Put the mark behind the last text of the last message; gives that text."""
    content = messages[-1][_CONTENT]
    if isinstance(content, str):
        messages[-1][_CONTENT] = content + _CONTINUED + " "
        return content
    if not content:
        raise NotRenderable("no text to continue")
    text: str = content[-1]["text"]
    content[-1]["text"] = text + _CONTINUED + " "
    return text


def _cut_at_mark(text: str, final: str) -> str:
    before, mark, after = text.rpartition(_CONTINUED)
    if not mark or final.strip() not in text:
        raise NotRenderable("the template drops the message that is to be continued")
    # A template that trims its messages took the blank behind the mark; it would have trimmed the text as well.
    return before if after.startswith(" ") else before.rstrip()


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> str:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)

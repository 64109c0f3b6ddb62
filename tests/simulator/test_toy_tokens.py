"""The tokenisation of an engine without a model."""

from hypothesis import given
from hypothesis import strategies as st

from picker.simulator import toy


def test_four_bytes_are_a_token() -> None:
    assert toy.encode("abcdef") == [int.from_bytes(b"abcd", "little"), int.from_bytes(b"ef", "little")]


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")))
def test_text_survives(text: str) -> None:
    assert toy.decode(toy.encode(text)) == text


@given(st.text(), st.text())
def test_equal_prefixes_give_equal_tokens(shared: str, rest: str) -> None:
    whole = len(shared.encode("utf-8", "replace")) // toy.BYTES_PER_TOKEN
    assert toy.encode(shared)[:whole] == toy.encode(shared + rest)[:whole]


@given(st.lists(st.integers(0, toy.MAX_TOKEN)))
def test_any_ids_decode_to_something(tokens: list[int]) -> None:
    assert isinstance(toy.decode(tokens), str)


@given(st.text(max_size=30), st.integers(1, 40), st.integers())
def test_the_next_turn_begins_with_the_tokens_of_this_one(question: str, length: int, seed: int) -> None:
    prompt = toy.render_chat([("user", question)])
    answer = toy.continuation(prompt, length, seed)
    follow_up = toy.render_chat([("user", question), ("assistant", toy.decode(answer)), ("user", "more")])
    assert follow_up[: len(prompt) + length] == prompt + answer


def test_answers_depend_on_prompt_and_seed_alone() -> None:
    assert toy.continuation([1, 2], 20, 5) == toy.continuation([1, 2], 20, 5)
    assert toy.continuation([1, 2], 20, 5) != toy.continuation([1, 3], 20, 5)
    assert toy.continuation([1, 2], 20, 5) != toy.continuation([1, 2], 20, 6)


def test_a_drawn_length_keeps_its_limit() -> None:
    lengths = [toy.drawn_length([i], seed=1, limit=150) for i in range(50)]
    assert max(lengths) == 150
    assert min(lengths) >= 1
    assert len(set(lengths)) > 5


def test_half_an_answer_is_continued_with_the_other_half() -> None:
    answer = toy.continuation([1, 2], 20, 5)
    assert toy.continuation([1, 2, *answer[:7]], 13, 5) == answer[7:]

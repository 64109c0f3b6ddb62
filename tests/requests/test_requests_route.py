import pytest

from picker.requests.request import Api
from picker.requests.route import route


@pytest.mark.parametrize(
    ("path", "api"),
    [
        ("/v1/chat/completions", Api.CHAT),
        ("/v1/completions", Api.COMPLETIONS),
        ("/v1/responses", Api.RESPONSES),
        ("/v1/embeddings", Api.EMBEDDINGS),
        ("/v1/messages", Api.MESSAGES),
        ("/inference/v1/generate", Api.GENERATE),
        ("/tokenize", Api.TOKENIZE),
        ("/detokenize", Api.TOKENIZE),
        ("/v1/messages/count_tokens", Api.TOKENIZE),
        ("/v1/chat/completions/batch", Api.CHAT),
    ],
)
def test_each_api_is_known_by_the_end_of_its_path(path: str, api: Api) -> None:
    assert route(path).api is api


@pytest.mark.parametrize(
    "path",
    [
        "/openai/v1/chat/completions",
        "/v1/chat/completions/",
        "/v1/chat/completions?api-version=2024/tokenize",
        "//v1//chat/completions",
        "/v1/chat/complet%69ons",
        "/v1/chat%2Fcompletions",
        "chat/completions",
    ],
)
def test_prefixes_queries_slashes_and_escapes_do_not_hide_the_api(path: str) -> None:
    assert route(path).api is Api.CHAT


@pytest.mark.parametrize("path", ["", "/", "/v1/models", "/mycompletions", "/v1/responses/abc/cancel", "/score", "*"])
def test_everything_else_passes_through(path: str) -> None:
    assert route(path).api is Api.PASSTHROUGH

"""Who gets in: keys, origins and addresses."""

from __future__ import annotations

import hmac

import openai
import pytest
from openai import OpenAI

from guardrail.errors import ConfigError
from guardrail.integrations.openai_server import Keys
from guardrail.integrations.web.auth import require_safe_address
from tests.integrations.server.running import (
    PROXY_KEY,
    UPSTREAM_KEY,
    Upstream,
    get,
    post,
    proxy,
)
from tests.integrations.server.test_completions import ask

KEYS = Keys(proxy=("another-key-0123456789", PROXY_KEY), upstream=UPSTREAM_KEY)


@pytest.mark.parametrize("key", ["wrong-key-0123456789", PROXY_KEY[:-1], f"{PROXY_KEY}x", "ключ-ключ-ключ"])
def test_a_wrong_key_is_turned_away_before_anything_is_asked(upstream: Upstream, key: str) -> None:
    with proxy(upstream, keys=KEYS) as url:
        headers = {"authorization": f"Bearer {key}".encode()}
        answer = post(f"{url}/v1/chat/completions", json={}, headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert upstream.asked == []


def test_the_client_hears_of_a_wrong_key_as_of_any_other(upstream: Upstream) -> None:
    with (
        proxy(upstream, keys=KEYS) as url,
        OpenAI(base_url=f"{url}/v1", api_key="wrong-key-0123456789") as client,
        pytest.raises(openai.AuthenticationError, match="no valid key"),
    ):
        ask(client)


def test_each_of_several_keys_opens_and_only_what_holds_text_or_figures_is_locked(upstream: Upstream) -> None:
    with proxy(upstream, keys=KEYS) as url:
        for key in KEYS.proxy:
            opened = get(f"{url}/metrics", headers={"authorization": f"bearer {key}"})
            assert opened.status_code == 200
        statuses = {
            path: get(f"{url}{path}").status_code
            for path in ("/", "/page.js", "/healthz", "/metrics", "/v1/models", "/v1/anything")
        }
    assert statuses == {
        "/": 200,
        "/page.js": 200,
        "/healthz": 200,
        "/metrics": 401,
        "/v1/models": 401,
        "/v1/anything": 401,
    }


def test_keys_come_from_the_environment_and_are_never_printed() -> None:
    environ = {
        "GUARDRAIL_PROXY_KEYS": f" {PROXY_KEY} ,another-key-0123456789,",
        "GUARDRAIL_UPSTREAM_KEY": "up",
    }
    keys = Keys.from_environment(environ)
    assert keys == Keys((PROXY_KEY, "another-key-0123456789"), "up")
    assert repr(keys) == "Keys()"
    assert Keys.from_environment({}) == Keys()


@pytest.mark.parametrize(
    ("value", "told"), [("short", "16 characters"), (" , ", "holds no key"), ("", "no key")]
)
def test_a_key_that_protects_nothing_is_refused(value: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        Keys.from_environment({"GUARDRAIL_PROXY_KEYS": value})
    assert "short" not in str(caught.value)


@pytest.mark.parametrize(
    ("shown", "admitted"),
    [
        (None, False),
        ("Bearer", False),
        ("Bearer x", False),
        (f"Bearer {PROXY_KEY[:-1]}?", False),
        (f"Basic {PROXY_KEY}", False),
        *[(f"Bearer {key}", True) for key in KEYS.proxy],
    ],
)
def test_what_is_shown_is_compared_with_every_key_in_constant_time(
    monkeypatch: pytest.MonkeyPatch, shown: str | None, admitted: bool
) -> None:
    compared: list[bytes] = []
    in_constant_time = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(other)
        return in_constant_time(one, other)

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert KEYS.admit(shown) is admitted
    assert compared == [key.encode() for key in KEYS.proxy]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.example.org"])
def test_an_address_that_others_can_reach_needs_keys(host: str) -> None:
    with pytest.raises(ConfigError, match="GUARDRAIL_PROXY_KEYS"):
        require_safe_address(host, Keys())
    require_safe_address(host, KEYS)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_this_machines_own_addresses_need_none(host: str) -> None:
    require_safe_address(host, Keys())


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"origin": "https://elsewhere.example"}, "origin"),
        ({"origin": "null"}, "origin"),
        ({"host": "elsewhere.example"}, "host"),
        ({"host": "[::1"}, "host"),
        ({"origin": "http://[::1"}, "origin"),
        ({"host": "elsewhere.example", "origin": "http://elsewhere.example"}, "host"),
    ],
)
def test_other_peoples_web_pages_get_no_answer(
    url: str, upstream: Upstream, headers: dict[str, str], code: str
) -> None:
    answer = post(f"{url}/v1/chat/completions", json={}, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, code)
    assert upstream.asked == []


def test_our_own_page_gets_answers(url: str) -> None:
    answer = post(f"{url}/v1/detoxify", json={"input": "Fine."}, headers={"origin": url})
    assert answer.status_code == 200

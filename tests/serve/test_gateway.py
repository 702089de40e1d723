"""The server behind a proxy, asked by HEAD, and from pages of other origins."""

import asyncio

import pytest

from nearfar.errors import OptionError
from nearfar.serve import create_app
from served import TOKEN, counted, post, serving, stripping

PREFIX = "/shop/films"
ORIGIN = "https://example.org"


@pytest.fixture(scope="module")
def client(saved_model):
    with serving(create_app(saved_model)) as one:
        yield one


def readable(app):
    """All addresses that GET reads."""
    paths = [path for path, methods in app.openapi()["paths"].items() if "get" in methods]
    return [f"{path}?q=film" for path in [*paths, *app.state.endpoints.page, "/openapi.json"]]


# --------------------------------------------------------------------------------------------- HEAD


def test_head_is_get_without_a_body(saved_model):
    app = create_app(saved_model)
    addresses = readable(app)
    assert {"/?q=film", "/health?q=film", "/v1/model?q=film"} < set(addresses)
    with serving(app) as client:
        for address in addresses:
            seen, read = client.head(address), client.get(address)
            assert (seen.status_code, seen.content) == (200, b""), address
            assert seen.headers["content-type"] == read.headers["content-type"]
            if "/metrics" not in address:
                assert seen.headers["content-length"] == str(len(read.content))
        assert client.head("/v1/recommend").status_code == 405
        assert client.head("/nothing").status_code == 404


def test_head_has_no_body_whatever_server_runs_the_application(saved_model):
    got = []

    async def receive():
        return {"type": "http.request"}

    async def send(message):
        got.append(message)

    scope = {"type": "http", "method": "HEAD", "path": "/health", "query_string": b"",
             "headers": []}  # fmt: skip
    asyncio.run(create_app(saved_model)(scope, receive, send))
    assert got[0]["status"] == 200
    assert [message["body"] for message in got[1:]] == [b""]


# ------------------------------------------------------------------------------------ content type


@pytest.mark.parametrize(
    "path", ["/v1/recommend", "/v1/similar/items", "/v1/similar/users", "/v1/vectors",
             "/v1/map/position"],
)  # fmt: skip
@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_without_the_right_type_is_told_which_to_send(client, path, kind):
    headers = {} if kind is None else {"Content-Type": kind}
    answer = client.post(path, content=b'{"user": 1, "item": 1}', headers=headers)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["type"] == "RequestError"
    assert "`Content-Type: application/json`" in error["message"]
    assert (kind or "does not name a type") in error["message"]


def test_json_by_any_of_its_names_is_read(client):
    expected = post(client, "/v1/recommend", user=1)
    for kind in ("application/json; charset=utf-8", "application/vnd.api+json"):
        answer = client.post(
            "/v1/recommend", content=b'{"user": 1}', headers={"Content-Type": kind}
        )
        assert answer.json() == expected


# ------------------------------------------------------------------------------------------ prefix


@pytest.mark.parametrize("strips", [False, True])
def test_a_prefix_works_whether_the_proxy_removes_it_or_not(saved_model, strips):
    app = create_app(saved_model, root_path=f"{PREFIX}/", token=TOKEN, max_concurrent=1)
    with serving(stripping(app, PREFIX) if strips else app) as client:
        for address in readable(app):
            assert client.get(PREFIX + address).status_code == 200, address
        assert client.get(f"{PREFIX}/openapi.json").json()["servers"] == [{"url": PREFIX}]
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert client.post(f"{PREFIX}/reload", headers=headers).status_code == 200
        assert client.get(f"{PREFIX}/nothing").status_code == 404
        metrics = client.get(f"{PREFIX}/metrics").text
        assert 'nearfar_requests_total{route="/v1/model",status="200"} 1.0' in metrics
        assert 'nearfar_requests_total{route="other",status="404"} 1.0' in metrics


def test_the_address_of_the_page_gets_its_slash(saved_model):
    with serving(create_app(saved_model, root_path=PREFIX)) as client:
        answer = client.get(f"{PREFIX}?a=b%20c")
        assert answer.status_code == 307
        assert answer.headers["location"] == f"{PREFIX}/?a=b%20c"
        assert client.get(f"{PREFIX}?a=b", follow_redirects=True).text.startswith("<!doctype html>")


def test_a_slash_too_many_leads_to_no_other_host(client):
    answer = client.get("/health/", headers={"Host": "elsewhere.example"})
    assert answer.status_code == 404


@pytest.mark.parametrize(
    "prefix",
    ["films", "https://example.org/films", "/films?x=1", "/films#x", "/a b", "//films", "/a//b",
     "/../x", "/a/.", "/é", "/a%20b", 7, None, b"/films", "/v1", "/page", "/health", "/v1/map"],
)  # fmt: skip
def test_what_is_no_prefix_is_refused(saved_model, prefix):
    with pytest.raises(OptionError, match=r"`root_path` .*'/films'"):
        create_app(saved_model, root_path=prefix)


# ------------------------------------------------------------------------------------ other origins


def preflight(client, path, origin=ORIGIN, method="POST", headers="content-type"):
    return client.options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": headers,
        },
    )


def allowed(answer):
    return answer.headers.get("access-control-allow-origin")


def ask(client, origin, path="/v1/recommend", **asked):
    return client.post(path, json=asked or {"user": 1}, headers={"Origin": origin})


def test_without_origins_pages_elsewhere_are_not_allowed(client):
    assert allowed(preflight(client, "/v1/recommend")) is None
    assert allowed(ask(client, ORIGIN)) is None


def test_pages_of_listed_origins_are_allowed(saved_model):
    app = create_app(saved_model, cors_origins=[ORIGIN, "http://localhost:3000"], token=TOKEN)
    with serving(app) as client:
        for origin in (ORIGIN, "http://localhost:3000"):
            answer = preflight(client, "/v1/recommend", origin)
            assert (answer.status_code, allowed(answer)) == (200, origin)
            for answer in (ask(client, origin), ask(client, origin, user=99)):  # errors, too
                assert allowed(answer) == origin
                assert "origin" in answer.headers["vary"].lower()
            answer = preflight(client, "/reload", origin, headers="authorization")
            assert (answer.status_code, allowed(answer)) == (200, origin)
        for origin in ("https://example.com", "https://sub.example.org", "http://example.org",
                       "https://example.org:8443", "null"):  # fmt: skip
            answer = preflight(client, "/v1/recommend", origin)
            assert (answer.status_code, allowed(answer)) == (400, None)
            assert allowed(ask(client, origin)) is None


def test_pages_of_all_origins_may_ask_but_send_no_token(saved_model):
    with serving(create_app(saved_model, cors_origins=("*",), token=TOKEN)) as client:
        assert allowed(preflight(client, "/v1/recommend")) == "*"
        assert allowed(ask(client, ORIGIN)) == "*"
        assert preflight(client, "/reload", headers="authorization").status_code == 400
        assert "access-control-allow-credentials" not in ask(client, ORIGIN).headers


def test_a_refusal_for_lack_of_room_can_be_read_elsewhere(saved_model):
    with serving(create_app(saved_model, cors_origins=[ORIGIN], max_body=10)) as client:
        answer = ask(client, ORIGIN, user="much too long")
        assert (answer.status_code, allowed(answer)) == (413, ORIGIN)
        assert counted(client, "nearfar_requests_total", status="413") == 1


@pytest.mark.parametrize(
    "origins",
    [ORIGIN, 7, None, [ORIGIN + "/"], [ORIGIN + "/path"], ["example.org"], ["https://"], ["null"],
     [""], ["HTTPS://example.org"], ["https://Example.org"], ["https://example.org:443"],
     ["http://example.org:80"], ["https://example.org:99999"], ["https://user@example.org"],
     ["https://exämple.org"], ["https://*.example.org"], [7], ["*", ORIGIN], [ORIGIN, None]],
)  # fmt: skip
def test_what_is_no_origin_is_refused(saved_model, origins):
    with pytest.raises(OptionError, match="`cors_origins`"):
        create_app(saved_model, cors_origins=origins)

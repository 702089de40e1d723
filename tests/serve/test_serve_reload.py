"""Nobody notices a new model; a broken one is refused."""

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import nearfar as nf
from nearfar.serve import create_app
from nearfar.serve.space import Space
from served import TOKEN, asking, counted, listed, pairs, post, reload, serving


def test_reload_asks_for_the_token(saved_model):
    with serving(create_app(saved_model, token=TOKEN)) as client:
        missing = client.post("/reload")
        assert (missing.status_code, missing.headers["www-authenticate"]) == (401, "Bearer")
        for wrong in ("Bearer x", TOKEN, "Basic x", f"Bearer {TOKEN}x"):
            answer = client.post("/reload", headers={"Authorization": wrong})
            assert (answer.status_code, answer.json()["error"]["type"]) == (403, "Forbidden")
        assert reload(client).status_code == 200
    with serving(create_app(saved_model)) as closed:
        answer = reload(closed)
        assert answer.status_code == 403
        assert "SIGHUP" in answer.json()["error"]["message"]


def test_reload_takes_the_new_model(model_folder, other_model):
    with serving(create_app(model_folder, token=TOKEN)) as client:
        before = client.get("/v1/model").json()
        other_model.save(model_folder)
        assert client.get("/v1/model").json() == before
        after = reload(client)
        assert after.status_code == 200
        assert after.json() == client.get("/v1/model").json()
        assert after.json()["fingerprint"] == other_model.interactions.fingerprint
        assert listed(other_model.recommend(25, k=3)) == pairs(
            post(client, "/v1/recommend", user=25, k=3)
        )


def broken_points(folder):
    (points,) = folder.glob("points-*.safetensors")
    points.write_bytes(points.read_bytes()[:-1] + b"x")


def not_a_number(folder):
    model = nf.CML.load(folder)
    nowhere = np.full_like(model.item_vectors, np.nan)
    made = model.projection
    model._fitted = model._fitted._replace(items=nowhere, projection=made)
    model.save(folder)


@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (broken_points, "StoreError", "was changed after it was written"),
        (shutil.rmtree, "StoreError", "does not exist"),
        (not_a_number, "StoreError", "not a finite number"),
    ],
)
def test_a_broken_model_is_refused_and_the_old_one_stays(model_folder, damage, kind, message):
    with serving(create_app(model_folder, token=TOKEN)) as client:
        before = client.get("/v1/model").json()
        expected = post(client, "/v1/recommend", user=3)
        damage(model_folder)
        refused = reload(client)
        assert refused.status_code == 409
        assert refused.json()["error"]["type"] == kind
        assert message in refused.json()["error"]["message"]
        assert client.get("/v1/model").json() == before
        assert post(client, "/v1/recommend", user=3) == expected
        assert counted(client, "nearfar_reloads_total", outcome="refused") == 1
        assert counted(client, "nearfar_reloads_total", outcome="taken") == 0


def test_a_request_keeps_the_model_it_began_with(
    model_folder, titled_model, other_model, monkeypatch
):
    inside, go, nearest = threading.Event(), threading.Event(), Space.nearest

    def held_up(space, wishes):
        if wishes[0].k == 7:
            inside.set()
            assert go.wait(20)
        return nearest(space, wishes)

    monkeypatch.setattr(Space, "nearest", held_up)
    app = create_app(model_folder, token=TOKEN, timeout=30)
    with serving(app) as client, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(post, client, "/v1/recommend", user=3, k=7)
        assert inside.wait(20)
        other_model.save(model_folder)
        assert reload(client).json()["n_users"] == other_model.interactions.n_users
        go.set()
        assert pairs(asked.result()) == listed(titled_model.recommend(3, k=7))
        assert pairs(post(client, "/v1/recommend", user=3, k=7)) == listed(
            other_model.recommend(3, k=7)
        )


@pytest.mark.full
def test_reloading_under_load_drops_no_request(model_folder, titled_model, other_model):
    """Every answer is that of the one model or of the other, and none is an error."""
    right = [
        [round(score, 5) for _, score in listed(one.recommend(3, k=5))]
        for one in (titled_model, other_model)
    ]
    seen, stop = set(), threading.Event()

    def ask():
        n = 0
        with asking(url) as mine:
            while not stop.is_set():
                answer = post(mine, "/v1/recommend", user=3, k=5)
                scores = [round(entry["score"], 5) for entry in answer["results"]]
                seen.add(right.index(scores))
                n += 1
        return n

    with serving(create_app(model_folder, token=TOKEN)) as client, ThreadPoolExecutor(4) as pool:
        url = str(client.base_url)
        asked = [pool.submit(ask) for _ in range(4)]
        try:
            for one in (other_model, titled_model, other_model, titled_model, other_model):
                one.save(model_folder)
                assert reload(client).status_code == 200
        finally:
            stop.set()
        assert sum(one.result() for one in asked) > 20
        assert counted(client, "nearfar_requests_total", route="/v1/recommend", status="200") > 20
    assert seen == {0, 1}

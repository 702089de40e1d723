"""New items over HTTP: by their content, into the served model."""

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from films import DATA, SHORT, features
from nearfar.serve import create_app
from served import TOKEN, ids, post, reload, serving

ALLOWED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def hybrid_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hybrid") / "model"
    nf.CML(**SHORT).fit(DATA, item_features=features(0, 40), epochs=12).save(folder)
    return folder


def item(number):
    genres = ["western"] if number % 2 == 0 else ["drama", "war"]
    return {"id": number, "features": {"genres": genres, "plot": f"scene{number % 2}"}}


def add(client, *items, headers=ALLOWED):
    return client.post("/v1/items", json={"items": list(items)}, headers=headers)


def test_new_items_are_recommended_until_a_reload(hybrid_folder):
    with serving(create_app(hybrid_folder, token=TOKEN)) as client:
        before = client.get("/v1/model").json()["n_items"]
        wanted = {"user": 3, "k": 2, "allow": [50, 51, 52, 53]}
        assert ids(post(client, "/v1/recommend", **wanted)) == []
        answer = add(client, *map(item, (50, 51, 52, 53)))
        assert (answer.status_code, answer.json()) == (200, {"added": 4, "n_items": before + 4})
        assert set(ids(post(client, "/v1/recommend", **wanted))) == {51, 53}
        assert post(client, "/v1/similar/items", item=51, k=1)["results"]
        model = nf.CML.load(hybrid_folder)
        assert model.interactions.n_items == before
        reload(client)
        assert client.get("/v1/model").json()["n_items"] == before


def test_what_cannot_be_added_changes_nothing(hybrid_folder):
    with serving(create_app(hybrid_folder, token=TOKEN)) as client:
        facts = client.get("/v1/model").json()
        for items, kind, message in (
            ([item(3)], "DataError", "already: 3"),
            ([{"id": 60, "features": {}}], "DataError", "no feature that"),
            ([{"id": 60, "features": {"colour": "red"}}], "OptionError", "not a field"),
            ([{"id": 60, "features": {"plot": [["x"]]}}], None, ""),
            ([{"id": 60}], None, ""),
            ([], None, ""),
        ):
            answer = add(client, *items)
            assert answer.status_code == (422 if kind is None else 409)
            if kind is not None:
                assert answer.json()["error"]["type"] == kind
                assert message in answer.json()["error"]["message"]
        assert add(client, item(60), headers={}).status_code == 401
        assert add(client, item(60), headers={"Authorization": "Bearer x"}).status_code == 403
        assert client.get("/v1/model").json() == facts
    with serving(create_app(hybrid_folder)) as closed:
        answer = add(closed, item(60))
        assert answer.status_code == 403
        told = answer.json()["error"]["message"]
        assert all(part in told for part in ("no token", "--token-file", "nearfar add-items"))
        assert "SIGHUP" not in told


def test_a_model_without_features_says_so(saved_model):
    with serving(create_app(saved_model, token=TOKEN)) as client:
        answer = add(client, item(60))
        assert answer.status_code == 409
        assert "without features" in answer.json()["error"]["message"]


def test_a_server_with_an_index_says_so(hybrid_folder, tmp_path):
    nf.ItemIndex.build(nf.CML.load(hybrid_folder), recall=1.0).save(tmp_path / "index")
    with serving(create_app(hybrid_folder, token=TOKEN, index=tmp_path / "index")) as client:
        answer = add(client, item(60))
        assert answer.status_code == 409
        assert "index" in answer.json()["error"]["message"]


def test_the_point_is_that_of_the_library(hybrid_folder):
    with serving(create_app(hybrid_folder, token=TOKEN)) as client:
        add(client, item(61))
        (found,) = post(client, "/v1/vectors", items=[61])["items"]
    frame = pl.DataFrame({"item_id": [61], "genres": [["drama", "war"]], "plot": ["scene1"]})
    about = nf.Features.from_frame(frame, categories="genres", text="plot")
    again = nf.CML.load(hybrid_folder).add_items(about)
    assert np.array_equal(np.float32(found), again.item_vectors[-1])


def test_what_a_module_encodes_is_in_no_request(tmp_path):
    from model.test_modules import SHORT as WITH_MODULE
    from model.test_modules import contents

    nf.CML(**WITH_MODULE).fit(DATA, item_features=contents(), epochs=1).save(tmp_path / "m")
    with serving(create_app(tmp_path / "m", token=TOKEN)) as client:
        assert ids(post(client, "/v1/recommend", user=3, k=2))
        answer = add(client, {"id": 60, "features": {"content": "x"}})
        assert answer.status_code == 409
        assert "which a request cannot have" in answer.json()["error"]["message"]

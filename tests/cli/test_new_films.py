"""Films without ratings: they are unknown to the training, and find those who would like them."""

import numpy as np
import polars as pl
import pytest

import nearfar as nf
from nearfar.cli import app, new_films
from nearfar.cli.new_films import FILMS, N_USERS
from nearfar.model.cml import CML


def taste(user, item):
    return (user + item) % 2 == 0


@pytest.fixture(scope="module")
def data():
    """Even users like most even films, westerns; a user 99 likes only a film that is taken out."""
    rng = np.random.default_rng(0)
    pairs = [
        (str(u), str(i)) for u in range(50) for i in (*range(40), 96, 288)
        if taste(u, i) and rng.random() < 0.6
    ]  # fmt: skip
    made = nf.Interactions.from_pairs([*pairs, ("99", FILMS[0])])
    ids = [int(one) for one in made.item_ids]
    table = pl.DataFrame({
        "item_id": made.item_ids.values,
        "title": [f"Film {i} ({1950 + i % 9})" for i in ids],
        "genres": ["Western" if i % 2 == 0 else "Drama | War" for i in ids],
    })  # fmt: skip
    return made.with_item_table(table)


@pytest.fixture(scope="module")
def trained(data):
    seen, fit = [], CML.fit

    def noted(self, train, **how):
        seen.append(train)
        return fit(self, train, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CML, "fit", noted)
        model, films = new_films.train(data, epochs=20, seed=1, threads=1)
    (learned_from,) = seen
    return model, films, learned_from


def test_training_knows_nothing_of_them(data, trained):
    _, _, learned_from = trained
    assert sorted(set(data.item_ids) - set(learned_from.item_ids)) == sorted(FILMS)
    expected = [
        pair for pair in data.to_frame()["user_id", "item_id"].rows() if pair[1] not in FILMS
    ]
    assert sorted(learned_from.to_frame()["user_id", "item_id"].rows()) == sorted(expected)


def test_they_find_those_who_would_like_them(data, trained):
    _, films, _ = trained
    for film, name in zip(films, FILMS, strict=True):
        assert film.title.startswith(f"Film {name} (")
        assert film.genres == ("Western" if int(name) % 2 == 0 else "Drama, War")
        assert len(film.users) == N_USERS
        assert all(taste(int(user), int(name)) for user in film.users)
        assert list(film.scores) == sorted(film.scores, reverse=True)
        likes = dict.fromkeys(data.user_ids, False)
        likes |= {user: True for user, item in data.to_frame()["user_id", "item_id"].rows()
                  if item == name}  # fmt: skip
        assert list(film.liked) == [likes[user] for user in film.users]
        assert film.share == pytest.approx(np.mean(list(likes.values())))
        assert "99" not in film.users  # has no other film, and so no point


def test_they_are_items_of_the_model_like_others(trained, tmp_path):
    model, films, _ = trained
    model.save(tmp_path / "model")
    again = CML.load(tmp_path / "model")
    assert again.interactions.titles(FILMS) == [film.title for film in films]
    for film, name in zip(films, FILMS, strict=True):
        user = film.users[0]
        (row,) = again.recommend(user, k=1, among=[name], popularity=0.0).to_dicts()
        assert row["score"] == pytest.approx(film.scores[0], abs=1e-5)


def test_other_data_have_other_films():
    pairs = [(u, i) for u in "abcdef" for i in "uvwxyz" if u + i not in {"au", "bv"}]
    other = nf.Interactions.from_pairs(pairs)
    assert new_films.shown_films(other) == ("u", "v", "w")


def test_the_command_saves_the_model_that_knows_them(data, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(nf.datasets, "locate", lambda name, path: ("the file", "a test"))
    monkeypatch.setattr(nf.datasets, "load", lambda name, path: data)
    with pytest.raises(SystemExit) as ended:
        app(["demo", "--epochs", "1", "-o", str(tmp_path / "model")])
    assert not ended.value.code
    out, _ = capsys.readouterr()
    assert f"nearfar serve {tmp_path / 'model'}" in out.replace("\n", " ")
    assert set(FILMS) <= set(CML.load(tmp_path / "model").interactions.item_ids)

"""The public data sets that nearfar knows by name: their files, sizes, terms and citations.

No data set is part of nearfar: each is downloaded from its publisher, under the publisher's terms.
These are paraphrased here; the terms that come with the data are the binding ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nearfar.datasets.movielens import RATINGS_SHA256
from nearfar.errors import OptionError


@dataclass(frozen=True)
class RemoteFile:
    """One raw file, and the addresses that serve it."""

    name: str
    """Its name in the cache."""
    urls: tuple[str, ...]
    """The addresses, tried in this order. ``pip:NAME==VERSION`` is a wheel of the package index."""
    size: int | None = None
    """The size in bytes; None if unknown."""
    exact: bool = False
    """Whether `size` is exact, so that it is verified, or only approximate."""
    checksum: str | None = None
    """``"sha256:..."`` or ``"md5:..."``; None if unknown."""
    optional: bool = False
    """Whether the data set can be read without it."""


@dataclass(frozen=True)
class Dataset:
    """One public data set."""

    name: str
    """The name for `nearfar.datasets.load` and ``nearfar datasets``."""
    title: str
    recipe: str
    """The key in `nearfar.datasets.recipes.RECIPES` of the recipe that reads its files."""
    files: tuple[RemoteFile, ...]
    """Its files; the first is the one with the interactions."""
    n_rows: int
    """Number of rows: ratings, or play counts of users."""
    n_users: int
    """Number of users that occur in the rows."""
    n_items: int
    """Number of items that occur in the rows."""
    min_value: float
    """The smallest value that counts as an interaction by default."""
    licence: str
    """The publisher's terms, paraphrased."""
    redistribution: bool
    """Whether the terms permit redistribution of the data."""
    citation: str
    """The publication to cite."""
    homepage: str
    instead: RemoteFile | None = None
    """Another file with the same ratings, used if no address serves the first of `files`."""
    ratings_sha256: str | None = None
    """`nearfar.datasets.movielens.checksum` of all ratings, verified for every copy."""
    note: str = ""
    """Further information, shown before the download."""

    @property
    def terms(self) -> str:
        """The text that is shown before the download."""
        passing_on = (
            "You may redistribute the data under the same terms."
            if self.redistribution
            else "DO NOT REDISTRIBUTE the data: its terms do not permit it."
        )
        lines = [
            f"{self.title} is not part of nearfar and has terms of its own ({self.homepage}).",
            f"Terms: {self.licence}",
            passing_on,
            f"Cite: {self.citation}",
            self.note,
        ]
        return "\n".join(line for line in lines if line)


_GROUPLENS: Final = (
    "for research; acknowledge it in publications, imply no endorsement by the University of "
    "Minnesota, do not redistribute it without separate permission, and ask GroupLens before any "
    "commercial use."
)
_MOVIELENS_PAPER: Final = (
    "F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), "
    "2015."
)
_AMAZON_TERMS: Final = (
    "none are stated, as far as we know; the reviews belong to Amazon and their authors, and the "
    "collection is offered for research, with the request to cite it."
)
_AMAZON_PAPERS: Final = (
    "R. He and J. McAuley, Ups and Downs: Modeling the Visual Evolution of Fashion Trends with "
    "One-Class Collaborative Filtering, WWW 2016; J. McAuley, C. Targett, Q. Shi and A. van den "
    "Hengel, Image-Based Recommendations on Styles and Substitutes, SIGIR 2015."
)
_AMAZON_PAGE: Final = "https://jmcauley.ucsd.edu/data/amazon/index_2014.html"


def _movielens(size: str, archive: tuple[int, str], counts: tuple[int, int, int]) -> Dataset:
    """Describe a MovieLens data set; `archive` is its size in bytes and its SHA-256.

    Both are taken from the list of checksums of TensorFlow Datasets.
    """
    name = f"ml-{size.lower()}"
    address = f"https://files.grouplens.org/datasets/movielens/{name}.zip"
    rows, users, items = counts
    return Dataset(
        name=name,
        title=f"MovieLens-{size}",
        recipe="movielens",
        files=(RemoteFile(f"{name}.zip", (address,), archive[0], True, f"sha256:{archive[1]}"),),
        n_rows=rows,
        n_users=users,
        n_items=items,
        min_value=4.0,
        licence=_GROUPLENS,
        redistribution=False,
        citation=_MOVIELENS_PAPER,
        homepage=f"https://grouplens.org/datasets/movielens/{size.lower()}/",
        instead=RemoteFile("recbole-1.2.1.whl", ("pip:recbole==1.2.1",))
        if size == "100K"
        else None,
        ratings_sha256=RATINGS_SHA256 if size == "100K" else None,
    )


def _amazon(name: str, title: str, files: tuple[RemoteFile, ...],
            counts: tuple[int, int, int]) -> Dataset:  # fmt: skip
    rows, users, items = counts
    return Dataset(
        name=name,
        title=title,
        recipe="amazon",
        files=files,
        n_rows=rows,
        n_users=users,
        n_items=items,
        min_value=5.0,  # the paper keeps ratings above 4
        licence=_AMAZON_TERMS,
        redistribution=False,
        citation=_AMAZON_PAPERS,
        homepage=_AMAZON_PAGE,
    )


def _amazon_file(name: str, size: int | None = None, *, optional: bool = False) -> RemoteFile:
    # The first two are the same server, whose HTTPS has been reported to fail sometimes.
    places = (
        "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles",
        "http://snap.stanford.edu/data/amazon/productGraph/categoryFiles",
        "https://mcauleylab.ucsd.edu/public_datasets/data/amazon/categoryFiles",
    )
    urls = tuple(f"{place}/{name}" for place in places)
    return RemoteFile(name, urls, size, exact=size is not None, optional=optional)


def _song_file(path: str, size: int | None = None, *, optional: bool = False) -> RemoteFile:
    places = (
        "http://millionsongdataset.com/sites/default/files",
        "http://labrosa.ee.columbia.edu/millionsong/sites/default/files",
    )
    name = path.rsplit("/", 1)[-1]
    urls = tuple(f"{place}/{path}" for place in places)
    return RemoteFile(name, urls, size, optional=optional)


_ALL: Final = (
    _movielens(
        "100K",
        (4_924_029, "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"),
        (100_000, 943, 1_682),
    ),
    _movielens(
        "1M",
        (5_917_549, "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20"),
        (1_000_209, 6_040, 3_706),
    ),
    _movielens(
        "20M",
        (198_702_078, "96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3"),
        (20_000_263, 138_493, 26_744),
    ),
    _movielens(
        "25M",
        (261_978_986, "8b21cfb7eb1706b4ec0aac894368d90acf26ebdfb6aced3ebd4ad5bd1eb9c6aa"),
        (25_000_095, 162_541, 59_047),
    ),
    Dataset(
        name="lastfm-2k",
        title="Last.fm play counts (HetRec 2011)",
        recipe="lastfm",
        files=(
            RemoteFile(
                "hetrec2011-lastfm-2k.zip",
                ("https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip",),
                checksum="sha256:6738f48195667ff03caaab4d32ca9a3133d8cc026b7c3cdaf6ce1010e913c59c",
            ),
        ),
        n_rows=92_834,
        n_users=1_892,
        n_items=17_632,
        min_value=1.0,
        licence="for non-commercial use; ask Last.fm before any other.",
        redistribution=False,
        citation="I. Cantador, P. Brusilovsky and T. Kuflik, 2nd Workshop on Information "
        "Heterogeneity and Fusion in Recommender Systems (HetRec 2011), RecSys 2011.",
        homepage="https://grouplens.org/datasets/hetrec-2011/",
    ),
    Dataset(
        name="book-crossing",
        title="Book-Crossing",
        recipe="book-crossing",
        files=(
            RemoteFile(
                "BX-CSV-Dump.zip",
                ("http://www2.informatik.uni-freiburg.de/~cziegler/BX/BX-CSV-Dump.zip",),
                26_085_508,
                checksum="md5:37d647ee9e18ba134ea6d78ee4fe5292",
            ),
        ),
        n_rows=1_149_780,
        n_users=105_283,
        n_items=340_556,
        min_value=5.0,
        licence="freely available for research if acknowledged with the citation; redistribution "
        "is not mentioned.",
        redistribution=False,
        citation="C.-N. Ziegler, S. M. McNee, J. A. Konstan and G. Lausen, Improving "
        "Recommendation Lists Through Topic Diversification, WWW 2005.",
        homepage="http://www2.informatik.uni-freiburg.de/~cziegler/BX/",
        note="The official address is reported to be offline. If it is, get BX-CSV-Dump.zip "
        "elsewhere and pass its path.",
    ),
    _amazon(
        "amazon-movies-tv",
        "Amazon reviews of movies and TV, 1996-2014, 5-core",
        (
            _amazon_file("reviews_Movies_and_TV_5.json.gz"),
            _amazon_file("meta_Movies_and_TV.json.gz", optional=True),
        ),
        (1_697_533, 123_960, 50_052),
    ),
    _amazon(
        "amazon-movies-tv-ratings",
        "Amazon ratings of movies and TV, 1996-2014, all of them",
        (
            _amazon_file("ratings_Movies_and_TV.csv", 187_517_953),
            _amazon_file("meta_Movies_and_TV.json.gz", optional=True),
        ),
        (4_607_047, 2_088_620, 200_941),
    ),
    Dataset(
        name="echonest",
        title="Echo Nest Taste Profile (Million Song Dataset)",
        recipe="echonest",
        files=(
            _song_file("challenge/train_triplets.txt.zip", 500_000_000),
            _song_file("AdditionalFiles/unique_tracks.txt", 84_000_000, optional=True),
            _song_file("tasteprofile/sid_mismatches.txt", optional=True),
        ),
        n_rows=48_373_586,
        n_users=1_019_318,
        n_items=384_546,
        min_value=5.0,
        licence="those of the API of The Echo Nest; researchers may publish results, companies "
        "were asked to contact The Echo Nest first.",
        redistribution=False,
        citation="T. Bertin-Mahieux, D. P. W. Ellis, B. Whitman and P. Lamere, The Million Song "
        "Dataset, ISMIR 2011; B. McFee, T. Bertin-Mahieux, D. P. W. Ellis and G. R. G. Lanckriet, "
        "The Million Song Dataset Challenge, AdMIRe 2012.",
        homepage="http://millionsongdataset.com/tasteprofile/",
    ),
)

CATALOGUE: Final[dict[str, Dataset]] = {data.name: data for data in _ALL}
"""The data sets by their names."""


def info(name: str) -> Dataset:
    """Return the description of a data set.

    Raises
    ------
    OptionError
        If there is no data set of this name.

    Examples
    --------
    >>> info("ml-100k").n_rows
    100000
    """
    if not isinstance(name, str) or name not in CATALOGUE:
        raise OptionError(
            f"There is no data set {name!r}; the data sets are {', '.join(CATALOGUE)}."
        )
    return CATALOGUE[name]

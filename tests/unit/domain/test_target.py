"""Which cameras a query names."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetd.domain.records import Camera
from fleetd.domain.target import (
    KEYS,
    MAX_CHARS,
    MAX_DEPTH,
    PRESENCES,
    And,
    Everything,
    Not,
    Or,
    Target,
    Term,
    matches,
    parse_target,
)
from fleetd.errors import InvalidError


def camera(**facts: Any) -> Camera:
    return Camera(**{"id": 1, "name": "cam-1", "created_at": 0.0, **facts})


CAM = camera(
    tags=frozenset({"line-3", "night"}), board="OMVRT1060 32768 SDRAM", firmware="4.8.1", release_id="model-3"
)


@pytest.mark.parametrize(
    "query",
    [
        "all",
        " ALL ",
        "id=cam-1",
        "id=cam-*",
        "id=*",
        "id=c?m-1",
        "id=*m*1",
        "tag=line-3",
        'tag="line-3"',
        "board=OMVRT1060",
        'board="OMVRT1060 32768"',
        "firmware=4.8",
        "firmware=4",
        "firmware=4.8.1",
        "firmware=4.",
        "release=model-3",
        "presence=online",
        "tag=line-3, tag=night",
        "tag=line-3 and tag=night",
        "tag=line-3,tag=night,id=cam-1",
        "tag=x or tag=night",
        "not tag=x",
        "not not tag=night",
        "tag=x and tag=y or id=cam-1",
        "id=cam-1 or tag=x and tag=y",
        "tag=line-3 and not (id=cam-7 or presence=offline)",
        "(((all)))",
        "id = cam-1",
    ],
)
def test_these_queries_name_the_camera(query: str) -> None:
    assert matches(parse_target(query), CAM, "online")


@pytest.mark.parametrize(
    "query",
    [
        "not all",
        "id=cam",
        "id=cam-11",
        "id=am-1",
        "id=cam-?1",
        "id=*2",
        "id=CAM-1",
        "tag=line",
        "tag=line-*",
        "board=OMVH7",
        "firmware=4.80",
        "firmware=4.8.10",
        "release=model",
        "presence=offline",
        "tag=line-3, tag=x",
        "tag=line-3 and not presence=online",
        "(tag=x or tag=night) and tag=y",
    ],
)
def test_these_queries_do_not_name_the_camera(query: str) -> None:
    assert not matches(parse_target(query), CAM, "online")


def test_a_firmware_prefix_does_not_cut_a_number_in_two() -> None:
    old, new = camera(firmware="4.1.0"), camera(firmware="4.10.0")
    query = parse_target("firmware=4.1")
    assert matches(query, old, "online")
    assert not matches(query, new, "online")


def test_what_a_camera_has_not_said_matches_nothing() -> None:
    unknown = camera()
    for query in ("board=O", "firmware=4", "release=model-3", "tag=x"):
        assert not matches(parse_target(query), unknown, "new")
        assert matches(parse_target(f"not {query}"), unknown, "new")


def test_and_binds_more_tightly_than_or() -> None:
    a, b, c = (Term("tag", name) for name in "abc")
    assert parse_target("tag=a or tag=b, tag=c") == Or((a, And((b, c))))
    assert parse_target("(tag=a or tag=b), tag=c") == And((Or((a, b)), c))
    assert parse_target("not tag=a, tag=b") == And((Not(a), b))


def test_words_of_the_grammar_may_be_values() -> None:
    assert parse_target("tag=and and tag=not") == And((Term("tag", "and"), Term("tag", "not")))


@pytest.mark.parametrize(
    ("query", "position", "expected"),
    [
        ("", 1, "`all`"),
        ("   ", 4, "`all`"),
        ("everything", 1, "`all`"),
        ("tag", 4, "`=` after `tag`"),
        ("tag=", 5, "a value for `tag`"),
        ('tag=""', 5, "a value for `tag`"),
        ("tag==x", 5, "a value for `tag`"),
        ("tag=x tag=y", 7, "`and`, `or`, a comma or the end"),
        ("tag=x,", 7, "`all`"),
        ("tag=x or", 9, "`all`"),
        ("(tag=x", 7, "`)`"),
        ("tag=x)", 6, "the end"),
        ("presence=away", 10, "new, online, late"),
        ("tags=x", 1, "id=, tag="),
        ('tag="x', 5, "a value for `tag`"),
        ("tag=x\\", 6, "the end"),
        ("not", 4, "`all`"),
        ("id=a, , id=b", 7, "`all`"),
    ],
)
def test_an_error_names_the_position_and_what_was_expected(query: str, position: int, expected: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse_target(query)
    assert caught.value.facts["position"] == position
    assert expected in str(caught.value.facts["expected"])
    assert f"position {position} " in caught.value.message
    assert expected in caught.value.message


def test_too_long_and_too_deep_are_refused_not_recursed_into() -> None:
    with pytest.raises(InvalidError, match="limit"):
        parse_target("all, " * MAX_CHARS)
    parse_target("(" * MAX_DEPTH + "all" + ")" * MAX_DEPTH)
    for opening in ("(", "not "):
        with pytest.raises(InvalidError, match="inside each other"):
            parse_target(opening * (MAX_DEPTH + 1) + "all")


def test_a_glob_takes_no_exponential_time() -> None:
    long = camera(name="a" * 63)
    assert not matches(parse_target("id=" + "*a" * 30 + "*b"), long, "online")


_CHARACTERS = st.characters(exclude_categories=["Cs"])
_VALUES = st.text(_CHARACTERS, min_size=1, max_size=12)
_TERMS = st.one_of(
    st.builds(Term, st.sampled_from([key for key in KEYS if key not in ("presence", "percent")]), _VALUES),
    st.builds(Term, st.just("percent"), st.integers(1, 100).map(str)),
    st.builds(Term, st.just("presence"), st.sampled_from(PRESENCES)),
    st.just(Everything()),
)


def _trees(parts: st.SearchStrategy[Target]) -> st.SearchStrategy[Target]:
    several = st.lists(parts, min_size=2, max_size=4).map(tuple)
    return st.one_of(st.builds(Not, parts), st.builds(And, several), st.builds(Or, several))


TREES: st.SearchStrategy[Target] = st.recursive(_TERMS, _trees, max_leaves=12)


@given(TREES)
@example(Term("tag", '" or all'))
@example(Term("tag", "\\"))
@example(Not(And((Everything(), Not(Not(Everything()))))))
def test_what_is_printed_reads_as_the_same_tree(tree: Target) -> None:
    assert parse_target(str(tree)) == tree


@given(st.text(_CHARACTERS, max_size=60) | st.text('all notidagr()=,"\\*', max_size=60))
def test_any_text_is_a_tree_or_an_invalid_error(text: str) -> None:
    try:
        tree = parse_target(text)
    except InvalidError:
        return
    assert parse_target(str(tree)) == tree


@given(TREES, TREES, st.sampled_from(PRESENCES))
def test_evaluation_follows_the_rules_of_logic(left: Target, right: Target, presence: str) -> None:
    a, b = matches(left, CAM, presence), matches(right, CAM, presence)
    assert matches(And((left, right)), CAM, presence) == (a and b)
    assert matches(Or((left, right)), CAM, presence) == (a or b)
    assert matches(Not(left), CAM, presence) == (not a)


def test_a_site_names_its_cameras() -> None:
    at_berlin = replace(CAM, site="berlin")
    assert matches(parse_target("site=berlin"), at_berlin, "online")
    assert not matches(parse_target("site=berlin"), CAM, "online")


def test_a_larger_share_only_adds_cameras_and_all_are_everybody() -> None:
    cameras = [replace(CAM, name=f"cam-{n}") for n in range(400)]
    shares = {
        percent: {one.name for one in cameras if matches(parse_target(f"percent={percent}"), one, "online")}
        for percent in (1, 10, 11, 50, 100)
    }
    assert shares[1] <= shares[10] <= shares[11] <= shares[50] < shares[100]
    assert len(shares[100]) == 400
    assert 20 <= len(shares[10]) <= 60


@pytest.mark.parametrize("text", ["percent=0", "percent=101", "percent=5.5", "percent=-1", "percent=ten"])
def test_a_share_is_a_whole_number_of_percent(text: str) -> None:
    with pytest.raises(InvalidError, match="a whole number from 1 to 100"):
        parse_target(text)

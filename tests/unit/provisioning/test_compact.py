"""Short private names: the same program, whatever its names are."""

import ast

import pytest

from fleetd.provisioning.compact import compact, shared_names
from tests.agent.micropython import ROOT

AGENT = {path.name: path.read_bytes() for path in (ROOT / "camera_agent").glob("*.py")}


def names_in(source: bytes) -> list[str]:
    """Every name in its place; what is no name, as what it is."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.arg(arg=word) | ast.alias(name=word):
                found.append(word)
            case ast.FunctionDef(name=word) | ast.ClassDef(name=word):
                found.append(word)
            case ast.Constant(value=value):
                found.append(repr(value))
            case _:
                found.append(type(node).__name__)
    return found


@pytest.mark.parametrize("name", sorted(AGENT))
def test_every_module_of_the_agent_stays_the_same_program(name: str) -> None:
    before, after = AGENT[name], compact(AGENT)[name]
    renamed = dict(zip(names_in(before), names_in(after), strict=True))
    for old, new in zip(names_in(before), names_in(after), strict=True):
        assert renamed[old] == new, "one name became two"
        assert old == new or (old[0], new[0]) == ("_", "_")
    assert len(set(renamed.values())) == len(renamed), "two names became one"
    assert [line.count(b"#") for line in before.splitlines()] == [
        line.count(b"#") for line in after.splitlines()
    ], "a line moved"


def test_the_whole_agent_has_a_quarter_fewer_names() -> None:
    def unique(sources: dict[str, bytes]) -> int:
        return len({word for source in sources.values() for word in names_in(source) if word.isidentifier()})

    assert unique(compact(AGENT)) < unique(AGENT) * 3 / 4


def test_modules_use_the_same_short_names_and_keep_the_public_ones() -> None:
    first = b"class A:\n    def __init__(self):\n        self._count = self.total = 0\n"
    second = b"_LIMIT = 3\n\n\ndef _check(value):\n    return value < _LIMIT\n"
    made = compact({"first.py": first, "second.py": second})
    assert made["first.py"] == first.replace(b"_count", b"_a")
    assert made["second.py"] == second.replace(b"_LIMIT", b"_a").replace(b"_check", b"_b")


@pytest.mark.parametrize(
    ("source", "shared"),
    [
        ("from camera_agent.heap import _room", {"_room"}),
        ("def f(other):\n    return other._room", {"_room"}),
        ("class A:\n    def f(self):\n        return self._room", {"_room"}),  # of whoever sets it
        ("class A:\n    def f(self, other):\n        self._a = other._a", {"_a"}),
        ("def _f(_size):\n    pass\n\n\n_f(_size=1)", {"_size"}),
        ("class A:\n    def f(self):\n        self._x = getattr(self, '_x')", {"_x"}),
        ("from b import B\n\n\nclass A(B):\n    def f(self):\n        self._x = 1", {"_x"}),
        ("import b\n\n\nclass A(b.B):\n    def _f(self):\n        pass", {"_f"}),
        ("class A(Exception):\n    def f(self):\n        self._x = 1", set()),
        ("class B:\n    pass\n\n\nclass A(B):\n    def f(self):\n        self._x = 1", set()),
        ("from b import c as _c", set()),
    ],
)
def test_what_another_module_may_know_keeps_its_name(source: str, shared: set[str]) -> None:
    assert shared_names(source.encode()) == shared
    made = compact({"a.py": source.encode(), "b.py": b"_room = _a = _size = _x = _f = 1\n"})
    for word in shared:
        assert word.encode() in made["b.py"]


def test_a_short_name_is_never_one_that_is_there_already() -> None:
    source = b"def _long(a, _a):\n    return a, _a\n\n\nclass A(list):\n    _b = _long(_a, 1)\n"
    assert len(set(names_in(compact({"a.py": source})["a.py"]))) == len(set(names_in(source)))

"""Shorter private names for the copy of the agent that is compiled for a camera.

    short = compact(sources)    # {"link.py": b"...", ...} -> the same modules

MicroPython keeps every name in memory once, for good, in a table that doubles when it is full: on a small camera the
names are a tenth of what the agent takes. Those that begin with an underscore are nobody else's business, so every
module may call its own `_a`, `_b` ..., the same as in the next module. Names that two modules share all the same keep
what they are called. Lines stay where they are: a traceback's line numbers are true of the sources, only its private
functions have other names.
"""

import ast
import builtins
import io
import itertools
import string
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping


def compact(sources: Mapping[str, bytes]) -> dict[str, bytes]:
    """These modules with short private names. SyntaxError for what is no Python."""
    kept = {word for source in sources.values() for word in shared_names(source)}
    return {name: _rename(source, kept) for name, source in sources.items()}


def shared_names(source: bytes) -> set[str]:
    """The private names by which this module means something of another one, or might."""
    tree = ast.parse(source)
    nodes = list(ast.walk(tree))
    bound = {word for node in nodes for word in _bound_by(node)}
    classes = {node.name for node in nodes if isinstance(node, ast.ClassDef)}
    shared: set[str] = set()
    for node in nodes:
        match node:
            case ast.alias(name=word) | ast.keyword(arg=str(word)):
                shared.add(word)
            case ast.Attribute(attr=word, value=owner) if word not in bound or not _is_self(owner):
                shared.add(word)
            case ast.Constant(value=str(word)):
                shared.add(word)  # for getattr() and the like
            case ast.ClassDef() if _is_heir(node, classes):  # its parent's private names are not known here
                shared.update(word for inside in ast.walk(node) for word in _said_by(inside))
    return set(filter(_is_private, shared))


def _rename(source: bytes, kept: set[str]) -> bytes:
    tokens = [
        token for token in tokenize.tokenize(io.BytesIO(source).readline) if token.type == tokenize.NAME
    ]
    short = _short_names((token.string for token in tokens), kept)
    lines = source.decode().splitlines(keepends=True)
    for token in reversed(tokens):
        if token.string in short:
            (row, start), (_, end) = token.start, token.end
            line = lines[row - 1]
            lines[row - 1] = line[:start] + short[token.string] + line[end:]
    return "".join(lines).encode()


def _short_names(words: Iterable[str], kept: set[str]) -> dict[str, str]:
    """What the private ones are called from now on; the most frequent ones are the shortest."""
    counted = Counter(words)
    fresh = (name for name in _letters() if name not in counted and name not in kept)
    return {word: next(fresh) for word, _ in counted.most_common() if _is_private(word) and word not in kept}


def _letters() -> Iterator[str]:
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_lowercase, repeat=length):
            yield "_" + "".join(letters)


def _bound_by(node: ast.AST) -> tuple[str, ...]:
    """The names that this node gives to something."""
    match node:
        case ast.ClassDef(name=word) | ast.FunctionDef(name=word) | ast.arg(arg=word):
            return (word,)
        case ast.Name(id=word, ctx=ast.Store()) | ast.Attribute(attr=word, ctx=ast.Store()):
            return (word,)
        case ast.alias(asname=str(word)):
            return (word,)
    return ()


def _said_by(node: ast.AST) -> tuple[str, ...]:
    match node:
        case ast.Name(id=word) | ast.Attribute(attr=word):
            return (word,)
    return _bound_by(node)


def _is_self(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _is_heir(node: ast.ClassDef, classes: set[str]) -> bool:
    """Whether a parent of this class comes from another module of the agent."""
    parents = [parent.id if isinstance(parent, ast.Name) else "" for parent in node.bases]
    return any(parent not in classes and not hasattr(builtins, parent) for parent in parents)


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and len(name) > 1

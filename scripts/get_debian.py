"""Fetches programs from Debian's packages into `.tools/`, without root and without touching the system.

    python scripts/get_debian.py micropython mosquitto

apt itself resolves the dependencies, against an empty list of installed packages and with its own lists and
cache, and checks Debian's signatures. The packages are unpacked, not installed; a small wrapper in
`.tools/bin/` starts each program with its own loader and libraries, so it runs whatever the host's C library
is. A program that the machine already has is used as it is. Running it again changes nothing.
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1] / ".tools"
KEYRINGS = ("debian-archive-keyring.gpg", "debian-archive-keyring.pgp")
APT_TIMEOUT = 600  # seconds for one apt call
# Daemons live outside the PATH of an ordinary user.
SYSTEM_FOLDERS = ("/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin")
# Debian keeps every version of this server in a folder of its own.
SERVER_FOLDERS = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)


class MissingError(Exception):
    """A tool cannot be had here; the message says what is missing and what to do."""


@dataclass(frozen=True)
class Tool:
    """One set of packages to unpack, and the programs wanted from it."""

    packages: tuple[str, ...]
    programs: Mapping[str, str]  # name of the wrapper -> path inside the packages
    suite: str | None  # Debian release; None: the one that this machine runs
    arch: str | None  # Debian architecture; None: this machine's
    by_hand: str  # what to do where there is no Debian
    inner: tuple[str, ...] = ()  # names of programs that others of the packages start, where they expect them

    def folder(self) -> str:
        """Name of the unpacked folder below `.tools/`."""
        return "-".join(filter(None, (self.packages[0], self.suite, self.arch)))


def _micropython(arch: str) -> Tool:
    return Tool(
        packages=("micropython",),
        programs={f"micropython-{arch}": "usr/bin/micropython"},
        suite="trixie",  # the first with MicroPython 1.25, close to what OpenMV's firmware is made of
        arch=arch,
        by_hand=f"put MicroPython 1.25 (unix port, {arch}) on the PATH as micropython-{arch}",
    )


TOOLS_BY_NAME: Mapping[str, tuple[Tool, ...]] = {
    "micropython": (_micropython("amd64"), _micropython("i386")),
    "mosquitto": (
        Tool(
            packages=("mosquitto", "mosquitto-clients"),
            programs={
                "mosquitto": "usr/sbin/mosquitto",
                "mosquitto_pub": "usr/bin/mosquitto_pub",
                "mosquitto_sub": "usr/bin/mosquitto_sub",
            },
            suite=None,
            arch=None,
            by_hand="install mosquitto 2.0 or newer with its clients (for example: brew install mosquitto)",
        ),
    ),
    "postgresql": (
        Tool(
            packages=("postgresql-15",),
            programs={name: f"usr/lib/postgresql/15/bin/{name}" for name in ("postgres", "initdb")},
            suite="bookworm",
            arch=None,
            by_hand="install PostgreSQL 14 or newer (for example: brew install postgresql)",
            inner=("postgres",),
        ),
    ),
    "strace": (
        Tool(
            packages=("strace",),
            programs={"strace": "usr/bin/strace"},
            suite=None,
            arch=None,
            by_hand="install strace; only `make faults` needs it, and only Linux has it",
        ),
    ),
}


def on_this_machine(program: str, tools: Path) -> str | None:
    """Where the machine itself has the program, or None. Our own wrappers do not count."""
    own = (tools / "bin").resolve()
    folders = [f for f in os.environ.get("PATH", "").split(os.pathsep) if f and Path(f).resolve() != own]
    return shutil.which(program, path=os.pathsep.join([*folders, *SYSTEM_FOLDERS, *SERVER_FOLDERS]))


def fetch(tool: Tool, tools: Path) -> None:
    """Makes every program of `tool` startable, from the machine or from a wrapper in `tools/bin`.

    Raises MissingError when that cannot be done; then nothing of it is left behind.
    """
    final = tools / tool.folder()
    missing = {}
    for name, inside in tool.programs.items():
        if not ((tools / "bin" / name).exists() and final.is_dir()):
            found = on_this_machine(name, tools)
            if found:
                print(f"{name}: {found}")
            else:
                missing[name] = inside
    if not missing:
        return
    if not final.is_dir():
        with _scratch(tools) as scratch:
            root = _unpack(tool, scratch)
            _make_relative(root)
            for name in tool.inner:
                _wrap_inside(root, tool.programs[name])
            root.rename(final)
    for name, inside in missing.items():
        _write_wrapper(tools / "bin" / name, final, f"{inside}.real" if name in tool.inner else inside)
        print(f"{name}: {tools / 'bin' / name}")


def _unpack(tool: Tool, scratch: Path) -> Path:
    """Downloads and unpacks the packages with all they depend on; answers the folder they are in."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise MissingError(f"{program} is not here (no Debian?): {tool.by_hand}")
    keyring = next((p for n in KEYRINGS if (p := Path("/usr/share/keyrings") / n).exists()), None)
    if keyring is None:
        raise MissingError(
            f"Debian's archive keys are not here (apt install debian-archive-keyring), or {tool.by_hand}"
        )
    suite = tool.suite or _own_suite()
    uris = _archives()
    if not suite or not uris:
        raise MissingError(f"no Debian archive is configured for apt here: {tool.by_hand}")
    print(f"fetching {' '.join(tool.packages)} ({suite}) from Debian ...", flush=True)
    failures = []
    for number, uri in enumerate(uris):
        private = scratch / f"apt{number}"
        config = _private_apt(private, f"deb [signed-by={keyring}] {uri} {suite} main\n", tool.arch)
        failure = _apt(config, "update", "--error-on=any") or _apt(
            config, "install", "--yes", "--download-only", "--no-install-recommends", *tool.packages
        )
        if failure is None:
            root = scratch / "root"
            for package in sorted((private / "cache" / "archives").glob("*.deb")):
                subprocess.run(["dpkg-deb", "-x", package, root], check=True, timeout=APT_TIMEOUT)
            shutil.rmtree(root / "usr/share/doc", ignore_errors=True)
            return root
        failures.append(failure)
    raise MissingError(
        f"apt could not fetch {tool.packages[0]}: {failures[-1]}\n  Try again later, or {tool.by_hand}"
    )


def _archives() -> list[str]:
    """The Debian archives that this machine's apt is set up for, likeliest first."""
    asked = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)\t$(ORIGIN)", "Created-By: Packages"],
        capture_output=True,
        text=True,
        check=False,
        timeout=APT_TIMEOUT,
    )
    rows = [line.split("\t") for line in asked.stdout.splitlines()]
    # Origin is only known after `apt update`, until then apt leaves the variable as it is.
    uris = {uri for uri, origin in rows if origin in ("Debian", "$(ORIGIN)") and "security" not in uri}
    return sorted(uris, key=lambda uri: (not uri.rstrip("/").endswith("/debian"), uri))


def _own_suite() -> str | None:
    """This machine's Debian release, e.g. "bookworm"; None when it is no Debian."""
    with contextlib.suppress(OSError):
        lines = Path("/etc/os-release").read_text().splitlines()
        facts = dict(line.split("=", 1) for line in lines if "=" in line)
        if facts.get("ID", "").strip('"') == "debian":
            return facts.get("VERSION_CODENAME", "").strip('"') or None
    return None


def _private_apt(folder: Path, source: str, arch: str | None) -> Path:
    """An apt configuration that reads and writes only below `folder`; the machine's proxy settings count."""
    for name in ("sources.list.d", "preferences.d", "lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()
    (folder / "preferences").touch()
    (folder / "sources.list").write_text(source)
    lines = [
        # The machine's hooks (Docker's images have some) would act on the machine's own cache.
        "#clear APT::Update::Pre-Invoke;",
        "#clear APT::Update::Post-Invoke;",
        "#clear APT::Update::Post-Invoke-Success;",
        "#clear DPkg::Pre-Invoke;",
        "#clear DPkg::Pre-Install-Pkgs;",
        "#clear DPkg::Post-Invoke;",
        f'Dir::Etc::sourcelist "{folder}/sources.list";',
        f'Dir::Etc::sourceparts "{folder}/sources.list.d";',
        f'Dir::Etc::preferences "{folder}/preferences";',
        f'Dir::Etc::preferencesparts "{folder}/preferences.d";',
        f'Dir::State "{folder}";',
        f'Dir::State::lists "{folder}/lists";',
        f'Dir::State::status "{folder}/status";',
        f'Dir::State::extended_states "{folder}/extended_states";',
        f'Dir::Cache "{folder}/cache";',
        f'Dir::Cache::archives "{folder}/cache/archives";',
        'Dir::Cache::pkgcache "";',
        'Dir::Cache::srcpkgcache "";',
        'Dir::Log "/dev/null";',
        'Acquire::Languages "none";',
        'Acquire::Retries "3";',
        'APT::Sandbox::User "root";',  # apt's own download user could not enter a home directory
    ]
    if arch:
        lines += [
            "#clear APT::Architectures;",
            f'APT::Architecture "{arch}";',
            f'APT::Architectures {{ "{arch}"; }};',
        ]
    config = folder / "apt.conf"
    config.write_text("\n".join(lines) + "\n")
    return config


def _apt(config: Path, *arguments: str) -> str | None:
    """Runs apt-get; None when it worked, else its most telling line."""
    try:
        done = subprocess.run(
            ["apt-get", "-c", config, "-q", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=APT_TIMEOUT,
            env=os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        )
    except subprocess.TimeoutExpired:
        return f"apt-get {arguments[0]} took more than {APT_TIMEOUT} s"
    if done.returncode == 0:
        return None
    said = [line for line in (done.stderr + done.stdout).splitlines() if line.startswith("E:")]
    return said[0] if said else f"apt-get {arguments[0]} ended with {done.returncode}"


def _make_relative(root: Path) -> None:
    """Absolute links inside the packages mean the packages' own root, not this machine's."""
    for path in root.rglob("*"):
        if path.is_symlink() and path.readlink().is_absolute():
            inside = root / path.readlink().relative_to("/")
            path.unlink()
            path.symlink_to(os.path.relpath(inside, path.parent))


def _write_wrapper(wrapper: Path, root: Path, inside: str) -> None:
    """A script that starts `inside` with the loader and libraries of `root`, wherever the repository lies."""
    wrapper.parent.mkdir(parents=True, exist_ok=True)
    draft = wrapper.with_suffix(f".{os.getpid()}.new")
    draft.write_text(_script(root, inside, f"${{0%/*}}/../{root.name}"))
    draft.chmod(0o755)
    draft.replace(wrapper)


def _wrap_inside(root: Path, inside: str) -> None:
    """Puts such a script in the program's own place; the program itself is beside it, named `.real`."""
    place = root / inside
    place.rename(place.with_name(f"{place.name}.real"))
    place.write_text(
        _script(root, f"{inside}.real", "${0%/*}/" + "../" * (len(Path(inside).parts) - 1) + ".")
    )
    place.chmod(0o755)


def _script(root: Path, inside: str, here: str) -> str:
    """Starts `inside`; `here` is how the script finds the folder `root`."""
    loader = next((p for p in sorted(root.glob("**/ld-linux*.so.*")) if not p.is_symlink()), None)
    if loader is None or not (root / inside).exists():
        shutil.rmtree(root, ignore_errors=True)
        raise MissingError(f"Debian's packages hold no {inside} with a loader; run this again")
    libraries = sorted(
        {p.parent.relative_to(root) for p in root.glob("**/lib*.so.*") if "-linux-gnu" in p.parent.name}
    )
    paths = ":".join(f"$here/{folder}" for folder in libraries)
    return (
        "#!/bin/sh\n# Written by scripts/get_debian.py.\n"
        f'here="{here}"\n'
        f'exec "$here/{loader.relative_to(root)}" --library-path "{paths}" "$here/{inside}" "$@"\n'
    )


@contextlib.contextmanager
def _scratch(tools: Path) -> Iterator[Path]:
    """A folder on the same file system as its results, gone afterwards whatever happens."""
    tools.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=tools, ignore_cleanup_errors=True) as name:
        yield Path(name)


@contextlib.contextmanager
def _only_one(tools: Path) -> Iterator[None]:
    """Two runs at the same time take turns; the second finds the work done."""
    tools.mkdir(parents=True, exist_ok=True)
    with (tools / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left_behind in tools.glob("fetching-*"):  # by a run that was killed
            shutil.rmtree(left_behind, ignore_errors=True)
        yield


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0: every program can be started; 1: something is missing, said on standard error."""
    parser = argparse.ArgumentParser(description="Fetch programs from Debian's packages into .tools/.")
    parser.add_argument("tool", nargs="+", choices=sorted(TOOLS_BY_NAME))
    parser.add_argument(
        "--into", type=Path, default=TOOLS, help="folder to fetch into (default: %(default)s)"
    )
    wanted = parser.parse_args(arguments)
    tools: Path = wanted.into.resolve()
    try:
        with _only_one(tools):
            for name in wanted.tool:
                for tool in TOOLS_BY_NAME[name]:
                    fetch(tool, tools)
    except MissingError as error:
        print(f"get_debian: {error}", file=sys.stderr)
        return 1
    except (OSError, subprocess.SubprocessError) as error:
        print(f"get_debian: could not fetch: {error}\n  Check space and rights of {tools}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

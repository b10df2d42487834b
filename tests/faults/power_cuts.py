"""Cut the supply of cameras at every flash operation of their updates, and say what is left: `make faults`.

Updates of models, and of the agent itself with its boot records. First one cut at every operation in every way, then
several in a row until the time is over: two at every pair of operations on files, two to five at random elsewhere. Then
the camera has to boot into the old or the new model or agent, and to finish the update. FAT is there for
comparison, on real MicroPython: with the same padded files, and with what most people do, a new file and rename().

    python -m tests.faults.power_cuts --seconds 420 --seed 7
"""

import argparse
import functools
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from camera_agent import crypto
from tests.agent import agent_cuts
from tests.agent.agent_cuts import AgentBench
from tests.agent.cut_bench import (
    SCENARIOS,
    SIGNER,
    Bench,
    Case,
    Cut,
    FilesBench,
    RawBench,
    Verdict,
    judge,
    prepare,
    single_cuts,
)
from tests.agent.micropython import ROOT, run_device
from tests.agent.update_kit import lay_out, make_release, weights

BENCHES: Final = (
    "raw 4 KB block",
    "raw 4 KB mapped",
    "raw 128 KB block",
    "raw 128 KB mapped",
    "padded files",
)
ON_MICROPYTHON: Final = (("block", 4096, 2), ("mapped", 131_072, 9))  # flavour, erase block, stride
FAT_FILES: Final = ((4096, 1), (512, 2))  # sector, stride
FAT_RENAME: Final = ((4096, 4096, 1), (512, 4096, 1), (512, 131_072, 41))  # sector, erase block, stride
AGENT: Final = ROOT / "tests" / "agent"
CHUNK: Final = 400  # runs that a worker does in one go
EXAMPLES: Final = 5

Run = tuple[Cut, ...]


# --- in the workers ---------------------------------------------------------------------------------------


def start_worker(folder: Path) -> None:
    """Each process has benches of its own. It checks each signature once: there are hundreds of thousands of boots
    here, and verify() is tested elsewhere."""
    own = folder / str(os.getpid())
    own.mkdir()
    bench_of.cache_clear()
    case_of.cache_clear()
    _own.append(own)
    verify = functools.cache(crypto.verify)
    crypto.verify = lambda key, signature, digest: verify(bytes(key), bytes(signature), bytes(digest))


_own: list[Path] = []


@functools.cache
def bench_of(name: str) -> Bench:
    if name == "padded files":
        return FilesBench()
    _, size, _, flavour = name.split()
    return RawBench(_own[-1], flavour, int(size) * 1024)


@functools.cache
def case_of(bench: str, scenario: str) -> Case:
    return prepare(bench_of(bench), SCENARIOS[scenario])


@functools.cache
def agent_bench(name: str) -> AgentBench:
    return AgentBench(name, _own[-1])


@functools.cache
def agent_case(name: str, scenario: str) -> agent_cuts.Case:
    return agent_bench(name).prepare(scenario)


@dataclass
class Outcome:
    """What became of the cameras of one backend."""

    name: str
    depth: int = 1
    runs: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    operations: int = 0


def cut_all(bench: str, scenario: str, depth: int, runs: list[Run]) -> Outcome:
    """Judge every run."""
    done = Outcome(bench, depth, len(runs))
    for run in runs:
        try:
            verdict: str = judge(bench_of(bench), case_of(bench, scenario), run)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is the finding)
            verdict = Verdict.NO_MODEL
            done.examples.append(f"{scenario}: {run}: {error!r}")
        else:
            if verdict != Verdict.OK:
                done.examples.append(f"{scenario}: {run}: {verdict}")
        done.verdicts[verdict] += 1
    del done.examples[EXAMPLES:]
    return done


def cut_agents(name: str, scenario: str, depth: int, runs: list[Run]) -> Outcome:
    """The same for a camera whose agent is updated."""
    done = Outcome(name, depth, len(runs))
    for run in runs:
        try:
            verdict: str = agent_bench(name).judge(agent_case(name, scenario), run)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is the finding)
            verdict = Verdict.NO_MODEL
            done.examples.append(f"{scenario}: {run}: {error!r}")
        else:
            if verdict != Verdict.OK:
                done.examples.append(f"{scenario}: {run}: {verdict}")
        done.verdicts[verdict] += 1
    del done.examples[EXAMPLES:]
    return done


def raw_on_micropython(flavour: str, erase: int, stride: int) -> Outcome:
    """Raw flash with the interpreter's own VfsRom and deflate."""
    found = _install_releases("check_raw_cuts.py", flavour, str(erase), str(stride))
    done = Outcome(f"raw {erase // 1024} KB {flavour}, MicroPython", runs=found["cuts"])
    done.verdicts[Verdict.NO_MODEL] = found["none"]
    done.verdicts[Verdict.STUCK] = found["stuck"]
    return done


def fat_files(sector: int, stride: int) -> Outcome:
    """The agent's padded files on FAT, on MicroPython."""
    found = _install_releases("check_fat_cuts.py", str(sector), str(stride))
    done = Outcome(f"padded files on FAT, {sector}-byte sectors", runs=found["cuts"])
    done.verdicts["unmountable"] = found["unmountable"]
    done.verdicts[Verdict.NO_MODEL] = found["none"]
    done.verdicts[Verdict.STUCK] = found["stuck"]
    return done


def fat_rename(sector: int, erase: int, stride: int) -> Outcome:
    """A new file and rename() on FAT, on MicroPython."""
    script = Path(__file__).parent / "device" / "fat_rename.py"
    found = _facts(_device(script, str(sector), str(erase), str(stride)))
    done = Outcome(f"rename() on FAT, {sector}-byte sectors, {erase // 1024} KB", runs=found["cuts"])
    done.operations = found["operations"]
    done.verdicts["unmountable"] = found["unmountable"]
    done.verdicts[Verdict.NO_MODEL] = found["none"]
    done.verdicts[Verdict.STUCK] = found["stuck"]
    done.verdicts["settings lost"] = found["config"]
    return done


def _install_releases(script: str, *args: str) -> dict[str, int]:
    with tempfile.TemporaryDirectory() as folder:
        releases = [make_release(SIGNER, f"model-{n}", weights(3 * 4096, seed=n), n) for n in (1, 2, 3)]
        lay_out(Path(folder), SIGNER, releases)
        named = [word for release in releases for word in (release.id, release.digest)]
        return _facts(_device(AGENT / "device" / script, folder, *args, *named, check=False))


def _device(script: Path, *args: str, check: bool = True) -> list[str]:
    try:
        run = run_device("amd64", script, *args, heapsize="16m", timeout=900, paths=[AGENT])
    except AssertionError as error:
        line = next((line for line in str(error).splitlines() if line.startswith("cuts ")), None)
        if check or line is None:
            raise
        return line.split()
    return run.stdout.split()


def _facts(words: list[str]) -> dict[str, int]:
    return {name: int(number) for name, number in zip(words[::2], words[1::2], strict=True)}


# --- what to run ------------------------------------------------------------------------------------------


def scenarios_of(bench: str) -> list[str]:
    """The names of those that this backend can do."""
    return [s.name for s in SCENARIOS.values() if bench_of(bench).supports_upgrade or not s.upgraded]


def chunks(runs: Iterable[Run]) -> Iterator[list[Run]]:
    every = iter(runs)
    while chunk := list(itertools.islice(every, CHUNK)):
        yield chunk


def singles(seed: int) -> Iterator[tuple[str, str, int, list[Run]]]:
    for bench in BENCHES:
        for scenario in scenarios_of(bench):
            case = case_of(bench, scenario)
            for chunk in chunks((cut,) for cut in single_cuts(bench_of(bench), case, seed)):
                yield bench, scenario, 1, chunk


def pairs_on_files(seed: int) -> Iterator[tuple[str, str, int, list[Run]]]:
    """Every pair there is."""
    bench = "padded files"
    for scenario in scenarios_of(bench):
        every = single_cuts(bench_of(bench), case_of(bench, scenario), seed)
        for chunk in chunks(itertools.product(every, repeat=2)):
            yield bench, scenario, 2, chunk


def several_on_raw(chance: random.Random) -> Iterator[tuple[str, str, int, list[Run]]]:
    """Without end: half of them two cuts, the rest three to five."""
    raw = [bench for bench in BENCHES if bench != "padded files"]
    for count in itertools.count():
        depth = 2 if count % 2 else chance.randint(3, 5)
        bench, scenario = chance.choice(raw), chance.choice(list(SCENARIOS))
        case, hows = case_of(bench, scenario), bench_of(bench).hows
        runs = [
            tuple(
                Cut(chance.randint(1, case.operations), chance.choice(hows), chance.getrandbits(31))
                for _ in range(depth)
            )
            for _ in range(CHUNK // 4)
        ]
        yield bench, scenario, depth, runs


def in_a_row(seed: int) -> Iterator[tuple[str, str, int, list[Run]]]:
    """Both kinds in turn; raw flash alone when there are no more pairs."""
    raw = several_on_raw(random.Random(seed))
    for task in pairs_on_files(seed):
        yield task
        yield from itertools.islice(raw, 4)
    yield from raw


def agents_one_by_one(seed: int) -> Iterator[tuple[str, str, int, list[Run]]]:
    for name in agent_cuts.BENCHES:
        for scenario in agent_cuts.SCENARIOS:
            every = agent_bench(name).cuts(agent_case(name, scenario), seed)
            for chunk in chunks((cut,) for cut in every):
                yield name, scenario, 1, chunk


def agents_several(chance: random.Random) -> Iterator[tuple[str, str, int, list[Run]]]:
    """Without end: two to five cuts in a row."""
    while True:
        name, scenario = chance.choice(agent_cuts.BENCHES), chance.choice(agent_cuts.SCENARIOS)
        case, hows = agent_case(name, scenario), agent_bench(name).hows
        depth = chance.choice((2, 2, 3, 4, 5))
        runs = [
            tuple(
                Cut(chance.randint(1, case.operations), chance.choice(hows), chance.getrandbits(31))
                for _ in range(depth)
            )
            for _ in range(CHUNK // 8)
        ]
        yield name, scenario, depth, runs


class Sum:
    """Outcomes by backend and kind of run, in the order in which they first came."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, str], Outcome] = {}

    def add(self, part: Outcome) -> None:
        kind = "one cut" if part.depth == 1 else "two cuts" if part.depth == 2 else "three to five"
        row = self.rows.setdefault((part.name, kind), Outcome(part.name, part.depth))
        row.runs += part.runs
        row.verdicts += part.verdicts
        row.examples = (row.examples + part.examples)[:EXAMPLES]
        row.operations += part.operations


def run_all(seconds: float, seed: int, jobs: int, folder: Path) -> Sum:
    """Single cuts always, all of them; then several in a row until `seconds` have passed."""
    ends = time.monotonic() + seconds
    total = Sum()
    waiting: set[Future[Outcome]] = set()

    def collect(at_most: int) -> None:
        nonlocal waiting
        while len(waiting) > at_most:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                total.add(future.result())

    with ProcessPoolExecutor(jobs, initializer=start_worker, initargs=(folder,)) as pool:
        for task in singles(seed):
            waiting.add(pool.submit(cut_all, *task))
        for agents in agents_one_by_one(seed):
            waiting.add(pool.submit(cut_agents, *agents))
        for raw in ON_MICROPYTHON:
            waiting.add(pool.submit(raw_on_micropython, *raw))
        for files in FAT_FILES:
            waiting.add(pool.submit(fat_files, *files))
        for rename in FAT_RENAME:
            waiting.add(pool.submit(fat_rename, *rename))
        collect(2 * jobs)
        ends = max(
            ends, time.monotonic() + seconds / 2
        )  # on a busy machine the single cuts take all of the time
        more_agents = agents_several(random.Random(seed + 1))
        for n, task in enumerate(in_a_row(seed)):
            if time.monotonic() >= ends:
                break
            waiting.add(pool.submit(cut_all, *task))
            if n % 2:
                waiting.add(pool.submit(cut_agents, *next(more_agents)))
            collect(2 * jobs)
        collect(0)
    for name in BENCHES:
        row = total.rows[name, "one cut"]
        row.operations = sum(case_of(name, scenario).operations for scenario in scenarios_of(name))
    for name in agent_cuts.BENCHES:
        cases = [agent_case(name, scenario) for scenario in agent_cuts.SCENARIOS]
        total.rows[name, "one cut"].operations = sum(case.operations for case in cases)
    return total


# --- what to say ------------------------------------------------------------------------------------------


def is_ours(row: Outcome) -> bool:
    """Whether this backend has to survive everything."""
    return not row.name.startswith("rename()")


def table(total: Sum) -> Iterator[str]:
    yield f"{'storage':<42}{'cuts in a row':<16}{'operations':>10}{'cut points':>12}{'no model':>10}{'stuck':>7}"
    for (name, kind), row in sorted(total.rows.items(), key=lambda item: not is_ours(item[1])):
        lost = row.verdicts[Verdict.NO_MODEL] + row.verdicts["unmountable"]
        operations = row.operations or ""
        yield f"{name:<42}{kind:<16}{operations:>10}{row.runs:>12}{lost:>10}{row.verdicts[Verdict.STUCK]:>7}"
        if row.verdicts["unmountable"] or row.verdicts["settings lost"]:
            yield (
                f"    {row.verdicts['unmountable']} volumes that the firmware formats (agent and settings go too),"
                f" {row.verdicts['settings lost']} more without settings: these need provisioning over USB"
            )
        yield from (f"    {example}" for example in row.examples)


def as_json(total: Sum, seed: int, seconds: float) -> dict[str, Any]:
    ours = [row for row in total.rows.values() if is_ours(row)]
    return {
        "seed": seed,
        "seconds": round(seconds, 1),
        "cut_points": sum(row.runs for row in ours),
        "without_model": sum(row.verdicts[Verdict.NO_MODEL] for row in ours),
        "stuck": sum(row.verdicts[Verdict.STUCK] for row in ours),
        "rows": [
            {
                "storage": name,
                "cuts": kind,
                "operations": row.operations,
                "cut_points": row.runs,
                **{verdict.replace(" ", "_"): count for verdict, count in row.verdicts.items() if count},
            }
            for (name, kind), row in total.rows.items()
        ],
    }


def main() -> int:
    """0: no camera was lost on raw flash and padded files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=420, help="when to stop adding cuts in a row")
    parser.add_argument("--seed", type=int, default=None, help="repeats a run")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    given = parser.parse_args()
    seed = random.SystemRandom().getrandbits(31) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        start_worker(Path(folder))
        total = run_all(given.seconds, seed, given.jobs, Path(folder))
    for line in table(total):
        print(line)
    found = as_json(total, seed, time.monotonic() - began)
    print(f"{found['cut_points']:,} cut points on raw flash and in padded files: ", end="")
    print(
        f"{found['without_model']} cameras without a working model or agent, {found['stuck']} stuck updates"
    )
    print(json.dumps(found))
    return 1 if found["without_model"] or found["stuck"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""fleetctl push-model and what cameras run already: patches where they pay, and what a push costs."""

import hashlib
import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from fleetd.bundles.release import BuiltRelease, build_release
from fleetd.bundles.signing import OperatorKey
from fleetd.cli.bases import BASES
from fleetd.cli.keystore import key_path
from fleetd.protocol.limits import CONTENT_BYTES, MANIFEST_BYTES
from fleetd.protocol.manifest import HEADER_BYTES, Manifest
from tests.integration.api_rig import Rig, error_of, running_rig
from tests.integration.cli_desk import Desk, Fleet
from tests.unit.bundles.models import LABELS, Plan, make

WEIGHTS = 3 * 48 * 48 * 3


@pytest.fixture(autouse=True)
def _quiet_services() -> Iterator[None]:
    """The services run in the same process here; what they log is not what fleetctl prints."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with running_rig(tmp_path) as rig:
        yield rig


@pytest.fixture
def desk(rig: Rig, tmp_path: Path) -> Desk:
    desk = Desk(rig, tmp_path)
    desk.make_key()
    return desk


@pytest.fixture
def fleet(rig: Rig, desk: Desk) -> Fleet:
    fleet = Fleet(rig, "cam-1", "cam-2", "cam-3")
    desk.meanwhile = fleet.step
    return fleet


def bundle(desk: Desk, version: int, *, alike: bool = True) -> Path:
    """A model with random weights of which each version changes 300; or, when not `alike`, all of them."""
    weights = bytearray(random.Random(1 if alike else version).randbytes(WEIGHTS))
    weights[1000 : 1000 + 300] = random.Random(version).randbytes(300)

    def change(model: Any) -> None:
        model.buffers[1].data = bytes(weights)

    path = desk.folder / f"bees-{version}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("trained.tflite", make(Plan(height=48, width=48), change))
        archive.writestr("labels.txt", "".join(f"{label}\n" for label in LABELS))
    return path


def push(desk: Desk, path: Path, *options: object, to: str = "all") -> Any:
    return desk.run("push-model", path, "--to", to, "--yes", "--no-watch", *options)


def stored(desk: Desk, rig: Rig, version: int, *cameras: str, fleet: Fleet, alike: bool = True) -> str:
    """Pushes that version, says that these cameras run it, and answers the content's digest."""
    result = push(desk, bundle(desk, version, alike=alike), "--no-patches")
    assert result.exit_code == 0, result.output
    release = rig.ota.releases()[0]
    for camera in cameras:
        fleet.runs(camera, release.id, release.content_sha256)
    return release.content_sha256


def manifest(rig: Rig, release: str) -> Manifest:
    blob = rig.ota.manifest(release)
    assert len(blob) <= MANIFEST_BYTES
    return Manifest.model_validate_json(blob[HEADER_BYTES:])


def encodings(rig: Rig, release: str) -> list[tuple[str, str | None]]:
    return [(one.kind, one.base) for one in manifest(rig, release).encodings]


def test_cameras_that_run_a_similar_model_are_offered_a_patch_on_it(
    desk: Desk, rig: Rig, fleet: Fleet
) -> None:
    first = stored(desk, rig, 1, "cam-1", "cam-2", fleet=fleet)
    result = push(desk, bundle(desk, 2))
    assert result.exit_code == 0, result.output
    assert encodings(rig, "model-2") == [("deflate", None), ("patch", first)]
    full, patch = manifest(rig, "model-2").encodings
    assert patch.size < 0.05 * full.size
    assert "2 cameras by a patch" in result.stderr
    assert "1 camera in full" in result.stderr


def test_a_patch_that_saves_little_is_left_out(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    stored(desk, rig, 1, "cam-1", "cam-2", fleet=fleet)
    assert push(desk, bundle(desk, 2, alike=False)).exit_code == 0
    assert encodings(rig, "model-2") == [("deflate", None)]


def test_without_patches_nothing_is_fetched(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    stored(desk, rig, 1, "cam-1", fleet=fleet)
    watching = Watching(rig)
    result = desk.run(
        *("push-model", bundle(desk, 2), "--to", "all", "--yes", "--no-watch", "--no-patches"),
        transport=watching,
    )
    assert result.exit_code == 0, result.output
    assert encodings(rig, "model-2") == [("deflate", None)]
    assert watching.contents == []


class Watching(httpx.BaseTransport):
    """The real API; remembers which contents were asked for, and can answer something else for them."""

    def __init__(self, rig: Rig, status: int = 200, content: bytes | None = None) -> None:
        self._rig = rig
        self._answer = status, content
        self.contents: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/content"):
            return self._rig.transport.handle_request(request)
        self.contents.append(request.url.path.split("/")[-2])
        status, content = self._answer
        if content is None:
            return self._rig.transport.handle_request(request)
        return httpx.Response(status, stream=Pieces(content), request=request)


class Pieces(httpx.SyncByteStream):
    """A body that comes bit by bit."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        for at in range(0, len(self._content), 65536):
            yield self._content[at : at + 65536]


ERROR = json.dumps({"error": {"code": "unknown_path", "message": "No such address.", "facts": {}}}).encode()


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (404, ERROR, "No such address."),
        (200, b"something else", "is not what they run"),
        (200, bytes(CONTENT_BYTES + 1), f"more than {CONTENT_BYTES} bytes"),
        (502, b"<html>", "without saying why"),
    ],
)
def test_a_base_that_cannot_be_had_costs_a_warning_and_not_the_push(
    desk: Desk, rig: Rig, fleet: Fleet, status: int, content: bytes, words: str
) -> None:
    stored(desk, rig, 1, "cam-1", fleet=fleet)
    result = desk.run(
        *("push-model", bundle(desk, 2), "--to", "all", "--yes", "--no-watch"),
        transport=Watching(rig, status, content),
    )
    assert result.exit_code == 0, result.output
    assert "No patch for 1 camera with model-1" in result.stderr
    assert words in result.stderr
    assert encodings(rig, "model-2") == [("deflate", None)]


class Garbled(Watching):
    """Contents that claim to be compressed, by some proxy that is no help."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = super().handle_request(request)
        if request.url.path.endswith("/content"):
            answer.headers["Content-Encoding"] = "gzip"
        return answer


def test_a_content_garbled_on_its_way_costs_a_warning(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    stored(desk, rig, 1, "cam-1", fleet=fleet)
    result = desk.run(
        *("push-model", bundle(desk, 2), "--to", "all", "--yes", "--no-watch"),
        transport=Garbled(rig, 200, b"no gzip"),
    )
    assert result.exit_code == 0, result.output
    assert "No patch for 1 camera with model-1" in result.stderr


def test_a_camera_with_a_release_that_fleetd_never_had_costs_a_warning(
    desk: Desk, rig: Rig, fleet: Fleet
) -> None:
    fleet.runs("cam-1", "model-99", "ab" * 32)
    result = push(desk, bundle(desk, 1))
    assert result.exit_code == 0, result.output
    assert "No patch for 1 camera with model-99: There is no release with that id." in result.stderr


def test_only_the_most_common_contents_are_bases(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    names = [f"cam-{n}" for n in range(4, 12)]
    rig.enrol(*names)
    bases = [stored(desk, rig, version, fleet=fleet) for version in range(1, 7)]
    for n, name in enumerate(names):  # model-6 runs on three cameras, the others on one each
        version = min(n + 1, 6)
        fleet.runs(name, f"model-{version}", bases[version - 1])
    watching = Watching(rig)
    result = desk.run(
        *("push-model", bundle(desk, 7), "--to", "all", "--yes", "--no-watch"), transport=watching
    )
    assert result.exit_code == 0, result.output
    assert len(watching.contents) == BASES
    assert watching.contents[0] == "model-6"
    assert len(encodings(rig, "model-7")) == 1 + BASES


def test_the_same_model_with_another_threshold_is_next_to_nothing(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    first = stored(desk, rig, 1, "cam-1", fleet=fleet)
    assert push(desk, bundle(desk, 1), "--threshold", 0.7).exit_code == 0
    full, patch = manifest(rig, "model-2").encodings
    assert rig.ota.release("model-2").content_sha256 == first == patch.base
    assert patch.size < 100 < full.size


def test_the_server_refuses_a_patch_that_does_not_give_the_content(
    desk: Desk, rig: Rig, fleet: Fleet
) -> None:
    """Whoever holds the key can still make a mistake: what can be tried out is tried out."""
    first = stored(desk, rig, 1, fleet=fleet)
    key = OperatorKey.load(key_path(desk.env, None), None)
    from fleetd.bundles import manifests
    from fleetd.bundles.encodings import cut
    from fleetd.bundles.opening import open_bundle
    from fleetd.bundles.patching import make_patch

    facts: dict[str, Any] = {"name": "bees", "version": "2", "epoch": 1, "sequence": 2, "created": 1}
    built: BuiltRelease = build_release(
        open_bundle(bundle(desk, 2)), release_id="model-2", boards=["*"], key=key, **facts
    )
    wrong = cut("patch", make_patch(rig.ota.content("model-1"), b"another content"), first)
    full = built.encodings[0]
    blob = key.sign(
        manifests.canonical(built.manifest.model_copy(update={"encodings": [full.entry(), wrong.entry()]}))
    )
    kind = "application/octet-stream"
    answer = rig.operator.post(
        "/releases",
        files=[
            ("manifest", ("m", blob, kind)),
            ("encodings", ("a", full.data, kind)),
            ("encodings", ("b", wrong.data, kind)),
        ],
    )
    assert answer.status_code == 422
    assert error_of(answer)["facts"]["reason"] == "digest-mismatch"


# -- what it costs -------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_each_camera_fetches_and_changes_nothing(
    desk: Desk, rig: Rig, fleet: Fleet
) -> None:
    first = stored(desk, rig, 1, "cam-1", "cam-2", fleet=fleet)
    before = rig.access.audit()
    rehearsed = desk.json("push-model", bundle(desk, 2), "--to", "all", "--dry-run", "--link-kbit", 500)
    assert rig.access.audit() == before
    assert len(rig.ota.releases()) == 1

    push(desk, bundle(desk, 2))
    blob = rig.ota.manifest("model-2")
    full, patch = manifest(rig, "model-2").encodings
    in_full = full.size + 32 * full.blocks + len(blob)
    by_patch = patch.size + 32 * patch.blocks + len(blob)
    cost = rehearsed["cost"]
    assert (cost["full_bytes"], cost["total_bytes"]) == (in_full, in_full + 2 * by_patch)
    groups = [(one["digest"], one["cameras"], one["encoding"], one["bytes"]) for one in cost["groups"]]
    assert groups == [(first, 2, "patch", by_patch), (None, 1, "deflate", in_full)]
    assert [one["seconds"] for one in cost["groups"]] == [
        round(count * 8 / 500_000, 3) for count in (by_patch, in_full)
    ]
    assert cost["unable"] == []


def test_a_dry_run_in_text_has_the_same_numbers(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    stored(desk, rig, 1, "cam-1", "cam-2", fleet=fleet)
    arguments = ("push-model", bundle(desk, 2), "--to", "all", "--dry-run")
    cost = desk.json(*arguments)["cost"]
    assert cost["link_kbit"] == 2000
    text = desk.ok(*arguments)
    for group in cost["groups"]:
        assert str(group["bytes"]) in text
        assert f"{group['seconds']:.1f}" in text
    for number in (cost["full_bytes"], cost["total_bytes"]):
        assert f"{number} bytes" in text
    assert "model-1 (" in text
    assert "2000 kbit/s" in text
    plain = desk.json(*arguments, "--no-patches")["cost"]
    assert plain["total_bytes"] == 3 * plain["full_bytes"] > cost["total_bytes"]


def test_a_dry_run_names_the_cameras_that_cannot_take_it(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    fleet.runs("cam-3", "model-9", hashlib.sha256(b"").hexdigest(), slot_bytes=10_000)
    Fleet(rig, "cam-n6", board="OpenMV N6 65536")
    result = desk.run("push-model", bundle(desk, 1), "--to", "all", "--dry-run")
    assert result.exit_code == 2, "as the push itself would"
    assert "cannot take it: cam-n6: The OpenMV N6 cannot load a plain .tflite" in result.stdout
    assert "cannot take it: cam-3: its slots hold 9.8 KB" in result.stdout
    assert "It would go to 2 cameras." in result.stderr
    assert "--board rt1062" in result.stderr


def test_a_dry_run_for_boards_that_all_refuse_has_no_cost(desk: Desk, rig: Rig) -> None:
    Fleet(rig, "cam-n6", board="OpenMV N6 65536")
    result = desk.run("push-model", bundle(desk, 1), "--to", "all", "--dry-run")
    assert result.exit_code == 2
    assert "It would go" not in result.output


def test_a_push_for_programs_says_what_it_costs(desk: Desk, rig: Rig, fleet: Fleet) -> None:
    answer = desk.json("push-model", bundle(desk, 1), "--to", "all", "--yes")
    assert answer["cost"]["cameras"] == 3
    assert answer["cost"]["total_bytes"] == 3 * answer["cost"]["full_bytes"]

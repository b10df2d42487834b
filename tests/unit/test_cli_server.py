"""Which fleetd fleetctl talks to, and that a token only goes where it belongs."""

import json
import stat
from pathlib import Path

import pytest

from fleetd.cli.errors import UNUSABLE, CliError
from fleetd.cli.server import config_folder, find_server, is_loopback, normal_url, read_token, save_login

HERE = "http://127.0.0.1:8080"
THERE = "https://fleet.example:8443"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


def start_fleetd(state: Path, url: str = HERE, token: str = "local-token") -> None:
    state.mkdir(parents=True)
    (state / "endpoint.json").write_text(json.dumps({"url": url}))
    (state / "admin.token").write_text(token + "\n")


def write_token(path: Path, token: str, mode: int = 0o600) -> Path:
    path.write_text(token + "\n")
    path.chmod(mode)
    return path


def test_a_fleetd_in_this_folder_is_found_by_itself(env: dict[str, str], folder: Path) -> None:
    start_fleetd(folder / "fleetd-data")
    found = find_server(url=None, token_file=None, env=env, folder=folder)
    assert (found.url, found.token) == (HERE, "local-token")


def test_the_state_folder_may_be_elsewhere(env: dict[str, str], folder: Path, tmp_path: Path) -> None:
    start_fleetd(tmp_path / "state", token="elsewhere")
    env["FLEETD_STATE_DIR"] = str(tmp_path / "state")
    assert find_server(url=None, token_file=None, env=env, folder=folder).token == "elsewhere"


def test_a_login_comes_before_the_folder(env: dict[str, str], folder: Path) -> None:
    start_fleetd(folder / "fleetd-data")
    save_login(env, THERE, "saved-token")
    found = find_server(url=None, token_file=None, env=env, folder=folder)
    assert (found.url, found.token) == (THERE, "saved-token")


def test_the_environment_comes_before_a_login(env: dict[str, str], folder: Path) -> None:
    save_login(env, THERE, "saved-token")
    env |= {"FLEETCTL_URL": HERE, "FLEETCTL_TOKEN": " env-token\n"}
    found = find_server(url=None, token_file=None, env=env, folder=folder)
    assert (found.url, found.token) == (HERE, "env-token")


def test_options_come_before_everything(env: dict[str, str], folder: Path, tmp_path: Path) -> None:
    env |= {"FLEETCTL_URL": THERE, "FLEETCTL_TOKEN": "env-token"}
    file = write_token(tmp_path / "token", "file-token")
    found = find_server(url=HERE, token_file=file, env=env, folder=folder)
    assert (found.url, found.token, found.warning) == (HERE, "file-token", "")


def test_the_token_may_come_from_a_file_named_in_the_environment(
    env: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    env |= {"FLEETCTL_URL": HERE, "FLEETCTL_TOKEN_FILE": str(write_token(tmp_path / "token", "from-file"))}
    assert find_server(url=None, token_file=None, env=env, folder=folder).token == "from-file"


@pytest.mark.parametrize("other", ["http://evil.example", "http://127.0.0.1:9999", "https://127.0.0.1:8080"])
def test_a_stored_token_never_goes_to_another_server(env: dict[str, str], folder: Path, other: str) -> None:
    start_fleetd(folder / "fleetd-data")
    save_login(env, THERE, "saved-token")
    with pytest.raises(CliError, match="no token for") as caught:
        find_server(url=other, token_file=None, env=env, folder=folder)
    assert caught.value.exit_code == UNUSABLE


@pytest.mark.parametrize("same", [HERE + "/", "HTTP://127.0.0.1:8080", f" {HERE} "])
def test_the_same_server_written_differently_is_the_same(
    env: dict[str, str], folder: Path, same: str
) -> None:
    start_fleetd(folder / "fleetd-data")
    assert find_server(url=same, token_file=None, env=env, folder=folder).token == "local-token"


def test_without_any_hint_the_error_says_what_to_do(env: dict[str, str], folder: Path) -> None:
    with pytest.raises(CliError, match="not known where fleetd is") as caught:
        find_server(url=None, token_file=None, env=env, folder=folder)
    assert "fleetctl login" in caught.value.todo


def test_a_state_folder_without_a_readable_token_is_passed_over(env: dict[str, str], folder: Path) -> None:
    start_fleetd(folder / "fleetd-data")
    (folder / "fleetd-data" / "admin.token").unlink()
    with pytest.raises(CliError, match="not known where fleetd is"):
        find_server(url=None, token_file=None, env=env, folder=folder)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fleet",
        "fleet:8080",
        "ftp://fleet",
        "http://",
        "http://user:pw@fleet",
        "http://fleet:99999",
        "http://fleet:x",
        "http://fleet/?a=b",
        "file:///etc/passwd",
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(CliError, match="no address"):
        normal_url(text)


def test_a_login_is_kept_for_its_owner_only(env: dict[str, str]) -> None:
    path = save_login(env, HERE, "secret")
    save_login(env, HERE, "newer")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["token"] == "newer"
    assert [entry.name for entry in path.parent.iterdir()] == ["config.json"], "no temporary file is left"


def test_the_config_folder_follows_the_desktop_rules(tmp_path: Path) -> None:
    assert config_folder({"XDG_CONFIG_HOME": str(tmp_path)}) == tmp_path / "fleetctl"
    assert config_folder({"HOME": "/home/ada"}) == Path("/home/ada/.config/fleetctl")


def test_a_token_file_that_others_can_read_is_pointed_out(
    env: dict[str, str], folder: Path, tmp_path: Path
) -> None:
    file = write_token(tmp_path / "token", "t", mode=0o644)
    assert "chmod 600" in find_server(url=HERE, token_file=file, env=env, folder=folder).warning


@pytest.mark.parametrize(
    "content", [b"", b"  \n", b"two\nlines", b"\xff\xfe", b"x" * 300, "tok\u00e9n".encode()]
)
def test_a_file_without_a_token_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(CliError) as caught:
        read_token(path)
    assert caught.value.exit_code == UNUSABLE


@pytest.mark.parametrize("content", ["not json", "[]", "{}", '{"url": 5, "token": "x"}'])
def test_a_damaged_login_says_what_to_do(env: dict[str, str], folder: Path, content: str) -> None:
    path = save_login(env, HERE, "x")
    path.write_text(content)
    with pytest.raises(CliError) as caught:
        find_server(url=None, token_file=None, env=env, folder=folder)
    assert caught.value.todo


def test_loopback_is_recognised() -> None:
    assert all(is_loopback(url) for url in (HERE, "http://localhost:1", "http://[::1]:8080"))
    assert not is_loopback(THERE)

"""Settings: the file, the environment, and what is refused."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fleetd.cli.daemon import app
from fleetd.errors import SettingsError
from fleetd.settings import Settings, load_settings, names

ROOT = Path(__file__).resolve().parents[2]


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "fleetd.toml"
    file.write_text(text)
    return file


def test_without_any_setting_fleetd_is_a_trial_on_loopback() -> None:
    settings = load_settings()
    assert settings.http.host == "127.0.0.1"
    assert settings.broker.mode == "auto"
    assert settings.database_url.startswith("sqlite:///")


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETD_HTTP__PORT", "9001")
    file = write(tmp_path, 'prefix = "farm/v1"\n[http]\nport = 9000\n')
    settings = load_settings(file)
    assert (settings.http.port, settings.prefix) == (9001, "farm/v1")


@pytest.mark.parametrize("text", ["prefx = 'x'", "[http]\nprot = 1", "[brokr]\nhost = 'x'"])
def test_a_typo_in_the_file_refuses_to_start(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match="no such setting"):
        load_settings(write(tmp_path, text))


def test_a_typo_in_the_environment_refuses_to_start_and_offers_the_right_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLEETD_HTTP__PROT", "1")
    with pytest.raises(
        SettingsError, match=r"FLEETD_HTTP__PROT is no setting.*Did you mean FLEETD_HTTP__PORT"
    ):
        load_settings()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[http]\nport = 70000", "http.port"),
        ("[broker]\nmode = 'rabbit'", "broker.mode"),
        ("prefix = 'a//b'", "prefix"),
        ("prefix = '#'", "prefix"),
        ("this is not toml", "cannot be read"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(SettingsError, match=what):
        load_settings(write(tmp_path, text))


def test_a_file_that_is_not_there_is_an_error_when_it_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(tmp_path / "none.toml")


def test_plain_http_on_an_address_that_others_reach_is_refused_unless_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="tokens could be read"):
        load_settings(write(tmp_path, "[http]\nhost = '0.0.0.0'"))
    allowed = load_settings(write(tmp_path, "[http]\nhost = '0.0.0.0'\nplain = true"))
    assert allowed.http.host == "0.0.0.0"


def test_a_secret_may_stand_in_a_file_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter-22\n")
    monkeypatch.setenv("FLEETD_BROKER__PASSWORD_FILE", str(secret))
    settings = load_settings()
    assert settings.broker.secret() == "hunter-22"
    monkeypatch.delenv("FLEETD_BROKER__PASSWORD_FILE")
    monkeypatch.setenv("FLEETD_BROKER__PASSWORD", "hunter-22")
    shown = load_settings()
    assert "hunter-22" not in repr(shown)
    assert shown.broker.secret() == "hunter-22"


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    missing = [name for name, _ in names(Settings) if f"`{name}`" not in text]
    assert not missing, f"docs/settings.md does not mention {missing}"
    assert all(f"`{dotted}`" in text for _, dotted in names(Settings))


def test_the_settings_in_force_are_shown_without_the_databases_password(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLEETD_DATABASE", "postgresql+psycopg://fleet:open@sesame@db/fleet")
    shown = CliRunner().invoke(app, ["settings"]).output
    assert "postgresql+psycopg://fleet:***@db/fleet" in shown
    assert "sesame" not in shown

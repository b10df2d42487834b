"""What can be set, from where, and what is refused.

Sources, strongest first: environment (`FLEETD_HTTP__PORT=8081`), the TOML file, defaults. A name that is not
known here, in the file or in the environment, refuses to start: a typo must not silently mean the default.
"""

import os
import re
import tomllib
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fleetd.errors import SettingsError
from fleetd.protocol.topics import DEFAULT_PREFIX, PREFIX

ENVIRONMENT_PREFIX = "FLEETD_"
DEFAULT_FILE = Path("fleetd.toml")
# Set for programs around fleetd, not read by it.
_NOT_SETTINGS = {"FLEETD_CONFIG", "FLEETD_TOOLS"}


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BrokerSettings(_Section):
    """Where MQTT is."""

    mode: Literal["auto", "external", "mosquitto", "amqtt"] = Field(
        "auto",
        description="`external`: the broker at host and port. `mosquitto`: one that fleetd starts and watches. "
        "`amqtt`: one inside fleetd, for a trial only. `auto`: external when a host is set, else mosquitto when "
        "it is installed, else amqtt.",
    )
    host: str | None = Field(None, description="Host name or address of an external broker.")
    port: int = Field(
        1883, ge=0, le=65535, description="The broker's port; 0 takes any free one for an own broker."
    )
    username: str | None = Field(None, description="User name for an external broker.")
    password: SecretStr | None = Field(None, description="Password for an external broker.")
    password_file: Path | None = Field(
        None, description="A file that holds the password, instead of `password`."
    )
    client_id: str = Field(
        "fleetd", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="MQTT client id; one per running fleetd."
    )
    tls: bool = Field(
        False,
        description="External broker: talk to it in TLS. Own mosquitto: have it speak TLS on loopback too; beyond, it "
        "does so in any case.",
    )
    ca_file: Path | None = Field(
        None,
        description="External broker with TLS: the certificate (PEM) of the authority that signed its own; without "
        "it, those that this machine trusts.",
    )
    site: Path | None = Field(
        None,
        description="External broker only: the folder of a mosquitto that `fleetd broker init` has set up. fleetd "
        "keeps its accounts there and has it read them again.",
    )
    listen: str = Field(
        "127.0.0.1",
        description="Own mosquitto only: the address on which it listens for cameras, e.g. 0.0.0.0 for all of this "
        "machine. Beyond loopback it speaks TLS, with certificates that `fleetd ca init` makes.",
    )
    tls_port: int = Field(8883, ge=1, le=65535, description="Own mosquitto only: its port for TLS.")
    plain: bool = Field(
        False,
        description="Own mosquitto only: let cameras beyond loopback in without TLS, on `port`. Only on a network "
        "where everyone may read credentials and results.",
    )
    public_host: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9.:-]{1,253}$",
        description="Host name or address under which cameras find fleetd's own broker. `fleetctl provision` tells "
        "them, `fleetd ca init` writes it into the certificate.",
    )
    mosquitto: Path | None = Field(None, description="The mosquitto program, when it is not found by itself.")
    durable: bool = Field(
        False,
        description="Own mosquitto only: write changes to disk as they come, not every half hour. A crash of the "
        "broker then forgets about the last hundred messages, which cameras repeat; it costs about a third of the "
        "publish rate.",
    )

    @field_validator("listen")
    @classmethod
    def _is_address(cls, value: str) -> str:
        try:
            return str(ip_address(value))
        except ValueError:
            raise ValueError(f"{value!r} is no address to listen on, e.g. 0.0.0.0 or 192.168.1.10") from None

    @property
    def is_open(self) -> bool:
        """Whether others than this machine are to reach fleetd's own broker."""
        return not _is_loopback(self.listen)

    def secret(self) -> str | None:
        """The password, from wherever it was given."""
        if self.password_file is not None:
            try:
                return self.password_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise SettingsError(f"broker.password_file cannot be read: {error}") from error
        return None if self.password is None else self.password.get_secret_value()


class HttpSettings(_Section):
    """Where the HTTP API listens."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes any free one.")
    allowed_hosts: list[str] = Field(
        default_factory=list, description="Host names, beyond loopback, that requests may name."
    )
    plain: bool = Field(
        False,
        description="Allow an address other than loopback although fleetd itself speaks plain HTTP. Only behind "
        "a proxy that speaks HTTPS, or on a network where everyone may read the tokens.",
    )

    @model_validator(mode="after")
    def _loopback_unless_told(self) -> Self:
        if not self.plain and not _is_loopback(self.host):
            raise ValueError(
                f"http.host is {self.host}, which others can reach, and fleetd speaks plain HTTP: tokens could be "
                "read on the way. Use 127.0.0.1 behind a proxy that speaks HTTPS, or set http.plain = true."
            )
        return self


class PresenceSettings(_Section):
    """How long silence is ordinary."""

    late_after: float = Field(75.0, gt=0, description="Seconds of silence after which a camera is late.")
    offline_after: float = Field(
        180.0, gt=0, description="Seconds of silence after which a camera is offline."
    )


class LandingSettings(_Section):
    """How messages are stored."""

    receipt_seconds: float = Field(
        2.0, ge=0.1, le=60, description="How often a camera is told which of its messages are stored."
    )
    workers: int = Field(
        0,
        ge=0,
        le=64,
        description="Processes that store messages, sharing one subscription (external broker with MQTT 5); 0: "
        "`fleetd serve` does it itself.",
    )


class IncidentSettings(_Section):
    """When something becomes an incident."""

    silence_after: float = Field(
        300.0, ge=10, description="Seconds of silence after which a camera becomes an incident."
    )
    clear_after: float = Field(
        60.0, ge=1, description="Seconds for which a camera has to be well before its incident closes."
    )
    site_least: int = Field(
        5, ge=2, description="So many cameras of a site, at least, have to fall silent for a site outage ..."
    )
    site_share: float = Field(
        0.5,
        gt=0,
        le=1,
        description="... and at least this share of it. Cameras without a site are one together.",
    )


class NotifySettings(_Section):
    """Who is told of incidents."""

    mqtt: bool = Field(True, description="Publish incidents on `_fleetd/event`.")
    webhook: str | None = Field(
        None, pattern=r"^https?://", description="Address that gets every notice as JSON, by POST."
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="Signs what the webhook gets: header `X-Fleetd-Signature`, HMAC-SHA256 of the body in hex.",
    )
    mail_to: list[str] = Field(default_factory=list, description="Addresses that get every notice by e-mail.")
    mail_from: str = Field("fleetd@localhost", description="The sender of those e-mails.")
    smtp_host: str | None = Field(None, description="The mail server; without it no e-mail is sent.")
    smtp_port: int = Field(587, ge=1, le=65535, description="Its port.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the connection to it is protected."
    )
    smtp_user: str | None = Field(None, description="User name for it.")
    smtp_password: SecretStr | None = Field(None, description="Password for it.")
    smtp_password_file: Path | None = Field(
        None, description="A file that holds the password, instead of `smtp_password`."
    )

    @model_validator(mode="after")
    def _mail_needs_a_server(self) -> Self:
        if self.mail_to and self.smtp_host is None:
            raise ValueError("notify.mail_to is set, but notify.smtp_host names no mail server.")
        return self

    def mail_secret(self) -> str | None:
        """The mail server's password, from wherever it was given."""
        if self.smtp_password_file is not None:
            try:
                return self.smtp_password_file.read_text(encoding="utf-8").strip()
            except OSError as error:
                raise SettingsError(f"notify.smtp_password_file cannot be read: {error}") from error
        return None if self.smtp_password is None else self.smtp_password.get_secret_value()


class RetentionSettings(_Section):
    """How long what cameras send is kept; 0 keeps it for ever."""

    raw_days: float = Field(
        90.0,
        ge=0,
        description="Days that each result and each telemetry message is kept. Older ones are added up per camera and "
        "minute, and per hour, which summaries go on counting.",
    )
    minute_days: float = Field(365.0, ge=0, description="Days that sums per minute are kept.")
    hour_days: float = Field(0.0, ge=0, description="Days that sums per hour are kept.")
    event_days: float = Field(
        365.0, ge=0, description="Days that events, LED sightings and answers to commands are kept."
    )


class LogSettings(_Section):
    """What fleetd says about itself, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least that is logged."
    )
    style: Literal["text", "json"] = Field("text", description="`text` for people, `json` for machines.")


class Settings(BaseSettings):
    """Everything that can be set, read once at the start."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    state_dir: Path = Field(Path("fleetd-data"), description="Folder for everything fleetd keeps.")
    database: str = Field(
        "", description="SQLAlchemy URL of the database. Empty: SQLite in `<state_dir>/fleet.db`."
    )
    prefix: str = Field(DEFAULT_PREFIX, description="What every MQTT topic begins with.")
    broker: BrokerSettings = BrokerSettings()
    http: HttpSettings = HttpSettings()
    presence: PresenceSettings = PresenceSettings()
    landing: LandingSettings = LandingSettings()
    incidents: IncidentSettings = IncidentSettings()
    notify: NotifySettings = NotifySettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _prefix_is_a_topic(self) -> Self:
        if not re.fullmatch(PREFIX, self.prefix):
            raise ValueError(
                f"prefix {self.prefix!r} cannot begin a topic: one to four words of letters, digits, _ . -"
            )
        return self

    @property
    def database_url(self) -> str:
        """The database to use."""
        return self.database or f"sqlite:///{(self.state_dir / 'fleet.db').absolute()}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003  # the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over what the file says."""
        return env_settings, init_settings


def load_settings(file: Path | None = None, **overrides: Any) -> Settings:
    """Reads the TOML file (default `fleetd.toml` here, or FLEETD_CONFIG) and the environment.

    Raises SettingsError, naming the setting and the remedy, on anything that is not understood.
    """
    known = {name for name, _ in names(Settings)}
    for name in os.environ:
        if name.startswith(ENVIRONMENT_PREFIX) and name.upper() not in known | _NOT_SETTINGS:
            raise SettingsError(f"{name} is no setting of fleetd.{_hint(name, known)} fleetd did not start.")
    if file is None and "FLEETD_CONFIG" in os.environ:
        file = Path(os.environ["FLEETD_CONFIG"])
    if file is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    content: dict[str, Any] = {}
    if file is not None:
        try:
            content = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"The settings file {file} cannot be read: {error}") from error
    try:
        return Settings(**{**content, **overrides})
    except ValidationError as error:
        lines = []
        for one in error.errors(include_url=False, include_input=False):
            where = ".".join(str(part) for part in one["loc"])
            what = "no such setting" if one["type"] == "extra_forbidden" else one["msg"]
            lines.append(f"{where or 'settings'}: {what.removeprefix('Value error, ')}")
        raise SettingsError(
            "The settings cannot be used; fleetd did not start. " + "; ".join(lines)
        ) from error


def names(model: type[BaseModel], prefix: str = ENVIRONMENT_PREFIX) -> Iterator[tuple[str, str]]:
    """Every setting as (environment name, dotted name)."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, _Section):
            for inner, dotted in names(kind, ""):
                yield f"{prefix}{name.upper()}__{inner}", f"{name}.{dotted}"
        else:
            yield f"{prefix}{name.upper()}", name


def _hint(name: str, known: set[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  # only needed for a typo

    close = get_close_matches(name.upper(), known, 1)
    return f" Did you mean {close[0]}?" if close else ""

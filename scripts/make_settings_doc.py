"""Writes docs/settings.md from the settings themselves: `python scripts/make_settings_doc.py`."""

from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from fleetd.settings import Settings, names

INTRO = """# Settings

`fleetd serve` works without any. To change something, write it into `fleetd.toml` in the folder where fleetd
starts (or `fleetd serve --config FILE`, or `FLEETD_CONFIG=FILE`), or set the environment variable, which wins:

```toml
state_dir = "/var/lib/fleetd"

[broker]
host = "mqtt.example.org"      # an external broker
username = "fleetd"
password_file = "/etc/fleetd/mqtt.password"

[http]
port = 8081
```

A name that is not in this table, in the file or in the environment, refuses to start.
`fleetd settings` prints what is in force, secrets hidden.

| setting | environment | default | meaning |
|---|---|---|---|
"""


def field(dotted: str) -> tuple[str, str]:
    model: type[BaseModel] = Settings
    *sections, last = dotted.split(".")
    for section in sections:
        kind = model.model_fields[section].annotation
        assert isinstance(kind, type)
        assert issubclass(kind, BaseModel)
        model = kind
    info = model.model_fields[last]
    default = (
        info.default if info.default is not PydanticUndefined else info.get_default(call_default_factory=True)
    )
    shown = (
        "-"
        if default in (None, "", [])
        else f"`{str(default).lower() if default in (True, False) else default}`"
    )
    return shown, info.description or ""


def main() -> None:
    lines = []
    for environment, dotted in names(Settings):
        default, description = field(dotted)
        lines.append(f"| `{dotted}` | `{environment}` | {default} | {description} |")
    text = INTRO + "\n".join(lines) + "\n"
    Path(__file__).resolve().parents[1].joinpath("docs", "settings.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

"""Which broker, token and Space a command means: options, then environment, then a profile.

Profiles are in `$XDG_CONFIG_HOME/sth/config.toml`: `current = "NAME"` and tables `[profile.NAME]`
with `url`, `space`, `token_file` (relative to the file's directory) and `ca_file`. `resolve` is
pure.
"""

import base64
import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sth_protocol.errors import BadRequest, Forbidden, Misconfigured, NotFound

DEFAULT_URL = "http://127.0.0.1:8000"
FORMATS = ("table", "json", "jsonl", "name")
PROFILE_KEYS = ("url", "space", "token_file", "ca_file")

Profile = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Setting:
    """A value and where it came from; false if there is none."""

    value: str = ""
    origin: str = ""

    def __bool__(self) -> bool:
        return bool(self.value)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a command goes by. `token_file` is a path; `token` is one that the environment holds."""

    profile: Setting
    url: Setting
    space: Setting
    token: Setting = field(repr=False)
    token_file: Setting
    ca_file: Setting
    output: Setting


@dataclass(frozen=True, slots=True)
class Config:
    """The file's content; empty if there is none."""

    path: Path
    current: str = ""
    profiles: Mapping[str, Profile] = field(default_factory=dict)

    def profile(self, name: Setting) -> Profile:
        """The profile of that name; NotFound says who asked for it and which there are."""
        if name.value not in self.profiles:
            there = ", ".join(sorted(self.profiles)) or "none"
            raise NotFound(
                f"there is no profile {name.value} (named by {name.origin})",
                hint=f"in {self.path} there is: {there}",
            )
        return self.profiles[name.value]


def config_path(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(environ.get("HOME") or "~", ".config")
    return Path(home).expanduser() / "sth" / "config.toml"


def read_config(path: Path) -> Config:
    """The file at `path`. Misconfigured says what is wrong with it."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return Config(path)
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise Misconfigured(f"{path} is not TOML: {error}", hint="correct or remove it") from None
    current, profiles = content.get("current", ""), content.get("profile", {})
    if not isinstance(current, str) or not isinstance(profiles, dict):
        raise Misconfigured(f'{path}: `current = "NAME"` and tables [profile.NAME] are needed')
    return Config(path, current, {name: _profile(path, name, profiles[name]) for name in profiles})


def _profile(path: Path, name: str, values: object) -> Profile:
    if not isinstance(values, dict):
        raise Misconfigured(f"{path}: [profile.{name}] is not a table")
    for key in PROFILE_KEYS:
        if not isinstance(values.get(key, ""), str):
            raise Misconfigured(f"{path}: {key} of [profile.{name}] is not a text")
    return {key: values[key] for key in PROFILE_KEYS if values.get(key)}


def resolve(
    options: Mapping[str, str | None], environ: Mapping[str, str], config: Config
) -> Settings:
    """What counts: an option, else its variable, else the profile's value, else the default.

    A profile's token, Space and CA are for that profile's broker: they are left aside when a URL is
    given that is another's.
    """

    def given(name: str) -> Setting:
        if value := options.get(name):
            return Setting(value, f"--{name.replace('_', '-')}")
        variable = f"STH_{name.upper()}"
        return Setting(environ[variable], variable) if environ.get(variable) else Setting()

    profile = given("profile") or Setting(
        config.current, str(config.path) if config.current else ""
    )
    values = config.profile(profile) if profile else {}
    url = given("url")
    if url and url.value.rstrip("/") != values.get("url", "").rstrip("/"):
        values = {}

    def kept(name: str) -> Setting:
        return Setting(values[name], f"profile {profile.value}") if name in values else Setting()

    token = Setting(environ.get("STH_TOKEN", "").strip(), "STH_TOKEN")
    if not token or options.get("token_file"):
        token = Setting()
    token_file = Setting() if token else given("token_file") or kept("token_file")
    if token_file.origin.startswith("profile "):
        path = config.path.parent / Path(token_file.value).expanduser()
        token_file = Setting(str(path), token_file.origin)
    return Settings(
        profile=profile,
        url=url or kept("url") or Setting(DEFAULT_URL, "default"),
        space=given("space") or kept("space"),
        token=token,
        token_file=token_file,
        ca_file=given("ca_file") or kept("ca_file"),
        output=_checked_format(given("output") or Setting("table", "default")),
    )


def _checked_format(output: Setting) -> Setting:
    if output.value not in FORMATS:
        raise BadRequest(
            f"'{output.value}' ({output.origin}) is no form of output",
            hint=f"use one of {', '.join(FORMATS)}",
        )
    return output


def read_token(settings: Settings) -> str:
    """The API token; empty if none was given. Misconfigured names a file that cannot be read."""
    if settings.token or not settings.token_file:
        return settings.token.value
    path = Path(settings.token_file.value)
    try:
        return path.read_text("ascii").strip()
    except FileNotFoundError:
        raise Misconfigured(
            f"there is no token file {path} (named by {settings.token_file.origin})",
            hint="on the broker's machine `sth token create api` makes a token",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"the token file {path} cannot be read: {error}") from error


def is_exposed(path: Path) -> bool:
    """Whether others on this machine can read a token file."""
    try:
        return bool(path.stat().st_mode & 0o077)
    except OSError:
        return False


def check_space(token: str, space: Setting) -> None:
    """Forbidden if a Space is asked for that is not the token's: a token reaches one Space only.

    The broker alone checks the signature; this reads what the token says of itself.
    """
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        own = claims["space"]
    except (IndexError, KeyError, TypeError, ValueError):
        return
    if space and own != space.value:
        raise Forbidden(
            f"the token is of Space {own}, and {space.origin} asks for {space.value}",
            hint="use a token or a profile of that Space",
        )

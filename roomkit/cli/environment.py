"""What surrounds the command: installed extras, the `.env` file, and the secret that belongs to a store file."""

from __future__ import annotations

import os
import re
import secrets
from importlib.util import find_spec
from pathlib import Path

from roomkit.errors import ConfigError, MissingExtra

_LINE = re.compile(r"\s*(?:export\s+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?P<value>.*?)\s*")
_QUOTED = re.compile(r"""(?P<quote>['"])(?P<text>.*)(?P=quote)(?:\s+#.*)?""")

SECRET = "ROOMKIT_SECRET"  # noqa: S105 - the name of the variable, not a secret
PUBLIC_URL = "ROOMKIT_PUBLIC_URL"
NODE_URL = "ROOMKIT_NODE_URL"


def version() -> str:
    from importlib import metadata

    try:
        return metadata.version("roomkit-framework")
    except metadata.PackageNotFoundError:
        return "(from a source tree)"


def need(who: str, extra: str, *modules: str) -> None:
    """Raises `MissingExtra`, naming the first of `modules` that is not installed."""
    for module in modules:
        if find_spec(module) is None:
            raise MissingExtra(who, module, extra)


def need_server(who: str) -> None:
    need(who, "server", "starlette", "uvicorn", "websockets")


def read_dotenv(path: Path | None = None) -> list[str]:
    """Reads `.env` of the working directory into the environment, where it overrides nothing. Returns the names set.

    Only the command does this; the library never reads files by itself. Raises `ConfigError` for a line that is not
    NAME=value."""
    path = path or Path(".env")
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; fix or remove it") from None
    found: list[str] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise ConfigError(f"{path}, line {number} is not NAME=value; fix or remove it")
        if match["name"] not in os.environ:
            os.environ[match["name"]] = _plain(match["value"])
            found.append(match["name"])
    return found


def _plain(value: str) -> str:
    quoted = _QUOTED.fullmatch(value)
    return quoted["text"] if quoted else re.split(r"\s+#", value, maxsplit=1)[0]


def secret_of(store: Path) -> str:
    """The token secret of a store file: ROOMKIT_SECRET, or one kept beside the file, so that tokens given out before
    a restart go on working after it."""
    if given := os.environ.get(SECRET):
        return given
    path = store.with_name(f"{store.name}.secret")
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        kept = path.read_text("ascii", errors="replace").strip()
        if not kept:
            raise ConfigError(f"{path} is empty; remove it (tokens given out before end with it)") from None
        return kept
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); choose another --db FILE") from None
    with os.fdopen(fd, "w", encoding="ascii") as file:
        file.write(made := secrets.token_urlsafe(32))
    return made

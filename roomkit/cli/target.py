"""The user's program: `app.py`, `app.py:kit`, `app:kit` or `package.module:kit`, and the RoomKit in it."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from roomkit.errors import ConfigError, RoomKitError, UsageError

if TYPE_CHECKING:
    from roomkit.kit import RoomKit


def load_kit(target: str) -> RoomKit:
    """The RoomKit that `target` names. Raises `UsageError` in one line for anything that is wrong with it."""
    from roomkit.kit import RoomKit

    found = load(target)
    kit = getattr(getattr(found, "state", None), "kit", None) if not isinstance(found, RoomKit) else found
    if not isinstance(kit, RoomKit):
        raise UsageError(f'"{target}" is a {type(found).__name__}, not a RoomKit; name the RoomKit, e.g. app:kit')
    return kit


def load(target: str) -> Any:
    """The object that `target` names: a RoomKit, an ASGI app, or what a function without parameters makes."""
    place, _, name = target.partition(":")
    module = _module(place)
    if name:
        return _called(_named(module, place, name), target)
    return _only_kit(module, place)


def source_of(target: str) -> Path:
    """The file behind `target`, or the working directory for a module."""
    path = Path(target.partition(":")[0])
    return path.resolve() if path.suffix == ".py" else Path.cwd()


def _module(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix == ".py" or "/" in place:
        return _from_file(path if path.suffix else path.with_suffix(".py"))
    if not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(f'"{place}" is neither a Python file nor a module; write app.py or app:kit')
    sys.path.insert(0, str(Path.cwd()))
    try:
        spec = importlib.util.find_spec(place)
    except ModuleNotFoundError:
        spec = None
    if spec is None:
        raise UsageError(f'there is no module "{place}" here ({Path.cwd()}); check the name or the directory')
    return _imported(place, place)


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [one.name for one in path.parent.glob("*.py")], n=1)
        hint = f'; did you mean "{path.with_name(near[0])}"?' if near else "; check the name or the directory"
        raise UsageError(f'there is no file "{path}"{hint}')
    sys.path.insert(0, str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f'"{path}" cannot be read as Python; give a file that ends in .py')
    # In place of what else may have this name: "app.py" means this file.
    module = sys.modules[path.stem] = importlib.util.module_from_spec(spec)
    return _imported(path.stem, str(path), module)


def _imported(name: str, place: str, module: ModuleType | None = None) -> ModuleType:
    try:
        if module is None:
            return importlib.import_module(name)
        assert module.__spec__ is not None
        assert module.__spec__.loader is not None
        module.__spec__.loader.exec_module(module)
        return module
    except RoomKitError as error:
        raise ConfigError(f"{place}: {error}") from error
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        # Whatever the user's file does wrong is told in one line, with the place in the user's own code.
        raise UsageError(f"{place} could not be imported: {_told(error)}") from error


def _told(error: BaseException) -> str:
    what = f"{type(error).__name__}: {error}".replace("\n", " ")
    if isinstance(error, SyntaxError):
        return what
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and frame.filename != __file__
    ]
    return f"{what} ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else what


def _named(module: ModuleType, place: str, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise UsageError(f'{place} has no "{name}"{hint or "; name the RoomKit in it, e.g. app:kit"}')
        found = getattr(found, part)
    return found


def _called(found: Any, target: str) -> Any:
    """A function without parameters is taken for a factory."""
    import inspect

    if not inspect.isfunction(found):
        return found
    if inspect.iscoroutinefunction(found) or any(
        one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
        for one in inspect.signature(found).parameters.values()
    ):
        return found
    try:
        return found()
    except RoomKitError:
        raise
    except Exception as error:
        # The user's function may do anything wrong; it is told in one line.
        raise UsageError(f"{target}() failed: {_told(error)}") from error


def _only_kit(module: ModuleType, place: str) -> Any:
    from roomkit.kit import RoomKit

    kits = {name: value for name, value in vars(module).items() if isinstance(value, RoomKit)}
    if "kit" in kits:
        return kits["kit"]
    distinct = {id(value): value for value in kits.values()}
    if len(distinct) == 1:
        return next(iter(distinct.values()))
    if kits:
        raise UsageError(
            f"{place} has several RoomKits ({', '.join(kits)}); say which, e.g. {place}:{next(iter(kits))}"
        )
    raise UsageError(f"{place} has no RoomKit; add a line like: kit = RoomKit()")

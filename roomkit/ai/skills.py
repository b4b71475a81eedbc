"""Skills: folders with a SKILL.md (front matter `name`, `description`; then instructions), opened when they are needed.

The model sees names and descriptions; `activate_skill` puts the instructions into the system prompt for the rest of the
conversation. References and scripts are files inside the folder and nowhere else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roomkit.ai.tools import ToolContext, ToolSource
from roomkit.errors import ConfigError, ToolFailed, UsageError
from roomkit.models.ai import ToolSpec
from roomkit.models.content import ToolCallContent
from roomkit.runtime import WorkerPool

MAX_ACTIVE = 4
MAX_FILE_CHARS = 200_000
_MAX_ROOMS = 10_000
_SEARCH_EVENTS = 1000

ScriptExecutor = Callable[[Path, list[str]], Awaitable[str]]
"""async (script, arguments) -> output. It decides how, and whether at all, a script of a skill is run."""


@dataclass(frozen=True, slots=True)
class Skill:
    name: str
    description: str
    instructions: str
    folder: Path

    @classmethod
    def load(cls, folder: Path) -> Skill:
        """Reads SKILL.md. Raises `ConfigError` naming what is missing."""
        path = folder / "SKILL.md"
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f'skill folder "{folder}" has no readable SKILL.md ({error.strerror}); add one') from None
        head, body = _front_matter(text)
        for key in ("name", "description"):
            if not head.get(key):
                raise ConfigError(f'{path}: the front matter lacks "{key}"; begin the file with ---, {key}: ..., ---')
        return cls(head["name"], head["description"], body.strip(), folder.resolve())

    def file(self, relative: str) -> Path:
        """A file of this skill. Raises `ToolFailed` for everything that is outside its folder, links included."""
        try:
            path = (self.folder / relative).resolve()
            if path.is_relative_to(self.folder) and path.is_file():
                return path
        except (OSError, ValueError, RuntimeError):  # a name that no file can have, or links in a circle
            pass
        raise ToolFailed(f'skill "{self.name}" has no file "{relative[:200]}"')


class SkillRegistry(ToolSource):
    """The skills of one channel. At most four are active in a room: a fifth retires the one activated longest ago."""

    def __init__(self, skills: Iterable[Skill], *, executor: ScriptExecutor | None = None) -> None:
        self.executor = executor
        self._skills: dict[str, Skill] = {}
        for skill in skills:
            if skill.name in self._skills:
                raise UsageError(f'two skills are named "{skill.name}"; rename one of them')
            self._skills[skill.name] = skill
        self._active: OrderedDict[tuple[str, str, str], list[str]] = OrderedDict()
        self._pool = WorkerPool(2, name="roomkit-skills")

    @classmethod
    def from_folder(cls, folder: Path | str, *, executor: ScriptExecutor | None = None) -> SkillRegistry:
        """Every direct sub-folder with a SKILL.md, or the folder itself when it has one. Raises `ConfigError`."""
        root = Path(folder)
        folders = [root] if (root / "SKILL.md").is_file() else sorted(p.parent for p in root.glob("*/SKILL.md"))
        if not folders:
            raise ConfigError(f'there is no SKILL.md in "{root}" or its sub-folders; check the path')
        return cls(map(Skill.load, folders), executor=executor)

    @classmethod
    def of(cls, skills: SkillRegistry | Path | str | None, *, executor: ScriptExecutor | None) -> SkillRegistry | None:
        if skills is None:
            if executor is not None:
                raise UsageError("script_executor runs scripts of skills, and there are no skills: give skills= too")
            return None
        if isinstance(skills, SkillRegistry):
            if executor is not None:
                skills.executor = executor
            return skills
        return cls.from_folder(skills, executor=executor)

    async def prompt(self, context: ToolContext) -> str:
        """What the system prompt says about skills in this room."""
        active = await self._active_in(context)
        lines = ["Skills you can activate with activate_skill when they fit the task:"]
        lines += [f"- {skill.name}: {skill.description}" for skill in self._skills.values() if skill.name not in active]
        texts = ["\n".join(lines)] if len(lines) > 1 else []
        texts += [f'Instructions of the active skill "{name}":\n{self._skills[name].instructions}' for name in active]
        return "\n\n".join(texts)

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        names = list(self._skills)
        specs = [
            _spec("activate_skill", "Makes the instructions of a skill yours for this conversation.", names),
            _spec("read_skill_reference", "Reads a file that a skill's instructions mention.", names, "path"),
        ]
        if self.executor is not None:
            specs.append(_spec("run_skill_script", "Runs a script of a skill.", names, "path", arguments=True))
        return tuple(specs)

    async def run(self, name: str, arguments: dict[str, Any], context: ToolContext) -> Any:
        skill = self._skills.get(str(arguments.get("skill")))
        if skill is None:
            raise ToolFailed(f"there is no such skill; there are: {', '.join(self._skills)}")
        if name == "activate_skill":
            return await self._activate(skill, context)
        if skill.name not in await self._active_in(context):
            raise ToolFailed(f'skill "{skill.name}" is not active; call activate_skill first')
        path = skill.file(str(arguments.get("path")))
        if name == "read_skill_reference":
            return await self._pool.run(_read, path)
        if name == "run_skill_script" and self.executor is not None:
            return await self.executor(path, [str(each) for each in arguments.get("arguments", [])])
        raise ToolFailed(f'there is no tool "{name}"')

    async def aclose(self) -> None:
        self._pool.close()

    async def _activate(self, skill: Skill, context: ToolContext) -> str:
        active = await self._active_in(context)
        retired = _add(active, skill.name)
        note = f' "{retired}" was retired: at most {MAX_ACTIVE} can be active.' if retired else ""
        return f"{skill.instructions}\n\n(Active from now on in this conversation.{note})"

    async def _active_in(self, context: ToolContext) -> list[str]:
        """The active skills of a room: remembered, or replayed from the room's log after a restart."""
        key = (context.tenant, context.room_id, context.channel_id)
        active = self._active.get(key)
        if active is None:
            events = await context.history(_SEARCH_EVENTS) if context.history is not None else []
            active = self._active[key] = []
            for event in events:
                call = event.content
                if (
                    isinstance(call, ToolCallContent)
                    and event.source.channel_id == context.channel_id
                    and (call.name, call.status) == ("activate_skill", "completed")
                    and call.arguments.get("skill") in self._skills
                ):
                    _add(active, call.arguments["skill"])
            if len(self._active) > _MAX_ROOMS:
                self._active.popitem(last=False)
        self._active.move_to_end(key)
        return active


def _add(active: list[str], name: str) -> str | None:
    """Adds a name as the newest; returns the one that had to go."""
    if name in active:
        active.remove(name)
    active.append(name)
    return active.pop(0) if len(active) > MAX_ACTIVE else None


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[:MAX_FILE_CHARS]


def _front_matter(text: str) -> tuple[dict[str, str], str]:
    """`key: value` lines between two --- lines; values may be quoted or go on in indented lines."""
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or lines[0].strip() != "---":
        return {}, text
    head: dict[str, str] = {}
    key = ""
    for number, line in enumerate(lines[1:], 1):
        if line.strip() == "---":
            return {k: _unquoted(v.strip()) for k, v in head.items()}, "\n".join(lines[number + 1 :])
        if line[:1].isspace() and key:
            head[key] = f"{head[key]} {line.strip()}".strip()
        elif ":" in line:
            key, _, value = line.partition(":")
            key = key.strip()
            head[key] = "" if value.strip() in (">", "|", ">-", "|-") else value.strip()
    return {}, text


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _spec(name: str, description: str, skills: list[str], *texts: str, arguments: bool = False) -> ToolSpec:
    properties: dict[str, Any] = {"skill": {"type": "string", "enum": skills}}
    properties |= {text: {"type": "string"} for text in texts}
    required = list(properties)
    if arguments:
        properties["arguments"] = {"type": "array", "items": {"type": "string"}}
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return ToolSpec(name=name, description=description, parameters=parameters)

"""Skills: found, activated for a conversation, and never a way out of their folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roomkit.ai.skills import MAX_ACTIVE, Skill, SkillRegistry
from roomkit.ai.tools import ToolContext
from roomkit.channels.ai import AIChannel
from roomkit.errors import ConfigError, ToolFailed, UsageError
from roomkit.testing.ai import ScriptedAI, call
from tests.ai.rooms import Talk, results_of, steps_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for n, name in enumerate(("refunds", "greeting", "shipping", "legal", "billing")):
        skill = tmp_path / name
        (skill / "docs").mkdir(parents=True)
        skill.joinpath("SKILL.md").write_text(
            f'---\nname: {name}\ndescription: >\n  How to do\n  "{name}"\n---\n\nStep {n} of {name}.\n',
            encoding="utf-8",
        )
        skill.joinpath("docs", "more.md").write_text(f"more about {name}", encoding="utf-8")
        skill.joinpath("run.sh").write_text("echo hi", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("hush", encoding="utf-8")
    (tmp_path / "refunds" / "link.md").symlink_to(tmp_path / "secret.txt")
    return tmp_path


async def ran(path: Path, arguments: list[str]) -> str:
    return f"ran {path.name} {arguments}"


async def test_the_model_is_told_what_there_is_and_gets_what_it_activates(folder: Path) -> None:
    ai = ScriptedAI([call("activate_skill", skill="refunds")], "ok", "ok")
    talk, channel = Talk(), AIChannel("ai", ai, "Be kind.", skills=folder)
    await talk.say(channel)
    system = ai.requests[0].system or ""
    assert system.startswith("Be kind.")
    assert '- refunds: How to do "refunds"' in system
    assert "Step 0" not in system
    assert "Step 0 of refunds." in results_of(ai.requests[1])[0]
    await talk.say(channel)
    assert "Step 0 of refunds." in (ai.requests[2].system or "")
    assert "- refunds:" not in (ai.requests[2].system or "")


async def test_activation_lasts_over_a_restart_and_only_in_its_room(folder: Path) -> None:
    talk = Talk("one")
    await talk.say(AIChannel("ai", ScriptedAI([call("activate_skill", skill="refunds")], "ok"), skills=folder))
    ai = ScriptedAI("ok", "ok", "ok")
    channel = AIChannel("ai", ai, skills=folder)
    await talk.say(channel)
    await Talk("two").say(channel)
    await Talk("one", tenant="other").say(channel)
    assert ["Step 0" in (request.system or "") for request in ai.requests] == [True, False, False]


async def test_only_four_are_active_and_the_oldest_goes(folder: Path) -> None:
    skills = SkillRegistry.from_folder(folder)
    here = ToolContext(room_id="r")
    names = ["refunds", "greeting", "shipping", "legal", "refunds", "billing"]
    told = [await skills.run("activate_skill", {"skill": name}, here) for name in names]
    assert '"greeting" was retired' in told[-1]
    prompt = await skills.prompt(here)
    assert prompt.count("Instructions of the active skill") == MAX_ACTIVE
    assert "- greeting:" in prompt


async def test_references_and_scripts_need_the_skill_to_be_active(folder: Path) -> None:
    skills = SkillRegistry.from_folder(folder, executor=ran)
    here = ToolContext(room_id="r")
    for name in ("read_skill_reference", "run_skill_script"):
        with pytest.raises(ToolFailed, match="activate_skill first"):
            await skills.run(name, {"skill": "refunds", "path": "docs/more.md"}, here)
    await skills.run("activate_skill", {"skill": "refunds"}, here)
    assert (
        await skills.run("read_skill_reference", {"skill": "refunds", "path": "docs/more.md"}, here)
        == "more about refunds"
    )
    script = {"skill": "refunds", "path": "run.sh", "arguments": ["-x"]}
    assert await skills.run("run_skill_script", script, here) == "ran run.sh ['-x']"
    await skills.aclose()


@pytest.mark.parametrize(
    "path", ["../secret.txt", "link.md", "/etc/passwd", "docs", "", "gone.md", "docs/../../secret.txt"]
)
async def test_no_path_leads_out_of_the_folder(folder: Path, path: str) -> None:
    skills = SkillRegistry.from_folder(folder, executor=ran)
    here = ToolContext(room_id="r")
    await skills.run("activate_skill", {"skill": "refunds"}, here)
    for name in ("read_skill_reference", "run_skill_script"):
        with pytest.raises(ToolFailed, match="no file"):
            await skills.run(name, {"skill": "refunds", "path": path}, here)


async def test_scripts_are_offered_only_with_an_executor(folder: Path) -> None:
    for executor, expected in ((None, "failed"), (ran, "completed")):
        ai = ScriptedAI(
            [call("activate_skill", skill="refunds")], [call("run_skill_script", skill="refunds", path="run.sh")], "ok"
        )
        parts = await Talk().say(AIChannel("ai", ai, skills=str(folder), script_executor=executor))
        assert ("run_skill_script" in [spec.name for spec in ai.requests[0].tools]) is (executor is not None)
        assert steps_of(parts)[-1] == ("run_skill_script", expected)


async def test_unknown_skills_and_tools_are_told(folder: Path) -> None:
    skills = SkillRegistry.from_folder(folder)
    here = ToolContext(room_id="r")
    with pytest.raises(ToolFailed, match="no such skill"):
        await skills.run("activate_skill", {"skill": "cooking"}, here)
    await skills.run("activate_skill", {"skill": "refunds"}, here)
    with pytest.raises(ToolFailed, match="no tool"):
        await skills.run("run_skill_script", {"skill": "refunds", "path": "run.sh"}, here)


def test_folders_that_are_no_skills_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no SKILL\.md"):
        SkillRegistry.from_folder(tmp_path)
    with pytest.raises(ConfigError, match=r"no readable SKILL\.md"):
        Skill.load(tmp_path)
    for text in ("no front matter", "---\nname: x\n---\nbody", "---\nname: x\ndescription: y\n(never closed)"):
        tmp_path.joinpath("SKILL.md").write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match="lacks"):
            SkillRegistry.from_folder(tmp_path)


def test_a_folder_can_be_one_skill_and_names_are_unique(tmp_path: Path) -> None:
    tmp_path.joinpath("SKILL.md").write_text("---\nname: 'x'\ndescription: y: z\n---\nbody", encoding="utf-8")
    registry = SkillRegistry.from_folder(tmp_path)
    skill = Skill.load(tmp_path)
    assert (skill.name, skill.description, skill.instructions) == ("x", "y: z", "body")
    assert SkillRegistry.of(registry, executor=ran) is registry
    assert registry.executor is ran
    with pytest.raises(UsageError, match="two skills"):
        SkillRegistry([skill, skill])


async def test_all_active_leaves_nothing_to_offer(tmp_path: Path) -> None:
    tmp_path.joinpath("SKILL.md").write_text("---\nname: x\ndescription: y\n---\nbody", encoding="utf-8")
    registry = SkillRegistry.from_folder(tmp_path)
    here: Any = ToolContext(room_id="r")
    await registry.run("activate_skill", {"skill": "x"}, here)
    assert await registry.prompt(here) == 'Instructions of the active skill "x":\nbody'

"""Line 14: no name, from wherever, leads out of its folder: skills, files, pages. Paths are made up by hypothesis."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from roomkit.ai.skills import Skill
from roomkit.errors import RoomKitError, ToolFailed
from roomkit.providers.files import FileBlobStore
from tests.servers.house import house

SECRET = "the text that nobody may read"
PIECES = st.sampled_from(
    [
        *(
            "..",
            ".",
            "",
            "a",
            "note.md",
            "secret",
            "SKILL.md",
            "link",
            "out",
            "up",
            "fifo",
            "loop",
            "~",
            "~root",
            "dev",
            "etc",
        ),
        *(
            "...",
            ".. ",
            " ..",
            "..\u2024",
            "\uff0e\uff0e",
            "\u2025",
            "%2e%2e",
            "%252e",
            "..%00",
            "..\x00",
            "\x00",
            "NUL",
            "CON",
            "COM1.txt",
        ),
        *(
            "c:",
            "C:\\Windows",
            "\\\\server\\share",
            "..\\..",
            "file:",
            "\u202e",
            "a" * 300,
            "\ud800",
            "\n",
            "nul.",
            "aux::$DATA",
        ),
    ]
)
PATHS = st.one_of(
    st.lists(PIECES, min_size=1, max_size=8).flatmap(
        lambda parts: st.sampled_from(["/", "\\", "//", "/./", "%2f"]).map(lambda joint: joint.join(parts))
    ),
    st.text(max_size=60),
    st.lists(PIECES, max_size=4).map(lambda parts: "/" + "/".join(parts)),
)
EXAMPLES = (
    *(
        "../secret",
        "/etc/passwd",
        "link",
        "out/secret",
        "a/../../secret",
        "..\\secret",
        "note.md\x00.png",
        "up/secret",
        "loop",
        "fifo",
    ),
    *(
        "sub/../../secret",
        "./../secret",
        "sub/up/../../secret",
        "/proc/self/environ",
        "/dev/zero",
        "~/.ssh/id_rsa",
        "file:///etc/passwd",
    ),
)
QUICK = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), database=None)


@cache
def skill_folder() -> Path:
    """A folder with a skill, a secret beside it, and links from the one to the other."""
    root = Path(mkdtemp(prefix="skills-"))
    folder = root / "skill"
    (folder / "sub").mkdir(parents=True)
    (root / "secret").write_text(SECRET)
    (folder / "SKILL.md").write_text("---\nname: s\ndescription: d\n---\nText.")
    (folder / "note.md").write_text("a note")
    (folder / "link").symlink_to(root / "secret")
    (folder / "out").symlink_to(root)
    (folder / "sub" / "up").symlink_to("../..")
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    return folder


def check_skill(path: str) -> None:
    skill = Skill.load(skill_folder())
    try:
        found = skill.file(path)
    except ToolFailed:
        return
    assert found.resolve().is_relative_to(skill.folder)
    assert found.is_file()
    assert SECRET not in found.read_text()


@pytest.mark.parametrize("path", EXAMPLES)
def test_a_skill_reads_nothing_outside_its_folder_that_one_would_think_of(path: str) -> None:
    check_skill(path)
    with pytest.raises(ToolFailed):
        Skill.load(skill_folder()).file(path)


@QUICK
@given(PATHS)
@example("sub/../note.md")
def test_a_skill_reads_nothing_outside_its_folder(path: str) -> None:
    check_skill(path)


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data


@settings(QUICK, max_examples=40)
@given(tenant=PATHS, blob_id=PATHS, name=PATHS)
async def test_a_file_store_opens_nothing_but_its_own(tenant: str, blob_id: str, name: str) -> None:
    root = skill_folder() / "blobs"
    blobs = FileBlobStore(root)
    assert await blobs.info(tenant, blob_id) is None
    assert not await blobs.delete(tenant, blob_id)
    with pytest.raises(RoomKitError):
        async for _ in blobs.read(tenant, blob_id):
            pass
    kept = await blobs.put(tenant, one(b"text"), mime_type="text/plain", filename=name)
    assert kept.filename is None or not set("/\\\0\n") & set(kept.filename)
    assert kept.id.isalnum()
    assert await blobs.delete(tenant, kept.id)
    await blobs.aclose()
    files = [path for path in skill_folder().parent.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {path.name for path in files} == {"SKILL.md", "note.md", "secret"}


@settings(QUICK, max_examples=60)
@given(PATHS)
@example("../../asgi.py")
@example("chat/../../../errors.py")
async def test_pages_serve_what_they_are_made_of(path: str) -> None:
    async with house() as h:
        for prefix in ("/pages/", "/media/", "/api/rooms/", "/webhooks/", "/"):
            for spelled in (quote(path, safe="/", errors="replace"), quote(path, safe="", errors="replace")):
                answer = await h.http.get(f"http://testserver{prefix}{spelled}")
                assert answer.status_code < 500
                assert "from __future__" not in answer.text
                assert "root:" not in answer.text


def test_every_page_is_a_file_of_the_pages() -> None:
    from roomkit.servers.options import ServerOptions
    from roomkit.servers.static import _read

    root = ServerOptions().pages_root
    assert {(root / name).resolve().is_relative_to(root.resolve()) for name in _read(root)} == {True}


def test_a_link_among_the_pages_is_not_followed_out(tmp_path: Path) -> None:
    from roomkit.servers.static import _read

    (tmp_path / "secret.html").write_text(SECRET)
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.html").write_text("hello")
    (pages / "leak.html").symlink_to(tmp_path / "secret.html")
    served = _read(pages)
    assert "index.html" in served
    assert all(SECRET.encode() not in page.body for page in served.values())

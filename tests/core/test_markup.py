from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkit.core.markup import html_to_text, markdown_to_text


@pytest.mark.parametrize(
    "markdown, text",
    [
        ("# Title\n\nsome *soft* and **loud** and ~~gone~~ `code`", "Title\n\nsome soft and loud and gone code"),
        ("- one\n- two\n\n---\n> quoted", "- one\n- two\n\nquoted"),
        ("```python\nx = 1\n```", "x = 1"),
        ("![a cat](https://x.example/cat.png) [https://y.example](https://y.example)", "a cat https://y.example"),
        ("snake_case_name and 2*3*4 and \\*kept\\*", "snake_case_name and 2*3*4 and *kept*"),
        ("__bold__ _soft_", "bold soft"),
    ],
)
def test_markdown(markdown: str, text: str):
    assert markdown_to_text(markdown) == text


@pytest.mark.parametrize(
    "html, text",
    [
        ("<h1>Hi</h1><p>one<br>two</p>", "Hi\n\none\ntwo"),
        ("<ul><li>a</li><li>b</li></ul>", "- a\n- b"),
        ('<a href="https://a.example">here</a> <a href="javascript:x()">there</a>', "here (https://a.example) there"),
        ("<style>p{}</style><title>t</title>a &amp; b&nbsp;c", "a & b c"),
        ("<p>unclosed <b>tags", "unclosed tags"),
        ("</script>text", "text"),
    ],
)
def test_html(html: str, text: str):
    assert html_to_text(html) == text


@given(st.text(alphabet="*_[]()`~#>\\ab \n", max_size=400))
def test_no_markup_is_too_odd(text: str):
    assert isinstance(markdown_to_text(text), str)
    assert isinstance(html_to_text(text), str)

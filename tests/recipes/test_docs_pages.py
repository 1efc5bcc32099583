"""The Python blocks of the pages about evaluation, recipes and graphs run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize("page", ["evaluation.md", "recipes.md", "graphs.md"])
def test_blocks_run(page):
    text = (DOCS / page).read_text()
    scope: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, page, "exec"), scope)

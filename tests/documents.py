"""The code blocks of a document, so that tests can run what people copy."""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"


def blocks(document: str, language: str, heading: str = "") -> list[str]:
    """The blocks of that language below a heading of that beginning, in order."""
    text = (DOCS / document).read_text(encoding="utf-8")
    if heading:
        _, found, rest = text.partition(f"\n## {heading}")
        assert found, heading
        text = rest.partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)

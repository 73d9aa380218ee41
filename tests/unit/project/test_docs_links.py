"""Links between the documents lead somewhere."""

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[3]
_DOCUMENTS = [_ROOT / "README.md", _ROOT / "CONTRIBUTING.md", *sorted((_ROOT / "docs").rglob("*.md"))]
_LINK = re.compile(r"\[[^\]]+\]\((?![a-z]+:)([^)#\s]*)(?:#([^)\s]+))?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def _anchors(document: Path) -> set[str]:
    headings = _HEADING.findall(document.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: str(path.relative_to(_ROOT)))
def test_links_of_a_document_lead_somewhere(document: Path) -> None:
    broken = []
    for target, anchor in _LINK.findall(document.read_text(encoding="utf-8")):
        to = (document.parent / target).resolve() if target else document
        if not to.exists() or (anchor and to.suffix == ".md" and anchor not in _anchors(to)):
            broken.append(f"{target}#{anchor}" if anchor else target)
    assert broken == []

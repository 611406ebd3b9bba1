"""Every Python snippet of the documentation runs, page by page, from top to bottom.

A page's snippets share one namespace. What a reader has already (a model, a loader) stands in an
HTML comment that begins with `python`. A snippet with prompts is run by doctest.
"""

import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SNIPPET = re.compile(r"^(?:<!-- python\n(.*?)^-->|```python\n(.*?)^```)", re.DOTALL | re.MULTILINE)


def snippets(page: Path) -> list[tuple[int, str]]:
    text = page.read_text()
    return [
        (text.count("\n", 0, m.start()) + 1, m[1] if m[1] is not None else m[2])
        for m in SNIPPET.finditer(text)
    ]


@pytest.mark.parametrize("page", [p for p in PAGES if snippets(p)], ids=lambda p: p.name)
def test_every_snippet_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "snippet"}
    for line, code in snippets(page):
        if code.lstrip().startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(code, namespace, page.name, page.name, line)
            runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
            said: list[str] = []
            runner.run(test, out=said.append, clear_globs=False)
            assert not runner.failures, "".join(said)
            namespace.update(test.globs)
        else:
            # The line number, so that a traceback points into the page.
            exec(compile("\n" * line + code, str(page), "exec"), namespace)


def test_the_guides_have_snippets() -> None:
    assert {"README.md", "add-to-your-model.md", "integrations.md"} <= {
        page.name for page in PAGES if snippets(page)
    }

"""Where `groundup report` puts the page."""

from __future__ import annotations

from groundup.cli import main


def test_the_page_of_one_folder_goes_into_it(pair, tmp_path, monkeypatch, capsys):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    (root,) = {folder.parent for folder in pair}
    assert main(["report", str(root)]) == 0
    assert (root / "report.html").stat().st_size > 10_000
    assert capsys.readouterr().out.strip() == str(root / "report.html")
    assert main(["report", *map(str, pair)]) == 0
    assert (here / "report.html").exists()

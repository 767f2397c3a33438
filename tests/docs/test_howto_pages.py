"""The code of the pages on Python and on constraints runs as it stands."""

import re
import shlex
from pathlib import Path

import pytest

from dnagpt_fast.cli import main

PAGES = Path(__file__).parents[2] / "docs" / "howto"


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", ["python.md", "constraints.md"])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    Path("two.fa").write_text(">chr1\nACGTTGCATGCATGGCATTA\n>chr2\nGGGCCCATATTA\n")
    for command in "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines():
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(command)[1:])
        assert ended.value.code == 0, capsys.readouterr().err
    scope: dict = {}
    for code in blocks(page, "python"):
        exec(code, scope)
    if page == "python.md":
        assert "sequences[1]: NoneType" in capsys.readouterr().out
        assert len(scope["vectors"]) == 4
    else:
        assert len(re.findall("^>", Path("made.fa").read_text(), re.MULTILINE)) == 4

"""The code of the pages on Python, constraints, shuffles and extracts runs as it stands."""

import re
import shlex
from pathlib import Path

import pytest

from dnagpt_fast.cli import main

PAGES = Path(__file__).parents[2] / "docs" / "howto"


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (PAGES / page).read_text(), re.DOTALL)


@pytest.mark.parametrize("page", ["python.md", "constraints.md", "extract.md", "shuffled_controls.md"])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch, capsys):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    Path("two.fa").write_text(">chr1\nACGTTGCATGCATGGCATTA\n>chr2\nGGGCCCATATTA\n")
    Path("intervals.bed").write_text("chr2\t3\t6\tgene\t0\t-\n")
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
    elif page == "extract.md":
        assert Path("all.fa").read_text() == Path("two.fa").read_text()
        assert Path("intervals.fa").read_text() == ">gene chr2:3-6(-)\nGGG\n"
    elif page == "shuffled_controls.md":
        assert Path("scores.tsv").read_text().splitlines()[0].endswith("control_mean\tcontrol_sd\tz")
    else:
        assert len(re.findall("^>", Path("made.fa").read_text(), re.MULTILINE)) == 4

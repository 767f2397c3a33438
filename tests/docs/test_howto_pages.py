"""What the code of the pages on Python, constraints, shuffles and extracts prints and writes."""

import re
from pathlib import Path

import pytest

from tests.docs.blocks import blocks, run_block


@pytest.mark.parametrize("page", ["python.md", "constraints.md", "extract.md", "shuffled_controls.md"])
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    pytest.importorskip("sklearn", reason="needs the extra [finetune]")
    monkeypatch.chdir(tmp_path)
    Path("two.fa").write_text(">chr1\nACGTTGCATGCATGGCATTA\n>chr2\nGGGCCCATATTA\n")
    Path("intervals.bed").write_text("chr2\t3\t6\tgene\t0\t-\n")
    names: dict = {}
    printed = "".join(run_block(block, tmp_path, names) for block in blocks(f"docs/howto/{page}"))
    if page == "python.md":
        assert "sequences[1]: NoneType" in printed
        assert len(names["vectors"]) == 4
    elif page == "extract.md":
        assert Path("all.fa").read_text() == Path("two.fa").read_text()
        assert Path("intervals.fa").read_text() == ">gene chr2:3-6(-)\nGGG\n"
    elif page == "shuffled_controls.md":
        assert Path("scores.tsv").read_text().splitlines()[0].endswith("control_mean\tcontrol_sd\tz")
    else:
        assert len(re.findall("^>", Path("made.fa").read_text(), re.MULTILINE)) == 4

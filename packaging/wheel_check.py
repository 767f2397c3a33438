"""Checks an installed wheel: its commands pack, score, embed and annotate a variant in a temporary folder.

python packaging/wheel_check.py [MODEL]

MODEL is the packaged model by default. cibuildwheel runs this in the environment of each wheel that it builds.
"""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

BASES = "ACGTTGCAATCGGCTAAGCTTGACCTAGGATCCATGCAAGTTCGAACTGGTACCTTAGCA" * 20
VCF = "##fileformat=VCFv4.2\n##contig=<ID=one>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


def main(model: str = "dna_gpt6m_m") -> None:
    command = shutil.which("dnagpt-fast", path=sysconfig.get_path("scripts"))
    if command is None:
        raise SystemExit("dnagpt-fast is not installed beside this Python")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "one.fa").write_text(f">one\n{BASES}\n")
        ref = BASES[599]
        alt = "A" if ref != "A" else "C"
        (folder / "one.vcf").write_text(f"{VCF}one\t600\t.\t{ref}\t{alt}\t.\t.\t.\n")

        def run(*arguments: str) -> str:
            done = subprocess.run([command, *arguments], cwd=folder, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(
                    f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
                )
            return done.stdout

        run("pack", "one.fa", "one.2bit")
        score = run("score", model, "one.2bit").splitlines()[1].split("\t")
        assert float(score[-1]) < 0, score
        run("embed", model, "one.fa", "--out", "one.npy")
        assert (folder / "one.npy").stat().st_size > 128, "no embedding"
        run("variants", model, "one.2bit", "one.vcf", "--out", "scored.vcf")
        assert "DG_LLR=" in (folder / "scored.vcf").read_text(), "no score of the variant"
    print(f"dnagpt-fast in {sys.prefix}: pack, score, embed and variants run, one at {score[-1]} nats/bp")


if __name__ == "__main__":
    main(*sys.argv[1:])

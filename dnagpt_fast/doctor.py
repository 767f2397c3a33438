"""What is installed and built, what runs here, and how to mend what does not."""

import importlib.util
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

REQUIRED = ("torch", "numpy", "safetensors", "typer", "rich", "pysam", "matplotlib")
EXTRAS = {"hf": ("transformers", "peft"), "finetune": ("sklearn", "scipy", "pandas", "pyarrow", "peft")}


@dataclass(frozen=True)
class Finding:
    """well: False where something must be mended; told says what, and how."""

    what: str
    well: bool
    told: str


def examine() -> list[Finding]:
    """Every finding, the bad ones included; raises nothing for what is merely missing."""
    findings = [
        Finding("python", sys.version_info >= (3, 11), sys.version.split()[0] + " (3.11 or later is wanted)")
    ]
    findings += [_package(name) for name in REQUIRED]
    findings.append(_triton())
    findings += [_extra(name, packages) for name, packages in EXTRAS.items()]
    findings += _native()
    findings.append(_device())
    return findings


def _package(name: str) -> Finding:
    try:
        return Finding(name, True, version(name))
    except PackageNotFoundError:
        return Finding(name, False, f"missing: pip install {name}")


def _triton() -> Finding:
    if not sys.platform.startswith("linux"):
        return Finding("triton", True, "not for this system; the CPU kernels do without")
    return _package("triton")


def _extra(name: str, packages: tuple[str, ...]) -> Finding:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    told = (
        f'not installed ({", ".join(missing)}): pip install "dnagpt-fast[{name}]" if wanted'
        if missing
        else "installed"
    )
    return Finding(f"extra [{name}]", True, told)


def _native() -> list[Finding]:
    try:
        from dnagpt_fast import ops
    except ImportError as error:
        return [Finding("compiled kernels", False, str(error))]
    report = ops.report()
    cuda = ", ".join(f"sm_{arch}" for arch in report["cuda_archs"])
    no_cuda = "not built; where there is nvcc: DNAGPT_FAST_CUDA=1 pip install --force-reinstall ."
    findings = [
        Finding("compiled kernels", _tokenizes_right(), f"CPU instruction set {report['cpu_isa']}"),
        Finding("CUDA kernels", True, cuda or no_cuda),
    ]
    for op, devices in report["implementations"].items():
        told = ", ".join(f"{device} {name}" for device, name in devices.items())
        findings.append(Finding(f"op {op}", True, told))
    return findings


def _tokenizes_right() -> bool:
    """One window of the packaged genome through the compiled kernel and through plain string handling."""
    from dnagpt_fast import ops
    from dnagpt_fast.demo import DEMO_CONFIG
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.vocab import Vocabulary

    vocabulary = Vocabulary()
    with Genome.open(DEMO_CONFIG.with_name("hg19_chr22_20-21Mb.2bit")) as genome:
        text = genome.sequence(genome.names[0], 100_001, 100_001 + 600)
        ids = ops.kmer_tokenize(genome, [0], [100_001], 100)[0].tolist()
    return ids == [vocabulary.kmer_id(text[start : start + 6]) for start in range(0, 600, 6)]


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        told = f"{torch.cuda.get_device_name()}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
        return Finding("device", True, told)
    return Finding("device", True, f"CPU, {torch.get_num_threads()} threads; torch sees no CUDA device")

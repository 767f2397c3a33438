"""Checks what is installed and built and what runs on this machine, and says how to fix faults."""

import ctypes
import importlib.util
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

REQUIRED = ("torch", "numpy", "safetensors", "typer", "rich", "pysam", "matplotlib")
TESTED_TRANSFORMERS = ("5.4", "5.24")
"""The oldest and the newest release that the tests run with; the oldest is the minimum in `pyproject.toml`."""
EXTRAS = {
    "hf": ("transformers", "peft"),
    "finetune": ("sklearn", "scipy", "pandas", "pyarrow", "peft"),
    "tracks": ("pyBigWig", "logomaker"),
}


@dataclass(frozen=True)
class Finding:
    """ok: False if something must be fixed; the message says what, and how."""

    what: str
    ok: bool
    message: str


def examine() -> list[Finding]:
    """All findings, good and bad. A missing package is a finding, not an exception."""
    findings = [
        Finding("python", sys.version_info >= (3, 11), sys.version.split()[0] + " (wanted 3.11 or later)")
    ]
    findings += [_package(name) for name in REQUIRED]
    findings.append(_triton())
    findings += [_extra(name, packages) for name, packages in EXTRAS.items()]
    findings += _transformers()
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
        return Finding("triton", True, "not for this system; the CPU kernels do not need it")
    return _package("triton")


def _extra(name: str, packages: tuple[str, ...]) -> Finding:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    message = (
        f'not installed ({", ".join(missing)}): if needed, pip install "dnagpt-fast[{name}]"'
        if missing
        else "installed"
    )
    return Finding(f"extra [{name}]", True, message)


def _transformers() -> list[Finding]:
    """No finding if transformers is not installed: the finding of the extra says so."""
    try:
        installed = version("transformers")
    except PackageNotFoundError:
        return []
    from packaging.version import Version  # transformers needs it

    oldest, newest = TESTED_TRANSFORMERS
    span = f"tested with {oldest} to {newest}"
    if Version(installed) < Version(oldest):
        return [Finding("transformers", False, f"{installed}, {span}: pip install 'transformers>={oldest}'")]
    if Version(installed).release[:2] > Version(newest).release:
        span += f"; newer than tested: if something fails, pip install 'transformers=={newest}.*'"
    return [Finding("transformers", True, f"{installed}, {span}")]


def _native() -> list[Finding]:
    try:
        from dnagpt_fast.ops import compiled
    except ImportError as error:
        return [Finding("compiled kernels", False, str(error))]
    report = compiled.report()
    findings = [
        Finding("compiled kernels", _tokenizes_right(), f"CPU instruction set {report['cpu_isa']}"),
        _cuda_kernels(report["cuda_archs"]),
        _driver(driver_version(), compiled.cuda_runtime()),
    ]
    for op, devices in report["implementations"].items():
        message = ", ".join(f"{device} {name}" for device, name in devices.items())
        findings.append(Finding(f"op {op}", True, message))
    return [*findings, _products()]


def _products() -> Finding:
    from dnagpt_fast.ops.traits import FAST_PRODUCTS, fast_products

    fast = fast_products()
    missing = [
        f"{name} (no {' or '.join(wanted)})" for name, wanted in FAST_PRODUCTS.items() if name not in fast
    ]
    message = ", ".join(fast) + (f"; too slow on this processor: {', '.join(missing)}" if missing else "")
    return Finding("--products", True, message)


def _cuda_kernels(archs: list[str]) -> Finding:
    if not archs:
        return Finding("CUDA kernels", True, f"not built; to build them: {_rebuild()}")
    listed = ", ".join(f"sm_{arch}" for arch in archs)
    return Finding("CUDA kernels", True, f"{listed}, and PTX for cards newer than sm_{archs[-1]}")


def _rebuild() -> str:
    from dnagpt_fast.ops import compiled

    return compiled.REBUILD


def driver_version() -> int | None:
    """The newest CUDA version that the machine's driver supports, 13000 for 13.0; None without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int(0)
    # needs neither a device nor an initialised driver; an error leaves 0
    driver.cuDriverGetVersion(ctypes.byref(version))
    return version.value


def _driver(driver: int | None, runtime: int) -> Finding:
    """`runtime` is the CUDA linked into the compiled kernels, 0 for none."""
    if driver is None:
        return Finding("NVIDIA driver", True, "none (no libcuda.so.1); everything runs on the CPU")
    message = f"supports CUDA {_dotted(driver)}"
    # within a major version an older driver supports a newer runtime
    if driver // 1000 < runtime // 1000:
        return Finding(
            "NVIDIA driver",
            False,
            f"{message}, the kernels were built with CUDA {_dotted(runtime)}: install a newer driver, or rebuild with "
            f"nvcc {driver // 1000} on PATH: {_rebuild()}",
        )
    return Finding("NVIDIA driver", True, message)


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def runs_on(capability: tuple[int, int], archs: list[str]) -> str:
    """What runs on a device of a build for these architectures: "sm_90", "PTX of sm_120", or "" for nothing."""
    major, minor = capability
    # machine code runs on devices of its major version with the same or a newer minor version; PTX on all newer devices
    fitting = [arch for arch in archs if int(arch) // 10 == major and int(arch) % 10 <= minor]
    if fitting:
        return f"sm_{fitting[-1]}"
    if archs and int(archs[-1]) <= 10 * major + minor:
        return f"PTX of sm_{archs[-1]}"
    return ""


def _tokenizes_right() -> bool:
    """Whether the compiled kernel and plain Python give the same ids for a window of the packaged genome."""
    from dnagpt_fast import ops
    from dnagpt_fast.genome import Genome
    from dnagpt_fast.pretrain.demo import DEMO_CONFIG
    from dnagpt_fast.vocab import Vocabulary

    vocabulary = Vocabulary()
    with Genome.open(DEMO_CONFIG.with_name("hg19_chr22_20-21Mb.2bit")) as genome:
        text = genome.sequence(genome.names[0], 100_001, 100_001 + 600)
        ids = ops.kmer_tokenize(genome, [0], [100_001], 100)[0].tolist()
    return ids == [vocabulary.kmer_id(text[start : start + 6]) for start in range(0, 600, 6)]


def _device() -> Finding:
    import torch

    from dnagpt_fast.training.figures import GIB

    if not torch.cuda.is_available():
        message = f"CPU, {torch.get_num_threads()} threads; torch sees no CUDA device"
        if driver_version() is None:
            return Finding("device", True, message)
        why = "torch was built without CUDA: install one of https://pytorch.org/get-started"
        if torch.version.cuda:
            why = f"torch needs CUDA {torch.version.cuda}; is the driver older, or CUDA_VISIBLE_DEVICES set?"
        return Finding("device", True, f"{message}, although there is a driver ({why})")
    free, total = torch.cuda.mem_get_info()
    capability = torch.cuda.get_device_capability()
    message = (
        f"{torch.cuda.get_device_name()} (sm_{capability[0]}{capability[1]}), "
        f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    )
    try:
        from dnagpt_fast.ops import compiled
    except ImportError:  # reported by _native
        return Finding("device", True, message)
    archs = compiled.cuda_archs()
    if not archs:
        return Finding("device", False, f"{message}; the CUDA kernels were not built: {_rebuild()}")
    way = runs_on(capability, archs)
    if not way:
        arch = f"{capability[0]}{capability[1]}"
        return Finding(
            "device",
            False,
            f"{message}; no kernel is built for it: DNAGPT_FAST_CUDA_ARCHS={arch} {_rebuild()}",
        )
    return Finding("device", True, f"{message}; CUDA kernels run as {way}")

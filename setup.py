"""Builds dnagpt_fast._native from csrc/ with ninja: C++17 always, CUDA where nvcc is found. No torch is needed.

Environment: DNAGPT_FAST_CUDA=auto|0|1 (auto: CUDA if nvcc is found; 1: fail without it),
DNAGPT_FAST_CUDA_ARCHS="80 90 100 120", DNAGPT_FAST_MODELS=0 (leave the packaged models out),
DNAGPT_FAST_SANITIZE=1 (ASan + UBSan), MAX_JOBS, CUDA_HOME, CXX, CPPFLAGS, CXXFLAGS, LDFLAGS and, on macOS, ARCHFLAGS.
"""

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from itertools import chain
from pathlib import Path

import ninja
import pybind11
import setuptools
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

if int(setuptools.__version__.split(".")[0]) < 77:
    raise SystemExit(
        f"dnagpt_fast needs setuptools >= 77, found {setuptools.__version__}: `pip install 'setuptools>=77'`, "
        "or build without --no-build-isolation"
    )

ROOT = Path(__file__).parent.resolve()
CSRC = ROOT / "csrc"
DEFAULT_CUDA_ARCHS = "80 90 100 120"

RULES = """\
ninja_required_version = 1.5
rule cxx
  command = $cxx -MMD -MF $out.d $cxxflags -c $in -o $out
  depfile = $out.d
  deps = gcc
rule nvcc
  command = $nvcc -MMD -MF $out.d $nvccflags -c $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = $cxx $in $ldflags -o $out
"""


def find_nvcc() -> Path | None:
    """nvcc from CUDA_HOME, then PATH, then PyPI's nvidia-cuda-nvcc; None where CUDA is switched off or not
    found."""
    choice = os.environ.get("DNAGPT_FAST_CUDA", "auto")
    if choice not in ("auto", "0", "1"):
        raise SystemExit(f"DNAGPT_FAST_CUDA={choice!r}: wanted auto, 0 or 1")
    if choice == "0" or not list(CSRC.glob("cuda/*.cu")):
        return None
    candidates = []
    if os.environ.get("CUDA_HOME"):
        candidates.append(Path(os.environ["CUDA_HOME"]) / "bin" / "nvcc")
    if on_path := shutil.which("nvcc"):
        candidates.append(Path(on_path))
    for site in map(Path, {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}):
        candidates += sorted(site.glob("nvidia/*/bin/nvcc"))
    missing = "no nvcc in CUDA_HOME, PATH or the nvidia-cuda-nvcc package"
    for nvcc in filter(Path.is_file, candidates):
        if static_cuda_runtime(nvcc):
            return nvcc
        missing = f"{nvcc} has no libcudart_static.a in its toolkit {toolkit_of(nvcc)}"
    if choice == "1":
        raise SystemExit(
            f"DNAGPT_FAST_CUDA=1 but {missing}: install the CUDA toolkit, "
            "or `pip install nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-crt`"
        )
    print(f"dnagpt_fast: built for the CPU only: {missing}", file=sys.stderr)
    return None


def cuda_archs() -> list[str]:
    return os.environ.get("DNAGPT_FAST_CUDA_ARCHS", DEFAULT_CUDA_ARCHS).replace(",", " ").split()


def arch_flag() -> str:
    """The compiler option that passes the list of architectures to the code that reports it."""
    return shlex.quote(f'-DDNAGPT_CUDA_ARCHS="{",".join(cuda_archs())}"')


def compiler() -> str:
    return os.environ.get("CXX", "c++")


def check_compiler() -> None:
    """Raises SystemExit where CXX (a command, perhaps with options) cannot compile C++17."""
    test = "#include <string_view>\nint main() { if constexpr (true) return 0; }\n"
    command = [*shlex.split(compiler()), "-std=c++17", "-x", "c++", "-fsyntax-only", "-"]
    try:
        done = subprocess.run(command, input=test, capture_output=True, text=True)
    except OSError as error:
        raise SystemExit(no_compiler(str(error))) from None
    if done.returncode:
        raise SystemExit(no_compiler(f"{' '.join(command)}: {done.stderr.strip()[:500]}"))


def no_compiler(why: str) -> str:
    return (
        "dnagpt_fast: no C++17 compiler: install g++ 9 or clang 10, or newer (Debian: `apt install g++`, macOS: "
        f"`xcode-select --install`), or set CXX to one ({why})"
    )


class NinjaBuild(build_ext):
    """Compiles every csrc/**/*.cpp (and .cu) with one ninja file; setuptools only chooses the target path."""

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        check_compiler()
        work = Path(self.build_temp).resolve() / "native"
        work.mkdir(parents=True, exist_ok=True)
        (work / "build.ninja").write_text(self.ninja_file(target, work))
        command = [str(Path(ninja.BIN_DIR) / "ninja"), "-C", str(work)]
        if os.environ.get("MAX_JOBS"):
            command += ["-j", os.environ["MAX_JOBS"]]
        subprocess.run(command, check=True)

    def ninja_file(self, target: Path, work: Path) -> str:
        nvcc = find_nvcc()
        cxx = compiler()
        include = [CSRC, pybind11.get_include(), sysconfig.get_path("include")]
        flags = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-pthread"]
        flags += [f"-I{shlex.quote(str(path))}" for path in include]
        link = ["-shared", "-pthread"]
        given = [shlex.split(os.environ.get(name, "")) for name in ("CPPFLAGS", "CXXFLAGS")]
        flags += map(shlex.quote, chain(*given))
        link += map(shlex.quote, shlex.split(os.environ.get("LDFLAGS", "")))
        if sys.platform == "darwin":
            link[:2] = ["-bundle", "-undefined", "dynamic_lookup"]
            architectures = shlex.split(os.environ.get("ARCHFLAGS", ""))
            flags += architectures
            link += architectures
        if os.environ.get("DNAGPT_FAST_SANITIZE") == "1":
            sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g"]
            flags += [*sanitize, "-O1", "-fno-omit-frame-pointer"]
            link += sanitize
        if nvcc:
            flags += ["-DDNAGPT_WITH_CUDA", arch_flag()]
            link += [
                f"-L{shlex.quote(str(static_cuda_runtime(nvcc)))}",
                "-lcudart_static",
                "-ldl",
                "-lrt",
                "-lpthread",
            ]
        variables = {"cxx": cxx, "cxxflags": " ".join(flags), "ldflags": " ".join(link)}
        if nvcc:
            variables |= {"nvcc": shlex.quote(str(nvcc)), "nvccflags": " ".join(self.nvcc_flags())}
        # the values are already quoted for the shell; ninja itself expands `$`
        lines = [RULES, *(f"{name} = {value.replace('$', '$$')}" for name, value in variables.items())]
        objects = []
        sources = sorted(CSRC.rglob("*.cpp")) + (sorted(CSRC.rglob("*.cu")) if nvcc else [])
        for source in sources:
            output = (work / source.relative_to(CSRC)).with_suffix(source.suffix + ".o")
            output.parent.mkdir(parents=True, exist_ok=True)
            rule = "nvcc" if source.suffix == ".cu" else "cxx"
            lines.append(f"build {escape(output)}: {rule} {escape(source)}")
            objects.append(escape(output))
        lines += [f"build {escape(target)}: link {' '.join(objects)}", f"default {escape(target)}", ""]
        return "\n".join(lines)

    def nvcc_flags(self) -> list[str]:
        archs = cuda_archs()
        codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs]
        codes.append(f"-gencode=arch=compute_{archs[-1]},code=compute_{archs[-1]}")
        return [
            "-std=c++17", "-O3", "-Xcompiler=-fPIC,-fvisibility=hidden", "-cudart=static", "--threads=1",
            f"-I{shlex.quote(str(CSRC))}", *codes,
        ]  # fmt: skip


def toolkit_of(nvcc: Path) -> Path:
    """The folder of this nvcc's CUDA toolkit, as nvcc itself reports it: nvcc on PATH may be a wrapper or a
    link."""
    command = [str(nvcc), "--dryrun", "-x", "cu", "-c", os.devnull, "-o", os.devnull]
    listing = subprocess.run(command, capture_output=True, text=True)
    for line in (listing.stdout + listing.stderr).splitlines():
        if line.startswith("#$ TOP="):
            return Path(line.removeprefix("#$ TOP=").strip()).resolve()
    return nvcc.resolve().parent.parent


def static_cuda_runtime(nvcc: Path) -> Path | None:
    """The folder of libcudart_static.a: in the toolkit, or beside it, where PyPI's nvidia-cuda-runtime
    installs it."""
    home = toolkit_of(nvcc)
    machine = platform.machine().replace("aarch64", "sbsa")
    folders = [
        home / "lib64",
        home / "lib",
        home / f"targets/{machine}-linux/lib",
        home.parent / "cuda_runtime/lib",
    ]
    return next((folder for folder in folders if (folder / "libcudart_static.a").is_file()), None)


def escape(path: Path) -> str:
    return str(path).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")


class WithoutModels(build_py):
    """build_py that leaves out dnagpt_fast/data/models, most of a wheel's size, where
    DNAGPT_FAST_MODELS=0."""

    def find_data_files(self, package: str, src_dir: str) -> list[str]:
        found = super().find_data_files(package, src_dir)
        choice = os.environ.get("DNAGPT_FAST_MODELS", "1")
        if choice not in ("0", "1"):
            raise SystemExit(f"DNAGPT_FAST_MODELS={choice!r}: wanted 0 or 1")
        return found if choice == "1" else [path for path in found if Path(path).parent.name != "models"]


setup(
    ext_modules=[Extension("dnagpt_fast._native", sources=[])],
    cmdclass={"build_ext": NinjaBuild, "build_py": WithoutModels},
)

"""Build csrc/kernels.c into netweight/_kernels.so, if this machine has a C compiler.

Everything else about the package is said in pyproject.toml. The library is loaded by ctypes, so it needs
neither Python's headers nor one build for each Python version; without it the package is complete and takes
its NumPy path, which reads and writes the same bytes.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

# that kernels.c includes
PARTS = [
    f"csrc/{name}.h"
    for name in ("decode", "decode_avx512", "crc32", "side", "section", "trellis", "lattice", "counts", "listed")
]
SUFFIX = ".dll" if sys.platform == "win32" else ".so"
# No -march: the file must run on every machine of its kind, and picks AVX2 itself when it runs.
# No contraction of a*b + c: the C and the NumPy path must round alike.
UNIX_FLAGS = ["-O3", "-std=c11", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra"]
MSVC_FLAGS = ["/O2", "/std:c11", "/fp:precise"]


class BuildKernels(build_ext):
    """A plain shared library where setuptools would build a Python module."""

    def get_ext_filename(self, fullname: str) -> str:
        """Name the file without Python's version: netweight/_kernels.so."""
        return fullname.replace(".", "/") + SUFFIX

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """Export what the source exports, no PyInit function."""
        return ext.export_symbols

    def build_extension(self, ext: Extension) -> None:
        """Compile with the flags of the compiler at hand."""
        ext.extra_compile_args = MSVC_FLAGS if self.compiler.compiler_type == "msvc" else UNIX_FLAGS
        super().build_extension(ext)


class Wheel(bdist_wheel):
    """A wheel for any Python 3: of this platform with the library in it, of any platform without."""

    def get_tag(self) -> tuple[str, str, str]:
        """Tell py3-none-PLATFORM from py3-none-any by what was built."""
        build_lib = Path(self.get_finalized_command("build_ext").build_lib)
        built = (build_lib / "netweight" / f"_kernels{SUFFIX}").exists()
        return "py3", "none", super().get_tag()[2] if built else "any"


setup(
    ext_modules=[Extension("netweight._kernels", ["csrc/kernels.c"], depends=PARTS, optional=True)],
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": Wheel},
)

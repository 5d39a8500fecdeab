"""Compiles the sparse kernels and takes config/ along in every installation; all else is in pyproject.toml."""

import importlib.util
import shutil
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

HERE = Path(__file__).absolute().parent
# By its path: importing the package would need torch, which a build environment has not.
spec = importlib.util.spec_from_file_location("build_kernels", HERE / "spfde/kernels/build.py")
kernels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(kernels)


class BuildKernels(build_ext):
    """Into the sources where the installation is editable; without a compiler a warning, and dense kernels."""

    def run(self) -> None:
        root = HERE if self.inplace or self.editable_mode else Path(self.build_lib)
        reason = kernels.build(root / "spfde/kernels/lib")["reason"]
        if reason:
            self.warn(f"no sparse kernels: {reason}; dense kernels will be used")

    def get_outputs(self) -> list[str]:
        return []

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class BuildPython(build_py):
    """Puts the contents of config/ into the package, unless the installation is editable and reads the checkout."""

    def run(self) -> None:
        if not self.editable_mode:  # what an installation of before has left behind would be installed again
            shutil.rmtree(Path(self.build_lib, "spfde"), ignore_errors=True)
        super().run()
        if not self.editable_mode:
            shutil.copytree(HERE / "config", Path(self.build_lib, "spfde/config"), dirs_exist_ok=True)


sources = sorted(str(path.relative_to(HERE)) for path in kernels.SOURCES.iterdir())
extension = Extension(
    "spfde.kernels.lib",
    sources=[name for name in sources if name.endswith(".cpp")],
    depends=[name for name in sources if name.endswith(".h")],
    optional=True,
)
setup(ext_modules=[extension], cmdclass={"build_ext": BuildKernels, "build_py": BuildPython})

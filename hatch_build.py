"""Compile the native kernels into the wheel where there is a C compiler; without one the wheel is pure Python."""

from __future__ import annotations

import importlib.util
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

KERNELS = Path("src/smolvlm/runtimes/kernels")


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg,unused-ignore]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        spec = importlib.util.spec_from_file_location("build_kernels", Path(self.root) / KERNELS / "build.py")
        assert spec is not None and spec.loader is not None, "the file is part of the source"
        kernels = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(kernels)
        try:
            library = kernels.build()
        except kernels.BuildError as error:
            self.app.display_warning(f"The native kernels were not built: {error}")
            return
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["artifacts"].append(str(KERNELS / library.name))
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"

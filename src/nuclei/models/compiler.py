"""Adapter: torch without its compiler, until something is compiled.

Reason: torch's optimizers, its counter of operations and Lightning Fabric import `torch._dynamo`, a
third of the time that a training takes to start, and ask it only whether a network is compiled. A
placeholder answers that. Anything else, such as `torch.compile`, loads the compiler in its place.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
TESTED = "2.13."
"""The version of torch whose compiler is imported lazily; others import it at once as usual."""


class _CompiledOrNot(type):
    def __instancecheck__(cls, instance: object) -> bool:
        real = sys.modules.get(COMPILER)
        return not isinstance(real, Placeholder | None) and isinstance(instance, real.OptimizedModule)


class _OptimizedModule(metaclass=_CompiledOrNot):
    """What Fabric compares a network with; nothing is compiled until the compiler is imported."""


class Placeholder(ModuleType):
    """`torch._dynamo` until something asks for more than is here."""

    OptimizedModule = _OptimizedModule

    @staticmethod
    def disable(function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        """Optimizers exclude their methods from compiled code in this way."""
        return function

    @staticmethod
    def graph_break(*_: Any) -> None:
        """Optimizers call this in every step; it means something in compiled code only."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # libraries look through all modules for these
            raise AttributeError(name)
        return getattr(load_compiler(), name)


class _SubmoduleFinder(MetaPathFinder, Loader):
    """Loads the compiler when one of its submodules is imported beside the placeholder."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(f"{COMPILER}.") or not isinstance(sys.modules.get(COMPILER), Placeholder):
            return None
        load_compiler()
        # taken out, or else the import that is under way would run the submodule a second time
        self.loaded = sys.modules.pop(name, None)
        return ModuleSpec(name, self) if self.loaded else None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        self.own_spec = self.loaded.__spec__ if self.loaded else None
        return self.loaded

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.own_spec


def load_compiler() -> ModuleType:
    """The real `torch._dynamo`, in place of the placeholder."""
    if isinstance(sys.modules.get(COMPILER), Placeholder):
        del sys.modules[COMPILER]
    return importlib.import_module(COMPILER)


def hold_compiler_back() -> None:
    """Puts the placeholder in the compiler's place; call it before the first import of it."""
    if not version("torch").startswith(TESTED):
        return
    spec = None if COMPILER in sys.modules else find_spec(COMPILER)
    if spec is None:
        return
    placeholder = Placeholder(COMPILER)
    placeholder.__file__, placeholder.__path__ = spec.origin, list(spec.submodule_search_locations or [])
    sys.modules[COMPILER] = placeholder
    sys.meta_path.insert(0, _SubmoduleFinder())

"""Lightning Fabric, imported without torch's compiler."""

from nuclei.models.compiler import hold_compiler_back

hold_compiler_back()

from lightning_fabric import Fabric as Fabric  # noqa: E402

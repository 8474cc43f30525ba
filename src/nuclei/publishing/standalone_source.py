"""Assembles the networks' code into one Python file that does not need this package.

bioimage.io rebuilds a network from one source file. It is generated from the modules, so it is
never out of date: all definitions of a module or the named ones, with comments, and the imports
that they use.
"""

import ast
import re
from pathlib import Path

SOURCES: dict[str, tuple[str, ...]] = {
    "errors": ("UserError",),
    "io/names": (),
    "config": (),
    "data/intensity": ("IMAGENET_MEAN", "IMAGENET_DEVIATION"),
    "arrays": ("CHANNELS",),
    "models/activation": (),
    "models/unet": (),
    "models/blocks": (),
    "models/unet_variants": (),
    "models/transunet": (),
    "models/same_padding": (),
    "models/depthwise": (),
    "models/padding": (),
    "models/custom": (),
    "models/efficientnet_lite": (),
    "models/encoder_unet": (),
    "models/factory": (),
    "models/choices": (),
    "models/torchvision_schemas": (),
    "models/weights_file": ("check_finite",),
    "models/encoder_weights": (),
    "models/smp": (),
    "publishing/onnx": ("level_window", "stretch_levels", "_double", "ImageToMaps"),
}
"""Modules in dependency order, and the definitions taken from each; an empty tuple takes all."""
FUNCTION = "make_network"
_END = '''

def make_network(config: dict[str, Any]) -> nn.Module:
    """The untrained network of an experiment, from RGB images (B, 3, H, W), 0..255, to maps (B, 3, H, W), 0..1."""
    experiment = Config.model_validate(config)
    return ImageToMaps(build_model(experiment.model, CHANNELS, pretrained=False), experiment)
'''


def join_sources() -> str:
    """The file's text; its function `FUNCTION` makes the network of an experiment's settings."""
    parts: list[str] = []
    imports: dict[str, str] = {}
    defined: set[str] = set()
    for module, wanted in SOURCES.items():
        text = (Path(__file__).parents[1] / f"{module}.py").read_text(encoding="utf-8")
        lines, end = text.splitlines(), 0
        for node in ast.parse(text).body:
            start, end = end, node.end_lineno or end
            if isinstance(node, ast.Import | ast.ImportFrom):
                imports |= _list_imports(node)
                continue
            names = _list_names(node)
            if wanted and not names & set(wanted):
                continue
            # Two modules may define the same name, one file may not.
            assert not names & defined, f"{module}: {names & defined} is defined twice"
            defined |= names
            parts.append("\n".join(lines[start:end]).strip("\n"))
    body = re.sub(r"^ +from nuclei\b.*\n", "", "\n\n\n".join(parts) + "\n" + _END, flags=re.MULTILINE)
    used = {node.id for node in ast.walk(ast.parse(body)) if isinstance(node, ast.Name)}
    kept = sorted({statement for name, statement in imports.items() if name in used})
    return "\n".join(kept) + "\n\n" + body


def _list_imports(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """An import statement for each imported name, without those of this package."""
    if isinstance(node, ast.Import):
        return {
            (entry.asname or entry.name).split(".")[0]: ast.unparse(ast.Import([entry])) for entry in node.names
        }
    if (node.module or "").split(".")[0] == "nuclei":
        return {}
    return {
        entry.asname or entry.name: ast.unparse(ast.ImportFrom(node.module, [entry], 0)) for entry in node.names
    }


def _list_names(node: ast.stmt) -> set[str]:
    """Names that a top-level statement of a module defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = (
        node.targets
        if isinstance(node, ast.Assign)
        else [node.target]
        if isinstance(node, ast.AnnAssign)
        else []
    )
    return {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}

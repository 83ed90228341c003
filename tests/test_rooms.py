"""The rooms of the package: each imports only rooms above it."""

import ast
from pathlib import Path

import finetune

ROOMS = [
    "errors",
    "progress",
    "recipe",
    "run",
    "significance",
    "data",
    "text",
    "doctor",
    "models",
    "losses",
    "tasks",
    "evaluation",
    "predict",
    "attribution",
    "attention_maps",
    "predict_file",
    "generate",
    "samples",
    "probe",
    "training",
    "reporting",
    "hub",
    "export",
    "quickstart",
    "cell",
    "curve",
    "ablation",
    "inspection",
    "control",
    "novelty",
    "gradients",
    "demo",
    "cli",
    "__main__",
]
PACKAGE = Path(finetune.__file__).parent


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    modules: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            modules += [f"finetune.{alias.name}" for alias in node.names] if module == "finetune" else [module]
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    return {module.split(".")[1] for module in modules if module.startswith("finetune.")} & set(ROOMS)


def test_each_room_imports_only_rooms_above_it():
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py" or path.parent != PACKAGE]
    assert len(files) > 25
    wrong = []
    for path in files:
        own = room_of(path)
        assert own in ROOMS, f"{path} is in no room: give it a place in the order"
        for imported in imported_rooms(path):
            if imported != own and ROOMS.index(imported) > ROOMS.index(own):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {imported}")
    assert not wrong

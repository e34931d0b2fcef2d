"""Write docs/recipes.md, the published numbers beside ours; with --print only show it. Needs Python 3.11."""

import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).parents[1]
HEAD = """# Recipes as published

What the recipes in `configs/` follow, where it is published, and what ours say; of other settings nothing is published.
`python tools/recipes_table.py` makes the table of `tests/detection/published/*.toml`, with which tests compare configs,
and optimizers that they build: which parameters decay, and at which rates they learn. Files are those of the
repositories in 2024, of Swin3D in 2023, of Pointcept in 2026. [How to train by a config](training.md).

| recipe | configs, `*` for every one of such a name |
|---|---|
"""
ROWS = "\n| recipe | what | published | source | ours | why |\n|---|---|---|---|---|---|\n"


def page() -> str:
    """The whole page."""
    lines, configs = [], []
    for file in ("imagenet", "coco", "ade20k", "clouds"):
        for recipe in tomllib.loads((ROOT / f"tests/detection/published/{file}.toml").read_text()).values():
            configs.append(f"| {recipe['title']} | {' '.join(f'`{name}`' for name in recipe['configs'])} |")
            for what, published, where, *others in recipe["rows"]:
                ours, why = others or (published, "")
                cells = [recipe["title"], what, published, f"{recipe['source']}: {where}", ours, why]
                lines.append(f"| {' | '.join(str(cell).strip('[]') for cell in cells)} |".replace("  ", " "))
    return HEAD + "\n".join(configs) + "\n" + ROWS + "\n".join(lines) + "\n"


if __name__ == "__main__":
    if "--print" in sys.argv[1:]:
        sys.stdout.write(page())
    else:
        (ROOT / "docs/recipes.md").write_text(page())

"""`python -m training COMMAND`."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from training.errors import TrainingError
from training.recipe import bundled_recipes, read_recipe

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.callback()
def main() -> None:
    """Train image classifiers offline and publish them as versions that the service loads."""


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m training fit fruit_cnn --data fruits-360",
            "python -m training fit my_recipe.toml --data pictures --models /srv/models --epochs 10 --seed 7",
        )
    )
)
def fit(
    recipe: Annotated[
        str, typer.Argument(help=f"A TOML file, or a bundled recipe: {', '.join(bundled_recipes())}.", metavar="RECIPE")
    ],
    data: Annotated[
        Path, typer.Option(help="Folder of class folders, or of Training and Test with class folders in each.")
    ],
    models: Annotated[Path, typer.Option(help="Where to publish <name>/<version>/.")] = Path("models"),
    epochs: Annotated[int | None, typer.Option(min=1, max=10_000, help="Instead of the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Instead of the recipe's.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Instead of the next free number.")] = None,
) -> None:
    """Train a network on a folder of pictures and publish it as the next version of its model."""
    console = Console()
    try:
        chosen = read_recipe(recipe).with_fitting(epochs=epochs, seed=seed)
        _require_libraries()
        # Imported late: TensorFlow takes seconds, which a wrong recipe need not cost.
        from training.progress import ConsoleProgress

        with ConsoleProgress(console, chosen) as progress:
            from training.fit import fit as run

            published = run(chosen, data, models, version=version, progress=progress)
    except TrainingError as error:
        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        raise typer.Exit(1) from None
    progress.published(published)


def _require_libraries() -> None:
    if missing := [name for name in ("tensorflow", "sklearn") if find_spec(name) is None]:
        raise TrainingError(
            f"{' and '.join(missing)} not installed: pip install 'sichtbar[cpu,train]', or [gpu,train] on a machine "
            "with an NVIDIA GPU (from a clone: pip install -e '.[cpu,train]')"
        )


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app(prog_name="python -m training")

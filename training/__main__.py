"""`python -m training COMMAND`."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from training.errors import TrainingError
from training.recipe import bundled_recipes, read_recipe

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")


@app.callback()
def main() -> None:
    """Train image classifiers offline and publish them as versions that the service loads."""
    # As Ctrl-C does: what is half done is tidied up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


# Of the extras, by the names that Python imports.
LIBRARIES = ("tensorflow", "sklearn", "scipy", "matplotlib", "jinja2", "tensorboard", "h5py")

# Options that several commands share.
ModelArgument = Annotated[
    Path, typer.Argument(help="A published version, models/<name>/<version>.", metavar="MODEL_DIR")
]
RecipeArgument = Annotated[
    str, typer.Argument(help=f"A TOML file, or a bundled recipe: {', '.join(bundled_recipes())}.", metavar="RECIPE")
]
DataOption = Annotated[
    Path, typer.Option(help="Folder of class folders, or of Training and Test with class folders in each.")
]
WeightsOption = Annotated[
    Path | None, typer.Option(help="File with the backbone's first weights, instead of downloading them.")
]
BackgroundsOption = Annotated[
    Path | None, typer.Option(help="Folder of photographs for a recipe that sets objects before other backgrounds.")
]
PrecisionOption = Annotated[
    Literal["auto", "float32", "mixed_float16", "mixed_bfloat16"],
    typer.Option(help="What layers compute in while training; auto: mixed_float16 on a GPU, else float32."),
]
RunsOption = Annotated[
    Path, typer.Option(help="Where checkpoints, TensorBoard's logs and what is costly to compute are kept.")
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on after the last finished epoch of this very run, where there is one.")
]
EpochsOption = Annotated[int | None, typer.Option(min=1, max=10_000, help="In each stage, instead of the recipe's.")]
SeedOption = Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Instead of the recipe's.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object, and nothing else.")]


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m training fit fruit_cnn --data fruits-360",
            "python -m training fit my_recipe.toml --data pictures --models /srv/models --epochs 10 --seed 7",
            "python -m training fit fruit_vgg16_finetune --data fruits-360 --weights vgg16_notop.weights.h5 --resume",
            "tensorboard --logdir runs/fruit_cnn   (while it trains, or afterwards)",
        )
    )
)
def fit(
    recipe: RecipeArgument,
    data: DataOption,
    models: Annotated[Path, typer.Option(help="Where to publish <name>/<version>/.")] = Path("models"),
    weights: WeightsOption = None,
    backgrounds: BackgroundsOption = None,
    precision: PrecisionOption = "auto",
    runs: RunsOption = Path("runs"),
    resume: ResumeOption = False,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    version: Annotated[int | None, typer.Option(min=1, help="Instead of the next free number.")] = None,
    report_pictures: Annotated[
        bool,
        typer.Option(help="Show the worst mistakes' pictures in the report, which is published with the version."),
    ] = True,
    maximise: Annotated[
        bool, typer.Option(help="Show in the report what its filters look for: up to three minutes for a VGG16.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Train a network on a folder of pictures and publish it as the next version of its model."""
    with _errors_in_one_line():
        chosen = read_recipe(recipe).with_fitting(epochs=epochs, seed=seed)
        _require_libraries()
        # Imported late: TensorFlow takes seconds, which a wrong recipe need not cost.
        from training.progress import ConsoleProgress

        with ConsoleProgress(Console(stderr=as_json), chosen) as progress:
            from training.fit import fit as run

            published = run(
                chosen,
                data,
                models,
                runs=runs,
                weights=weights,
                backgrounds=backgrounds,
                precision=precision,
                resume=resume,
                version=version,
                report_pictures=report_pictures,
                filters=maximise,
                progress=progress,
            )
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "folder": str(published.folder),
                    "seconds": published.seconds,
                    "manifest": published.manifest.model_dump(mode="json"),
                }
            )
        )
    else:
        progress.published(published)


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m training evaluate models/fruit_cnn/1 --data fruits-360",
            "python -m training evaluate models/fruit_cnn/1 --data my_photos --negatives holidays --out report",
            "python -m training evaluate models/fruit_cnn/1 --data my_photos --json > figures.json",
        )
    )
)
def evaluate(
    model_dir: ModelArgument,
    data: Annotated[
        Path, typer.Option(help="Folder of class folders, named as the version's labels; or of Test with them in it.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where to write the report.", show_default="report-<name>-<version>")
    ] = None,
    negatives: Annotated[Path | None, typer.Option(help="Folder of pictures of no class, at any depth.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a published version on a folder of pictures and write a report."""
    with _errors_in_one_line():
        _require_libraries()
        from training.bars import Bars
        from training.pages import make_folder
        from training.report import PAGE, write_report
        from training.tables import print_report
        from training.trial import evaluate as run
        from training.versions import load_version

        with Bars(Console(stderr=True)) as bars:
            bars.begin("loading the version", None)
            version = load_version(model_dir)
            folder = out or Path(f"report-{version.manifest.name}-{version.manifest.version}")
            # What cannot be written must not be found out after the work.
            make_folder(folder)
            findings = run(version, data, bars, negatives)
            bars.begin("writing the report", None)
            report = write_report(folder, findings)
    if as_json:
        typer.echo(report.model_dump_json())
    else:
        print_report(Console(), report)
        _tell_page(folder / PAGE)


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m training compare models/fruit_cnn/1 models/fruit_cnn/2 --data fruits-360",
            "python -m training compare models/fruit_cnn/1 models/fruit_vgg16/1 --data my_photos --json",
        )
    )
)
def compare(
    first: Annotated[Path, typer.Argument(help="A published version, models/<name>/<version>.", metavar="MODEL_A")],
    second: Annotated[Path, typer.Argument(help="Another, of the same model or not.", metavar="MODEL_B")],
    data: Annotated[
        Path, typer.Option(help="Folder of class folders, named as the versions' labels; or of Test with them in it.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where to write the page.", show_default="comparison-<name>-<version>-...")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show two published versions the same pictures and tell which is better, and how surely."""
    with _errors_in_one_line():
        _require_libraries()
        from training.bars import Bars
        from training.compare import PAGE
        from training.compare import compare as run
        from training.tables import print_comparison
        from training.versions import load_version

        with Bars(Console(stderr=True)) as bars:
            bars.begin("loading the versions", None)
            versions = load_version(first), load_version(second)
            names = [f"{version.manifest.name}-{version.manifest.version}" for version in versions]
            folder = out or Path(f"comparison-{'-'.join(names)}")
            comparison = run(*versions, data, folder, bars)
    if as_json:
        typer.echo(comparison.model_dump_json())
    else:
        print_comparison(Console(), comparison)
        _tell_page(folder / PAGE)


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m training crossval fruit_cnn --data fruits-360",
            "python -m training crossval my_recipe.toml --data pictures --folds 10 --resume",
        )
    )
)
def crossval(
    recipe: RecipeArgument,
    data: DataOption,
    folds: Annotated[int, typer.Option(min=2, max=100, help="Parts, each of which is held out once.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Where to write the page.", show_default="crossval-<recipe>")] = None,
    weights: WeightsOption = None,
    backgrounds: BackgroundsOption = None,
    precision: PrecisionOption = "auto",
    runs: RunsOption = Path("runs"),
    resume: ResumeOption = False,
    epochs: EpochsOption = None,
    seed: SeedOption = None,
    as_json: JsonOption = False,
) -> None:
    """Estimate what a recipe reaches on films it never saw, beside what a naive random split would claim."""
    with _errors_in_one_line():
        chosen = read_recipe(recipe).with_fitting(epochs=epochs, seed=seed)
        _require_libraries()
        from training.progress import ConsoleProgress

        with ConsoleProgress(Console(stderr=True), chosen) as progress:
            from training.crossval import PAGE, cross_validate
            from training.tables import print_cross_validation

            folder = out or Path(f"crossval-{chosen.name}")
            result = cross_validate(
                chosen,
                data,
                folder,
                folds=folds,
                runs=runs,
                weights=weights,
                backgrounds=backgrounds,
                precision=precision,
                resume=resume,
                progress=progress,
            )
    if as_json:
        typer.echo(result.model_dump_json())
    else:
        print_cross_validation(Console(), result)
        _tell_page(folder / PAGE)


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m training explore pictures",
            "python -m training explore pictures --out reports/pictures --seed 7",
            "python -m training explore pictures --json | jq .warnings",
        )
    )
)
def explore(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of class folders, or of Training and Test with class folders.", metavar="DIR"),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write explore.html and explore.json.", show_default="./explore-<folder name>"),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Chooses the samples.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Understand a folder of pictures before training: classes, sizes, duplicates, what is broken."""
    with _errors_in_one_line():
        _require_libraries("jinja2", "matplotlib")
        from training.bars import Bars
        from training.exploration_report import show_exploration, write_exploration
        from training.explore import explore as run

        with Bars(Console(stderr=True)) as bars:
            explored = run(
                folder,
                seed=seed,
                on_listed=lambda pictures: bars.begin("reading pictures", pictures),
                on_picture=bars.advance,
            )
        page = write_exploration(explored, folder, out or Path(f"explore-{folder.resolve().name}"))
    if as_json:
        typer.echo(explored.facts.model_dump_json())
    else:
        show_exploration(Console(), explored.facts)
        _tell_page(page)


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m training maximise models/fruit_vgg16/1",
            "python -m training maximise models/fruit_vgg16/1 --layers block4_conv3,logits --channels 32",
            "python -m training maximise models/resnet50/1 --channels 4 --steps 32 --publish",
        )
    )
)
def maximise(
    model_dir: ModelArgument,
    layers: Annotated[
        str | None,
        typer.Option(
            help="Names with commas between.", show_default="five convolutions from first to last, and classes"
        ),
    ] = None,
    channels: Annotated[int, typer.Option(min=1, help="A layer, spread evenly.")] = 16,
    steps: Annotated[int, typer.Option(min=1, max=100_000, help="Of gradient ascent.")] = 64,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of the noise that pictures begin as.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the page.", show_default="filters-<name>-<version>")
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Show them in the version's own report instead, and renew its manifest.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a version's filters look for: pictures made from noise that their channels answer to most."""
    if publish and out:
        raise typer.BadParameter("expected --out or --publish, found both")
    with _errors_in_one_line():
        _require_libraries()
        from training.bars import Bars

        with Bars(Console(stderr=True)) as bars:
            bars.begin("loading the version", None)
            from training.filter_report import PAGE, publish_filters, write_filters
            from training.maximise import choose
            from training.maximise import maximise as run
            from training.pages import make_folder
            from training.versions import load_version

            version = load_version(model_dir)
            manifest = version.manifest
            names = None if layers is None else [name.strip() for name in layers.split(",")]
            chosen = choose(manifest.layers, manifest.labels, names=names, channels=channels)
            folder = (
                version.folder / "report" if publish else out or Path(f"filters-{manifest.name}-{manifest.version}")
            )
            if not publish:
                make_folder(folder)
            found = run(
                version.folder,
                chosen,
                steps=steps,
                seed=seed,
                begin=lambda layer, steps: bars.begin(f"maximising {layer}", steps, of="steps"),
                done=bars.advance,
            )
            bars.begin("writing the page", None)
            if publish:
                publish_filters(version, found, steps=steps, seed=seed)
            else:
                write_filters(folder, version.name, found, steps=steps, seed=seed)
    if as_json:
        layer_list = [
            {
                "layer": one.chosen.layer,
                "channels": one.chosen.channels,
                "labels": one.chosen.labels,
                "before": one.before.tolist(),
                "after": one.after.tolist(),
            }
            for one in found
        ]
        typer.echo(json.dumps({"page": str(folder / PAGE), "steps": steps, "seed": seed, "layers": layer_list}))
    else:
        _tell_page(folder / PAGE)


class Collection(str, Enum):
    """What can be downloaded."""

    FRUITS_360 = "fruits-360"


@app.command(
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m training download fruits-360",
            "python -m training download fruits-360 --to pictures/fruits --any-release",
            "python -m training download fruits-360 --release 28 --json",
        )
    )
)
def download(
    collection: Annotated[Collection, typer.Argument(help="The workshop's 16 fruits, from Kaggle.", metavar="NAME")],
    to: Annotated[
        Path | None, typer.Option(help="Folder to make; it must not be there yet.", show_default="./<NAME>")
    ] = None,
    release: Annotated[int | None, typer.Option(min=1, help="Kaggle's number, instead of the newest.")] = None,
    any_release: Annotated[
        bool, typer.Option("--any-release", help="Keep also pictures that the bundled models were not trained on.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Download pictures to train on, checked against the digest of those that the bundled models saw."""
    with _errors_in_one_line():
        from training.download import download as run

        made = run(to or Path(collection.value), release=release, any_release=any_release)
    if as_json:
        typer.echo(made.model_dump_json())
        return
    console = Console()
    for difference in made.differences:
        console.print(f"[yellow]differs:[/] {escape(difference)}", highlight=False, soft_wrap=True)
    counts = ", ".join(f"{split} {count}" for split, count in made.pictures.items())
    console.print(f"made [bold]{escape(made.folder)}[/]: {counts}", highlight=False, soft_wrap=True)


@app.command(
    "publish-pretrained",
    epilog="\n\n".join(
        (
            "[bold]Examples[/bold]",
            "python -m training publish-pretrained resnet50",
            "python -m training publish-pretrained mobilenet --weights mobilenet.weights.h5 --labels class_index.json",
            "python -m training publish-pretrained xception --random --models /tmp/models",
        )
    ),
)
def publish_pretrained(
    architecture: Annotated[
        str,
        typer.Argument(
            help="vgg16, resnet50, xception, inception_v3, mobilenet, mobilenet_v3_small, mobilenet_v3_large or "
            "efficientnet_b0.",
            metavar="ARCH",
        ),
    ],
    weights: Annotated[
        Path | None, typer.Option(help="File of Keras' ImageNet weights, instead of downloading them.")
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Random weights: it knows nothing, and needs no download.")
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option(help="Keras' imagenet_class_index.json; unset, the one beside --weights, else it is downloaded."),
    ] = None,
    models: Annotated[Path, typer.Option(help="Where to publish <name>/<version>/.")] = Path("models"),
    name: Annotated[str | None, typer.Option(help="The model's name; unset, ARCH.")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Instead of the next free number.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of class folders, named by label or index, to measure it on.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Publish a network that Keras has trained on ImageNet's 1000 classes as a version of a model."""
    if random and weights:
        raise typer.BadParameter("expected --random or --weights, found both")
    with _errors_in_one_line():
        _require_libraries()
        from training.bars import Bars

        with Bars(Console(stderr=True)) as bars:
            bars.begin("loading TensorFlow", None)
            from training.pretrained import publish_pretrained as run

            folder, manifest = run(
                architecture,
                models,
                bars,
                weights=weights or ("random" if random else "imagenet"),
                labels=labels,
                name=name,
                version=version,
                data=data,
            )
    if random:
        Console(stderr=True).print("[yellow]random weights: this version knows nothing[/]", soft_wrap=True)
    if as_json:
        summary = {
            "folder": str(folder),
            "name": manifest.name,
            "version": manifest.version,
            "parameters": manifest.parameters,
            "layers": len(manifest.layers),
        }
        typer.echo(json.dumps(summary))
        return
    if metrics := manifest.metrics:
        Console().print(
            f"accuracy {metrics.accuracy:.2%}, top 3 {metrics.top3_accuracy:.2%} of {metrics.images} pictures",
            soft_wrap=True,
        )
    Console().print(f"published [bold]{escape(str(folder))}[/]", highlight=False, soft_wrap=True)


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    try:
        yield
    except TrainingError as error:
        Console(stderr=True).print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)
        raise typer.Exit(1) from None


def _tell_page(page: Path) -> None:
    Console().print(f"wrote [bold]{escape(str(page))}[/]", highlight=False, soft_wrap=True)


def _require_libraries(*names: str) -> None:
    if missing := [name for name in names or LIBRARIES if find_spec(name) is None]:
        raise TrainingError(
            f"{' and '.join(missing)} not installed: pip install -c constraints.txt -e '.[cpu,train]', "
            "or '.[gpu,train]' on a machine with an NVIDIA GPU"
        )


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    app(prog_name="python -m training")

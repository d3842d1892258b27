"""Reports and comparisons in, tables on a terminal out."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from training.compare import Comparison
from training.crossval import CrossValidation
from training.report import Report


def print_report(console: Console, report: Report) -> None:
    """Figures by class, then those of all pictures."""
    metrics = report.metrics
    table = Table(title=escape(f"{report.title} on {metrics.images:,} pictures"))
    table.add_column("class")
    for column in ("precision", "recall", "F1", "pictures"):
        table.add_column(column, justify="right")
    for figures in metrics.classes:
        shares = (figures.precision, figures.recall, figures.f1)
        table.add_row(escape(figures.label), *(f"{share:.4f}" for share in shares), f"{figures.support:,}")
    console.print(table)
    line = (
        f"accuracy {metrics.accuracy:.2%}, top 3 {metrics.top3_accuracy:.2%}, loss {metrics.loss:.4f}, "
        f"calibration error {metrics.calibration_error:.2%}"
    )
    if metrics.recognition_auroc is not None:
        line += f", recognition AUROC {metrics.recognition_auroc:.4f}"
    console.print(line, highlight=False, soft_wrap=True)


def print_comparison(console: Console, comparison: Comparison) -> None:
    """Recall by class of both, then what they reach and cost, then how sure the difference is."""
    first, second = comparison.first, comparison.second
    table = Table(title=escape(f"recall of {first.name} and {second.name} on {comparison.pictures:,} pictures"))
    table.add_column("")
    for column in (first.name, second.name, "difference", "pictures"):
        table.add_column(escape(column), justify="right")
    for one in comparison.classes:
        change = f"{100 * (one.second - one.first):+.2f}"
        table.add_row(escape(one.label), f"{one.first:.2%}", f"{one.second:.2%}", change, f"{one.pictures:,}")
    table.add_section()
    table.add_row(
        "accuracy",
        f"{first.accuracy:.2%}",
        f"{second.accuracy:.2%}",
        f"{100 * comparison.difference.value:+.2f}",
        f"{comparison.pictures:,}",
    )
    table.add_row("parameters", f"{first.parameters:,}", f"{second.parameters:,}")
    table.add_row("MB on disk", f"{first.bytes / 1e6:.2f}", f"{second.bytes / 1e6:.2f}")
    for size, milliseconds in first.milliseconds.items():
        table.add_row(f"ms a picture, {size} at once", f"{milliseconds:.3f}", f"{second.milliseconds[size]:.3f}")
    console.print(table)
    difference, test = comparison.difference, comparison.mcnemar
    console.print(
        f"difference {100 * difference.value:+.2f} points, 95 % interval {100 * difference.low:+.2f} to "
        f"{100 * difference.high:+.2f}; {test.only_first} right by {first.name} alone, {test.only_second} by "
        f"{second.name} alone: McNemar's p = {test.p_value:.3g} ({test.test})",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def print_cross_validation(console: Console, result: CrossValidation) -> None:
    """Accuracy by fold and mean, films kept together beside pictures at random."""
    table = Table(title=escape(f"{result.recipe}: {result.pictures:,} pictures of {result.films:,} films"))
    table.add_column("fold")
    for column in ("films kept together", "pictures at random (naive)"):
        table.add_column(column, justify="right")
    for grouped, naive in zip(result.grouped.folds, result.naive.folds, strict=True):
        table.add_row(str(grouped.number), f"{grouped.metrics.accuracy:.2%}", f"{naive.metrics.accuracy:.2%}")
    table.add_section()
    estimates = (result.grouped, result.naive)
    table.add_row("mean ± sd", *(f"{one.mean:.2%} ± {one.standard_deviation:.2%}" for one in estimates))
    console.print(table)

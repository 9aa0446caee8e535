"""The command line: ``polyhead COMMAND``.

Commands import what they need when they run, so that ``--help`` answers at once and ``evaluate`` needs no PyTorch.
"""

import logging
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from polyhead.errors import PolyheadError, UsageError
from polyhead.imaging.recipe import Aspect, Colour, Equalize, Frames, Intensity, Preset, Recipe, make_recipe
from polyhead.printable import printable

__all__ = ["app", "main"]

app = typer.Typer(
    name="polyhead",
    help="Train one backbone together when every hospital has labelled different findings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
Policy = Literal["blank", "negative", "positive"]
RecipeOption = Annotated[Preset | None, typer.Option(help="`standard`, the default, or `paper`, the authors' way.")]
AspectOption = Annotated[Aspect | None, typer.Option(help="Add black, cut, or squash; by default the recipe's.")]
IntensityOption = Annotated[Intensity | None, typer.Option(help="To 8 bits; by default the recipe's.")]
EqualizeOption = Annotated[Equalize | None, typer.Option(help="Equalise grey levels; by default the recipe's.")]
FramesOption = Annotated[Frames | None, typer.Option(help="Of a file with several; by default the recipe's.")]
ColourOption = Annotated[Colour | None, typer.Option(help="Of a colour file; by default the recipe's.")]
console = Console(emoji=False)
errors = Console(stderr=True, emoji=False)


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; goes with any command.")
    ] = False,
) -> None:
    # Read by main(), which sees the error; declared here for --help.
    """Train one backbone together when every hospital has labelled different findings."""


@app.command("demo", epilog="Example: `polyhead demo --out demo`")
def _demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("demo"),
) -> None:
    """Draw three synthetic hospitals with different findings, train on them, and write the report."""
    from polyhead.demo import run_demo

    with _resumable():
        run_demo(out, console)


@app.command("run", epilog="Example: `polyhead run examples/three_countries.toml --out runs/three_countries`")
def _run(
    study: Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY.toml")],
    out: Annotated[Path, typer.Option(help="The run directory; given again, the run goes on where it stopped.")],
) -> None:
    """Train every method with every seed of a study, then evaluate and write the report."""
    from polyhead.study import run_study

    with _resumable():
        run_study(study, out, console)


@app.command("import", epilog="Example: `polyhead import table exports --map columns.toml --out our-hospital`")
def _import(
    adapter: Annotated[str, typer.Argument(help="table, chexpert, mimic-cxr, chestxray14, vindr-cxr or padchest.")],
    root: Annotated[Path, typer.Argument(help="The data set's folder; nothing in it is changed.")],
    out: Annotated[Path, typer.Option(help="The site's folder, for manifest.csv and site.toml.")],
    map_file: Annotated[Path | None, typer.Option("--map", help="table: what its columns mean, as TOML.")] = None,
    uncertain: Annotated[Policy, typer.Option(help="What a label becomes that the source calls uncertain.")] = "blank",
    not_mentioned: Annotated[Policy, typer.Option(help="What a finding becomes on which it is silent.")] = "blank",
    views: Annotated[Literal["frontal", "all"], typer.Option(help="Which views to keep.")] = "frontal",
    seed: Annotated[int, typer.Option(help="Deals patients to splits where there are none.")] = 0,
    validation: Annotated[
        float, typer.Option(help="Its share of training, if there is none.", min=0.01, max=0.5)
    ] = 0.1,
    min_positives: Annotated[int, typer.Option(help="padchest: training images that a finding needs.", min=1)] = 50,
    labels: Annotated[Literal["all", "physician"], typer.Option(help="padchest: whose labels.")] = "all",
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Leave out what is not on disk.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a manifest that is there.")] = False,
) -> None:
    """Make a site of a data set's own files: a manifest and a note of the choices. Images stay where they are."""
    from polyhead.adapters.imported import Options
    from polyhead.adapters.importing import import_site, print_import
    from polyhead.progress import progress_bar

    usual = Options(uncertain, not_mentioned, views, seed, validation)
    options = replace(usual, min_positives=min_positives, labels=labels, allow_missing=allow_missing)
    with progress_bar(console) as progress:
        task = progress.add_task("Importing", total=None)
        manifest, imported = import_site(
            *(adapter, root, out, options, map_file),
            force=force,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    print_import(manifest, imported, console)


@app.command("prepare", epilog="Example: `polyhead prepare data/our-hospital --size 224 --aspect crop --frames first`")
def _prepare(
    site: Annotated[Path, typer.Argument(help="A site's folder, with manifest.csv.")],
    size: Annotated[int, typer.Option(help="Side of the square images in pixels.", min=32, max=2048)] = 224,
    skip: Annotated[float, typer.Option(help="Share of unreadable images to leave out at most.", min=0, max=1)] = 0.01,
    cache: Annotated[Path | None, typer.Option(help="Folder of the cache; by default the site's own.")] = None,
    recipe: RecipeOption = None,
    aspect: AspectOption = None,
    intensity: IntensityOption = None,
    equalize: EqualizeOption = None,
    frames: FramesOption = None,
    colour: ColourOption = None,
) -> None:
    """Read a site's images once into a pixel cache; interrupted, it goes on where it stopped.

    `run` finds this cache if the study's [pixels] and image_size say the same.
    """
    from polyhead.imaging.prepare import prepare
    from polyhead.manifest import read_manifest
    from polyhead.progress import progress_bar

    manifest = read_manifest(site / "manifest.csv")
    changes = {"aspect": aspect, "intensity": intensity, "equalize": equalize, "frames": frames, "colour": colour}
    chosen = make_recipe(recipe or "standard", changes)
    with _resumable(), progress_bar(console) as progress:
        task = progress.add_task("Reading images", total=None)
        pixels = prepare(
            manifest,
            cache or site,
            size,
            chosen,
            bad_budget=skip,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    for image, reason in pixels.bad.items():
        console.print(printable(f"left out: {image}: {reason}"), markup=False)
    _print_policies(chosen, pixels.notes.values())
    console.print(f"{manifest.frame.height - len(pixels.bad)} images of {size} x {size} are ready.")


def _print_policies(recipe: Recipe, notes: Iterable[tuple[str, ...]]) -> None:
    """Say what was chosen, and how many images each policy concerned."""
    table = Table("Policy", "Choice or images", title="How images were read", title_justify="left")
    for policy, choice in asdict(recipe).items():
        table.add_row(policy, choice)
    table.add_section()
    for note, count in Counter(note for some in notes for note in some).most_common():
        table.add_row(Text(note), f"{count:,} images")
    console.print(table)


@app.command("check", epilog="Example: `polyhead check data/our-hospital --cache cache --share summary.json`")
def _check(
    source: Annotated[list[Path], typer.Argument(help="Sites' folders, or one study file (.toml).")],
    size: Annotated[
        int | None, typer.Option(help="Side of the square images; by default 224.", min=32, max=2048)
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of the caches; by default each site's own.")] = None,
    skip: Annotated[
        float | None, typer.Option(help="Largest share of unreadable images; by default 0.01.", min=0, max=1)
    ] = None,
    recipe: RecipeOption = None,
    aspect: AspectOption = None,
    intensity: IntensityOption = None,
    equalize: EqualizeOption = None,
    frames: FramesOption = None,
    colour: ColourOption = None,
    images: Annotated[
        bool, typer.Option("--images/--no-images", help="Read each image; without, tables only, and no step is timed.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for a machine.")] = False,
    share: Annotated[
        Path | None, typer.Option(help="Also write a summary without patients and small counts to this file.")
    ] = None,
) -> None:
    """Check tables, images, labels, time and disk before anything leaves; exit code 1 if anything is an error.

    A study says itself how images are read: --size, --cache, --skip and --recipe to --colour are for sites.
    """
    from polyhead.check.command import check_source
    from polyhead.check.images import Reading
    from polyhead.check.record import to_json
    from polyhead.check.share import check_writable, write_share
    from polyhead.check.show import show
    from polyhead.progress import progress_bar

    if share:
        check_writable(share)
    changes = {"aspect": aspect, "intensity": intensity, "equalize": equalize, "frames": frames, "colour": colour}
    options = {"size": size, "cache": cache, "skip": skip, "recipe": recipe, "share": share, **changes}
    with _resumable(), progress_bar(errors) as progress:
        tasks: dict[str, TaskID] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total, visible=done < total)

        chosen, budget = make_recipe(recipe or "standard", changes), 0.01 if skip is None else skip
        reading = Reading(size or 224, chosen, cache, budget, images, told)
        result = check_source(source, reading, [name for name, value in options.items() if value is not None])
    if json:
        typer.echo(to_json(result))
    else:
        show(result, console)
    if share:
        write_share(result, share)
    raise typer.Exit(0 if result.sound else 1)


@app.command("evaluate", epilog="Example: `polyhead evaluate runs/three_countries --replicates 2000`")
def _evaluate(
    source: Annotated[list[Path], typer.Argument(help="A run directory, or files of predictions, one a method.")],
    replicates: Annotated[
        int | None, typer.Option(help="Bootstrap replicates; by default the study's, or 1000.", min=100, max=100_000)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the tables of prediction files; by default ./evaluation.")
    ] = None,
) -> None:
    """Compute metrics, intervals and paired comparisons from predictions; PyTorch is not needed."""
    from polyhead.config import load_study
    from polyhead.evaluation import check_complete, evaluate_files, evaluate_run
    from polyhead.summary import print_summary

    if len(source) == 1 and source[0].is_dir():
        if out is not None:
            raise UsageError("--out goes with files of predictions; the tables of a run stay in its directory.")
        study = load_study(source[0] / "study.toml")
        check_complete(source[0], study.methods, study.seeds, [site.name for site in study.site])
        evaluate_run(source[0], replicates or study.evaluation.replicates, study.methods)
        print_summary(source[0], console)
    elif any(path.is_dir() for path in source):
        raise UsageError("give one run directory, or files of predictions, not both.")
    else:
        folder = out or Path("evaluation")
        if any(path.resolve().parent == folder.resolve() for path in source):
            raise UsageError(f"--out {folder}: the predictions lie there, and results must not mix with them.")
        evaluate_files(source, folder, replicates or 1000)
        print_summary(folder, console)


@app.command("report", epilog="Example: `polyhead report runs/three_countries`")
def _report(run: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Write a run's report again."""
    from polyhead.report import write_report

    console.print(f"Report: {write_report(run)}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _resumable() -> Iterator[None]:
    """Say after Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        errors.print("interrupted; the same command goes on where it stopped.")
        raise typer.Exit(130) from None


def main() -> None:
    """Run a command; a user's mistake becomes a message and an exit code, never a traceback.

    Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    handler = RichHandler(console=errors, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.captureWarnings(True)
    try:
        app(arguments)
    except Exception as problem:
        if "--debug" in sys.argv:
            raise
        errors.print(f"[bold red]error:[/] {escape(printable(_explain(problem)))}", soft_wrap=True, highlight=False)
        sys.exit(problem.exit_code if isinstance(problem, PolyheadError) else 1)


def _explain(problem: Exception) -> str:
    if isinstance(problem, PolyheadError):
        return str(problem)
    if isinstance(problem, OSError) and problem.strerror:
        return f"{problem.filename or 'the disk'}: {problem.strerror}. What was finished before is kept."
    kind = type(problem).__name__
    return f"{kind}: {problem}. This is a fault of Polyhead, not yours; --debug shows where. Please report it."

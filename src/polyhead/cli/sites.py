"""Commands that take a hospital's data: import, prepare, check."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from polyhead.cli.app import console, errors, resumable
from polyhead.imaging.recipe import Aspect, Colour, Equalize, Frames, Intensity, Preset, Recipe, make_recipe
from polyhead.printable import printable

__all__ = ["check", "import_", "prepare"]

Policy = Literal["blank", "negative", "positive"]
RecipeOption = Annotated[Preset | None, typer.Option(help="`standard`, the default, or `paper`, the authors' way.")]
AspectOption = Annotated[Aspect | None, typer.Option(help="Add black, cut, or squash; by default the recipe's.")]
IntensityOption = Annotated[Intensity | None, typer.Option(help="To 8 bits; by default the recipe's.")]
EqualizeOption = Annotated[Equalize | None, typer.Option(help="Equalise grey levels; by default the recipe's.")]
FramesOption = Annotated[Frames | None, typer.Option(help="Of a file with several; by default the recipe's.")]
ColourOption = Annotated[Colour | None, typer.Option(help="Of a colour file; by default the recipe's.")]


def import_(
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


def prepare(
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
    changes = _changes(aspect, intensity, equalize, frames, colour)
    chosen = make_recipe(recipe or "standard", changes)
    with resumable(), progress_bar(console) as progress:
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


def _changes(
    aspect: Aspect | None,
    intensity: Intensity | None,
    equalize: Equalize | None,
    frames: Frames | None,
    colour: Colour | None,
) -> dict[str, str | None]:
    """What the options change of the recipe, by the names of its choices; None leaves the recipe's own."""
    return {"aspect": aspect, "intensity": intensity, "equalize": equalize, "frames": frames, "colour": colour}


def _print_policies(recipe: Recipe, notes: Iterable[tuple[str, ...]]) -> None:
    """Say what was chosen, and how many images each policy concerned."""
    table = Table("Policy", "Choice or images", title="How images were read", title_justify="left")
    for policy, choice in asdict(recipe).items():
        table.add_row(policy, choice)
    table.add_section()
    for note, count in Counter(note for some in notes for note in some).most_common():
        table.add_row(Text(note), f"{count:,} images")
    console.print(table)


def check(
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
    changes = _changes(aspect, intensity, equalize, frames, colour)
    options = {"size": size, "cache": cache, "skip": skip, "recipe": recipe, "share": share, **changes}
    with resumable(), progress_bar(errors) as progress:
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

"""The command line: ``polyhead COMMAND``.

Commands import what they need when they run, so that ``--help`` answers at once and ``evaluate`` needs no PyTorch.
"""

import typer

from polyhead.cli import federation, houses
from polyhead.cli.app import app, main
from polyhead.cli.sites import check, import_, prepare
from polyhead.cli.studies import demo, evaluate, report, run

__all__ = ["app", "main"]

# In the order of --help.
app.command("demo", epilog="Example: `polyhead demo --out demo`")(demo)
app.command("run", epilog="Example: `polyhead run examples/three_countries.toml --out runs/three_countries`")(run)
app.command("import", epilog="Example: `polyhead import table exports --map columns.toml --out our-hospital`")(import_)
app.command("prepare", epilog="Example: `polyhead prepare data/our-hospital --size 224 --aspect crop --frames first`")(
    prepare
)
app.command("check", epilog="Example: `polyhead check data/our-hospital --cache cache --share summary.json`")(check)
app.command("evaluate", epilog="Example: `polyhead evaluate runs/three_countries --replicates 2000`")(evaluate)
app.command("report", epilog="Example: `polyhead report runs/three_countries`")(report)

_federation = typer.Typer(no_args_is_help=True, help="Coordinate hospitals in houses of their own.")
_site = typer.Typer(no_args_is_help=True, help="Take part in a federation as a hospital.")
app.add_typer(_federation, name="federation")
app.add_typer(_site, name="site")
_federation.command(
    "init", epilog="Example: `polyhead federation init study.toml --out kits --host federation.example.org`"
)(federation.init)
_federation.command("server", epilog="Example: `polyhead federation server kits/server`")(federation.server)
_federation.command("start", epilog="Example: `polyhead federation start study.toml kits/admin --out runs/federation`")(
    federation.start
)
_federation.command("status", epilog="Example: `polyhead federation status kits/admin`")(federation.status)
_federation.command("stop", epilog="Example: `polyhead federation stop kits/admin`")(federation.stop)
_site.command("join", epilog="Example: `polyhead site join kits/sites/ours ours.toml`")(houses.join)
_site.command("audit", epilog="Example: `polyhead site audit kits/sites/ours`")(houses.audit)

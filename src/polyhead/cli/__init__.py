"""The command line: ``polyhead COMMAND``.

Commands import what they need when they run, so that ``--help`` answers at once and ``evaluate`` needs no PyTorch.
"""

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

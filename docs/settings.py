"""docs/settings.md, from the settings themselves: `python docs/settings.py` writes it; a test holds it up to date."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

from polyhead.config import StudyConfig
from polyhead.config_training import Section

PAGE = """# Settings

Every key of a study file, in TOML. Only `name`, and of each `[[site]]` its `name` and `manifest`, must be given. A key
that is not known is refused with the nearest that is; a value out of range, with what is allowed. Paths are relative to
the study file. What a default was when a run began stays with the run (`settings.json`).

Which methods there are, and what these settings do to them, is told in [methods.md](methods.md); `[privacy]` in
[privacy.md](privacy.md#differential-privacy).

<!-- Written by docs/settings.py: change the settings' own docstrings instead. -->

{tables}
## A hospital's own file

Between hospitals in houses of their own ([deployment.md](deployment.md)) the study names each site, and nothing more of
it. The rest stands in the file that the hospital gives to `polyhead site join`, and stays there; paths are relative to
it. (Not to be confused with `site.toml` beside a manifest: [data.md](data.md#sitetoml).)

| key | default | allowed | meaning |
|---|---|---|---|
| `manifest`, `findings`, `train_images`, `shard`, `shuffle_labels` | | | as under `[[site]]` |
| `cache` | the manifest's folder | path | folder for the pixel cache |
| `release.metrics` | `"auroc"` | `"auroc"`, `"nothing"` | what of its results may leave |
| `release.least` | `10` | whole number from 1 to 1,000,000 | patients with it, and without, for it to leave |
| `privacy.epsilon` | none | number above 0 | the site's own limit, in a study with noise: it takes no part beyond it |
"""


def tables(section: type[Section], path: str = "", title: str = "The study itself") -> str:
    """Return the keys of a section as a table, then those of the sections in it.

    Raises
    ------
    KeyError
        If a section's docstring says nothing of a key.
    """
    told, rows, below = meanings(section), "", ""
    schema = section.model_json_schema()
    for key, field in section.model_fields.items():
        inner, is_list = _section_in(field.annotation)
        if inner:
            name = f"{path}.{key}" if path else key
            below += tables(inner, name, f"`[[{name}]]`" if is_list else f"`[{name}]`")
        else:
            rows += f"| `{key}` | {default(field)} | {allowed(schema['properties'][key])} | {told[key]} |\n"
    about = "" if not path else f"{_plain(inspect.getdoc(section) or '').splitlines()[0]}\n\n"
    return f"## {title}\n\n{about}| key | default | allowed | meaning |\n|---|---|---|---|\n{rows}\n{below}"


def meanings(section: type[Section]) -> dict[str, str]:
    """Return what a section's docstring says of each key that it tells of."""
    text = inspect.cleandoc(section.__doc__ or "").partition("Attributes\n----------\n")[2]
    parts = re.findall(r"^(\w+)\n((?: .*\n?|\n)+)", text, re.MULTILINE)
    return {key: _plain(" ".join(said.split())) for key, said in parts}


def default(field: Any) -> str:
    """Return a field's default, as it would be written in a study file."""
    if field.is_required():
        return "must be given"
    return "none" if field.default is None else f"`{json.dumps(field.default)}`"


def allowed(schema: dict[str, Any]) -> str:
    """Return in words what a field may be, from its JSON schema."""
    if "anyOf" in schema:
        (schema,) = (one for one in schema["anyOf"] if one["type"] != "null")
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema["enum"])
    kind = schema["type"]
    if kind == "array":
        return f"list: {allowed(schema['items'])}"
    if kind == "object":
        return "table: text = text"
    if kind in ("integer", "number"):
        return f"{'whole number' if kind == 'integer' else 'number'}{_range(schema)}"
    return {"string": "path" if schema.get("format") == "path" else "text", "boolean": "`true`, `false`"}[kind]


def _range(schema: dict[str, Any]) -> str:
    words = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
    return "".join(f" {word} {schema[key]:,.12g}" for key, word in words.items() if key in schema)


def _section_in(annotation: Any) -> tuple[type[Section] | None, bool]:
    """Return the section that a field holds, if it does, and whether it holds a list of them."""
    for part in (annotation, *getattr(annotation, "__args__", ())):
        if inspect.isclass(part) and issubclass(part, Section):
            return part, part is not annotation
    return None, False


def _plain(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def main() -> None:
    page = PAGE.format(tables=tables(StudyConfig))
    Path(__file__).with_name("settings.md").write_text(page)


if __name__ == "__main__":
    main()

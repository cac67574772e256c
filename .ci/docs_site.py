"""What mkdocs asks for while it builds the site: the commands from their parser, the tables from README.md, the chapters from the notebooks."""
import argparse
import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[1]


def cell(text: str) -> str:
    "Text for a cell of a markdown table."
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def commands() -> str:
    "A section a command: what it does, and a row for each thing that it takes."
    from livestock_nb.cli import make_parser
    [door] = [a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    parts = []
    for name, parser in door.choices.items():
        rows = []
        for a in (a for a in parser._actions if a.dest != "help"):
            said = (a.help or "").replace("%%", "%")
            what = ", ".join(a.option_strings) or a.metavar or a.dest
            some = "{" + ",".join(map(str, a.choices)) + "}" if a.choices else a.dest.upper()
            value = "" if not a.option_strings or a.nargs == 0 else a.metavar or some
            rows.append(f"| `{cell(f'{what} {value}'.strip())}` | {cell(said)}{' **(needed)**' if a.required else ''} |")
        head = ["| it takes | what that is |", "|---|---|"]
        parts.append("\n".join([f"## livestock {name}", "", cell(parser.description.replace("%%", "%")), "", *head, *rows]))
    return "\n\n".join(parts)


def measured() -> str:
    "The section of README.md with what was last measured."
    return re.search(r"^## Measured\n(.*?)(?=^## |\Z)", (ROOT/"README.md").read_text(encoding="utf-8"), re.M | re.S)[1].strip()


def notebooks() -> list[tuple[str, str, str]]:
    "Each notebook's page, its number and title, and the line under the title."
    heads = {p: nbformat.read(p, 4).cells[0].source.splitlines() for p in sorted((ROOT/"nbs").glob("*.ipynb"))}
    return [(f"chapters/{p.name}", f"{p.stem.partition('_')[0]} {head[0].lstrip('# ')}", head[2].lstrip("> ")) for p, head in heads.items()]


def chapters() -> str:
    "A row for each notebook."
    return "\n".join(["| chapter | about |", "|---|---|", *(f"| [{cell(title)}]({page}) | {cell(about)} |" for page, title, about in notebooks())])


MADE = {"commands.md": commands, "measured.md": measured, "index.md": chapters}


def on_page_markdown(markdown: str, page, **_) -> str:
    "mkdocs' hook: put what is made where a page says {{ made }}."
    make = MADE.get(page.file.src_uri)
    return markdown.replace("{{ made }}", make()) if make else markdown


def on_config(config, **_):
    "mkdocs' hook: the chapters of the navigation are the notebooks that there are."
    at = next(i for i, entry in enumerate(config.nav) if "Chapters" in entry)
    config.nav[at] = {"Chapters": [{title: page} for page, title, _ in notebooks()]}
    return config

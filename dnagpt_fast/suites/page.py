"""The report as one HTML page that opens without a network: tables, and the figures inside the file."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from dnagpt_fast.suites.table import Table

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #222; margin: 2rem auto; max-width: 1180px; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .85rem }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .7rem .3rem 0; text-align: left; vertical-align: top }
th { border-bottom: 2px solid #888; font-weight: 600 } td { font-variant-numeric: tabular-nums }
td.long { overflow-wrap: anywhere } p.note { color: #555; font-size: .85rem; max-width: 60rem }
img { max-width: 100%; margin-top: .5rem }
"""


def html_page(report: Mapping[str, Any], tables: Sequence[Table], figure: Path) -> str:
    title = escape(f"{report['suite']}: {report['about']}")
    picture = base64.b64encode(figure.read_bytes()).decode()
    parts = [
        f"<h1>{title}</h1>",
        f'<img alt="The scores of all methods with their intervals" src="data:image/png;base64,{picture}">',
        *(_table(one) for one in tables),
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head>\n<body>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
    rows = "\n".join(
        "<tr>"
        + "".join(f"<td{' class=long' if len(cell) > 60 else ''}>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in table.rows
    )
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<h2>{escape(table.title)}</h2><div class="wide"><table><thead><tr>{head}</tr></thead>\n'
        f"<tbody>{rows}</tbody></table></div>{note}"
    )

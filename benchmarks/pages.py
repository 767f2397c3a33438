"""Shows a page that a benchmark makes, or writes it into the page's file with --update."""

import argparse
from pathlib import Path

from dnagpt_fast.output_files import whole


def add_update(parser: argparse.ArgumentParser, page: Path) -> None:
    parser.add_argument("--update", action="store_true", help=f"write the table into {page.name}")


def show(text: str, page: Path, update: bool) -> None:
    """Prints the text, or with `update` makes it the content of `page`, whole or not at all."""
    if update:
        with whole(page) as path:
            path.write_text(text)
    else:
        print(text)

"""The two pictures of docs/design.md: the rooms with their imports, and the data flow from a genome file to a
checkpoint.

`python -m tests.rooms` draws them again; tests/test_floors.py compares them with the imports.
"""

import itertools
from collections.abc import Iterable

from tests.imports import EDGES, FLOORS, ROOT, room_of

PICTURE_OF_ROOMS = ROOT / "docs" / "rooms.svg"
PICTURE_OF_DATA = ROOT / "docs" / "dataflow.svg"
WIDTH, BOX_W, BOX_H, GAP_X, FLOOR_H, MARGIN = 760, 150, 40, 30, 84, 24
INK, LINE, FILL = "#1b2a41", "#6b7a90", "#eaf1f8"
# The stages in order, each with the room that makes it.
STAGES = (
    ("genome file", ".2bit, FASTA"),
    ("packed bases", "genome/"),
    ("window coordinates", "genome/sampler"),
    ("ids, GC, order label", "ops/sample_batch"),
    ("batch", "batch.py"),
    ("embeddings, blocks", "model/layers"),
    ("attention", "ops/attention"),
    ("one loss", "ops/combined_loss"),
    ("optimizer step", "training/"),
    ("checkpoint", "weights/"),
)
STAGES_A_ROW = 4


def rooms_imported() -> dict[str, set[str]]:
    """Room -> the other rooms that its modules import, without `__main__` files, which are doors."""
    found: dict[str, set[str]] = {room: set() for row in FLOORS for room in row}
    for module, imported in EDGES.items():
        if module != "dnagpt_fast" and imported:
            rooms = {room_of(name) for name in imported if name != "dnagpt_fast"}
            found[room_of(module)] |= rooms - {room_of(module)}
    return found


def without_shortcuts(arrows: dict[str, set[str]]) -> dict[str, set[str]]:
    """The arrows that no chain of other arrows implies."""

    def below(room: str) -> set[str]:
        return set().union(*({lower} | below(lower) for lower in arrows[room])) if arrows[room] else set()

    return {
        room: {lower for lower in lowers if not any(lower in below(other) for other in lowers - {lower})}
        for room, lowers in arrows.items()
    }


def box(x: float, y: float, title: str, subtitle: str = "") -> list[str]:
    """A rectangle with one or two lines of text; x, y: its upper left corner."""
    middle = x + BOX_W / 2
    lines = [
        f'<rect x="{x:g}" y="{y:g}" width="{BOX_W}" height="{BOX_H}" rx="6" fill="{FILL}" stroke="{INK}"/>',
        f'<text x="{middle:g}" y="{y + (17 if subtitle else 25):g}" class="title">{title}</text>',
    ]
    if subtitle:
        lines.append(f'<text x="{middle:g}" y="{y + 32:g}" class="small">{subtitle}</text>')
    return lines


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    return (
        f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{LINE}" stroke-width="1.4" '
        'marker-end="url(#tip)"/>'
    )


def svg(height: float, label: str, parts: Iterable[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
            f'aria-label="{label}">',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            f'orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="{LINE}"/></marker></defs>',
            f"<style>text{{font-family:Helvetica,Arial,sans-serif;text-anchor:middle;fill:{INK}}}"
            ".title{font-size:14px}.small{font-size:11px}</style>",
            f'<rect width="{WIDTH}" height="{height:g}" fill="white"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def draw_rooms() -> str:
    height = 2 * MARGIN + FLOOR_H * (len(FLOORS) - 1) + BOX_H
    place = {}
    for level, row in enumerate(FLOORS):
        start = (WIDTH - len(row) * BOX_W - (len(row) - 1) * GAP_X) / 2
        for i, room in enumerate(row):
            place[room] = (start + i * (BOX_W + GAP_X), height - MARGIN - BOX_H - level * FLOOR_H)
    parts = []
    for room, lowers in without_shortcuts(rooms_imported()).items():
        x, y = place[room]
        for lower in sorted(lowers):
            to_x, to_y = place[lower]
            parts.append(arrow(x + BOX_W / 2, y + BOX_H, to_x + BOX_W / 2, to_y))
    for room, (x, y) in place.items():
        parts += box(x, y, "ground" if room == "ground" else f"{room}/")
    return svg(height, "The rooms of dnagpt_fast; an arrow means: imports", parts)


def draw_data() -> str:
    step_x, step_y = BOX_W + GAP_X, BOX_H + 46
    rows = -(-len(STAGES) // STAGES_A_ROW)
    height = 2 * MARGIN + (rows - 1) * step_y + BOX_H
    left = (WIDTH - STAGES_A_ROW * BOX_W - (STAGES_A_ROW - 1) * GAP_X) / 2
    places = []
    for i in range(len(STAGES)):
        row, column = divmod(i, STAGES_A_ROW)
        # Every second row runs from right to left, so that no arrow jumps back.
        column = STAGES_A_ROW - 1 - column if row % 2 else column
        places.append((left + column * step_x, MARGIN + row * step_y))
    parts = []
    for (x, y), (to_x, to_y) in itertools.pairwise(places):
        if y != to_y:
            parts.append(arrow(x + BOX_W / 2, y + BOX_H, to_x + BOX_W / 2, to_y))
        elif to_x > x:
            parts.append(arrow(x + BOX_W, y + BOX_H / 2, to_x, to_y + BOX_H / 2))
        else:
            parts.append(arrow(x, y + BOX_H / 2, to_x + BOX_W, to_y + BOX_H / 2))
    for (x, y), (title, subtitle) in zip(places, STAGES, strict=True):
        parts += box(x, y, title, subtitle)
    return svg(height, "From a genome file to a checkpoint", parts)


PICTURES = {PICTURE_OF_ROOMS: draw_rooms, PICTURE_OF_DATA: draw_data}

if __name__ == "__main__":
    for path, drawn in PICTURES.items():
        path.write_text(drawn())

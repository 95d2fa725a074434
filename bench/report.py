"""What a measurement leaves behind: a table to read, JSON to compare, a picture to look at."""

import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

RESULTS: Final = Path("bench/results")
FONT: Final = 'font-family="sans-serif" font-size="12"'
BAR_COLOURS: Final = ("#2f6fb2", "#b2502f", "#3f9a5c", "#8a5cb0")
LETTER: Final = 7
"""Pixels that a letter takes at the most, nearly always."""


def median(values: Sequence[float]) -> float:
    """Return the median; NaN of nothing."""
    return statistics.median(values) if values else float("nan")


def quantile(ordered: Sequence[float], part: float) -> float:
    """Return the value below which that part of `ordered` lies; 0 of nothing."""
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] if ordered else 0.0


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table with its columns lined up; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(pad(cell, width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    rule = (
        "|" + "|".join("-" * (width + 1) + ("-" if k == 0 else ":") for k, width in enumerate(widths)) + "|"
    )
    return "\n".join([lines[0], rule, *lines[1:]])


def pad(cell: str, width: int) -> str:
    return cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)


def machine() -> dict[str, str | int]:
    """Return what a reader must know to compare numbers."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), "unknown")
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 1,
        "kernel": os.uname().release,
        "python": sys.version.split()[0],
    }


def save_values(name: str, values: Mapping[str, float]) -> None:
    """Print single measurements as a table, and write them to NAME.json. Their keys end in the unit."""
    rows = [[what.replace("_", " "), f"{value:.5g}"] for what, value in values.items()]
    print(table(["what", "measured"], rows))
    save(name, values)


def save(name: str, result: object, folder: Path = RESULTS) -> None:
    """Write `result` as NAME.json, with the machine it was measured on, and say where."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "result": result}, indent=2) + "\n")
    print(f"\nwritten: {path}")


def save_bars(
    name: str,
    title: str,
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    folder: Path = RESULTS,
) -> None:
    """Write NAME.svg: groups of horizontal bars, one per series. NaN is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.svg"
    path.write_text(bars_svg(title, groups, series))
    print(f"written: {path}")


def bars_svg(title: str, groups: Sequence[str], series: Mapping[str, Sequence[float]]) -> str:
    """Return an SVG picture of horizontal bars."""
    top, bar, gap = 64, 16, 14
    left = max(170, 12 + LETTER * max(map(len, groups), default=0))
    width = left + 590
    largest = (
        max((value for values in series.values() for value in values if value == value), default=1.0) or 1.0
    )
    height = top + len(groups) * (bar * len(series) + gap) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {FONT}>',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="24" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for k, name in enumerate(series):
        x = 12 + k * 150
        parts.append(
            f'<rect x="{x}" y="38" width="11" height="11" fill="{BAR_COLOURS[k % len(BAR_COLOURS)]}"/>'
        )
        parts.append(f'<text x="{x + 16}" y="48">{escape(name)}</text>')
    for row, group in enumerate(groups):
        y = top + row * (bar * len(series) + gap)
        parts.append(f'<text x="12" y="{y + bar * len(series) / 2 + 4}">{escape(group)}</text>')
        for k, values in enumerate(series.values()):
            if values[row] != values[row]:
                continue
            length = max(1.0, values[row] / largest * (width - left - 80))
            colour = BAR_COLOURS[k % len(BAR_COLOURS)]
            box = f'x="{left}" y="{y + k * bar}" width="{length:.1f}" height="{bar - 2}"'
            parts.append(f'<rect {box} fill="{colour}"/>')
            parts.append(f'<text x="{left + length + 6:.1f}" y="{y + k * bar + 11}">{values[row]:.1f}</text>')
    return "\n".join([*parts, "</svg>", ""])

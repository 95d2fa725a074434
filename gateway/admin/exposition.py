"""The text Prometheus reads, in its own format and as OpenMetrics, which has exemplars too.

Lines are put together here: a scrape of some hundred services is 50,000 of them, and general libraries take a
second for it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from gateway.control.spans import Exemplar
from gateway.link.counts import EDGES_US

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_BOUNDS: Final = (*(repr(edge / 1e6) for edge in EDGES_US), "+Inf")
_TAILS: Final = tuple(f'le="{bound}"}} ' for bound in _BOUNDS)
_ESCAPES: Final = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


Exemplars = Mapping[int, Exemplar]
"""By place among EDGES_US."""
NO_EXEMPLARS: Final[Exemplars] = {}


def labels(**values: str) -> str:
    """Return labels as they stand between braces."""
    return ",".join([f'{name}="{value.translate(_ESCAPES)}"' for name, value in values.items()])


class Family:
    """One metric: its series, as lines."""

    def __init__(self, name: str, kind: str, text: str) -> None:
        """name: without `_total`. kind: counter, gauge or histogram."""
        self.name = name
        self.kind = kind
        self.text = text
        self._sample = f"{name}_total" if kind == "counter" else name
        self._lines: list[str] = []

    def add(self, value: float, series: str = "") -> None:
        """Add a sample. series: `labels`."""
        at = f"{{{series}}}" if series else ""
        self._lines.append(f"{self._sample}{at} {value!r}\n")

    def add_each(self, values: Mapping[str, float], label: str, series: str = "") -> None:
        """Add a sample for each value of `label`."""
        start = f"{self._sample}{{{series},{label}=" if series else f"{self._sample}{{{label}="
        for name, value in sorted(values.items()):
            self._lines.append(f'{start}"{name.translate(_ESCAPES)}"}} {value!r}\n')

    def add_histogram(
        self, places: Sequence[int], sum_us: int, series: str, exemplars: Exemplars = NO_EXEMPLARS
    ) -> None:
        """Add a histogram of seconds. places: counts by place among EDGES_US."""
        start, total = f"{self.name}_bucket{{{series},", 0
        for place, tail in enumerate(_TAILS):
            total += places[place]
            exemplar = exemplars.get(place) if exemplars else None
            self._lines.append(f"{start}{tail}{total}{_exemplar(exemplar)}\n")
        self._lines.append(f"{self.name}_sum{{{series}}} {sum_us / 1e6!r}\n")
        self._lines.append(f"{self.name}_count{{{series}}} {total}\n")

    def rendered(self, *, is_open: bool) -> str:
        """Return the family's text; empty without series."""
        if not self._lines:
            return ""
        name = self.name if is_open else self._sample
        return f"# HELP {name} {self.text}\n# TYPE {name} {self.kind}\n{''.join(self._lines)}"


def _exemplar(exemplar: Exemplar | None) -> str:
    if exemplar is None:
        return ""
    return f' # {{trace_id="{exemplar.trace_id}"}} {exemplar.seconds!r} {exemplar.at:.3f}'


def counter(name: str, text: str, value: float) -> Family:
    """Return a counter without labels; `_total` is added to its name."""
    family = Family(name, "counter", text)
    family.add(value)
    return family


def gauge(name: str, text: str, value: float) -> Family:
    """Return a gauge without labels."""
    family = Family(name, "gauge", text)
    family.add(value)
    return family


def by_label(family: Family, label: str, values: Mapping[str, float]) -> Family:
    """Return a family of one label, filled."""
    family.add_each(values, label)
    return family


def text_of(families: Iterable[Family], *, is_open: bool) -> str:
    """Return the text of all."""
    return "".join([family.rendered(is_open=is_open) for family in families])


def wants_open_metrics(accept: str) -> bool:
    """Tell whether an Accept field prefers OpenMetrics, as Prometheus does unless told otherwise."""
    best = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        kind, *parameters = [each.strip() for each in part.split(";")]
        quality = 1.0
        for each in parameters:
            if each.startswith("q="):
                quality = _number(each[2:])
        if kind in best:
            best[kind] = max(best[kind], quality)
    return best["application/openmetrics-text"] > best["text/plain"]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0

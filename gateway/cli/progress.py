"""How a rollout under way is shown: as a block that is drawn again, or as a line for each change."""

import math
from typing import Any, Final, NamedTuple

from gateway.cli import overview
from gateway.cli.lookup import OPEN
from gateway.cli.params import format_duration

SCALE: Final = 16
"""Characters of the judge's scale: its line fits into 60 columns."""
QUIET_S: Final = 10
"""Without a request for so long, there is nothing to judge."""


class Sight(NamedTuple):
    """What was seen at one look: the service as the overview has it, and the rollout that is followed."""

    service: dict[str, Any]
    rollout: dict[str, Any]

    @property
    def sides(self) -> list[dict[str, Any]]:
        """The old version and the new one, as far as they are there."""
        ids = (self.rollout.get("fromVersionId"), self.rollout.get("toVersionId"))
        by_id = {each["id"]: each for each in self.service["versions"]}
        return [by_id[each] for each in ids if each in by_id]

    @property
    def is_open(self) -> bool:
        return self.rollout["status"] in OPEN

    @property
    def is_quiet(self) -> bool:
        """Whether traffic is split, and there is none."""
        return self.rollout["status"] == "rolling" and not any(each.get("rate") for each in self.sides)


def quiet_line(sight: Sight) -> str:
    """Return what to do about a rollout that nothing can be judged by."""
    return (
        f"no request to {sight.service['name']} in {QUIET_S} s, so nothing can be judged: "
        "send some, or release with --immediate"
    )


def waits_for(rollout: dict[str, Any]) -> str | None:
    """Return what a paused rollout waits for; None for any other."""
    if rollout["status"] != "paused":
        return None
    name = rollout["serviceName"]
    return f"waiting for somebody: gateway resume {name}, promote or rollback"


def change_of(sight: Sight) -> tuple[object, ...]:
    """Return what is worth a line when it changes: not the judge's growing numbers."""
    rollout = sight.rollout
    verdict = rollout.get("verdict") or {}
    said = overview.why_line(rollout) if rollout["status"] == "paused" else verdict.get("gate")
    return rollout["status"], rollout.get("phase"), rollout["trafficPercent"], said


def line(rollout: dict[str, Any]) -> str:
    """Return where a rollout is, in one line."""
    head = f"{rollout['status']}: {rollout['trafficPercent']} % on {rollout.get('toVersion')}"
    why = overview.why_line(rollout)
    return f"{head} ({why})" if why else head


def as_json(sight: Sight) -> dict[str, Any]:
    """Return what a script reads of one look: the rollout, and both versions' numbers."""
    keep = ("version", "share", "rate", "errorPercent", "p95Ms", "healthStatus")
    versions = [{name: each.get(name) for name in keep} for each in sight.sides]
    return {**sight.rollout, "versions": versions}


# -- the block


def steps_line(rollout: dict[str, Any]) -> str:
    """Return the steps, the present one in brackets."""
    steps, at = rollout.get("steps") or [], rollout["currentStep"]
    is_open = rollout["status"] in OPEN
    marks = [f"[{step} %]" if is_open and index == at else f"{step} %" for index, step in enumerate(steps)]
    return " → ".join(marks)


def head_line(rollout: dict[str, Any]) -> str:
    """Return what moves where, and how long the step still takes."""
    old, new = rollout.get("fromVersion") or "-", rollout.get("toVersion")
    parts = [f"{rollout['serviceName']}  {old} → {new}  {rollout['strategy']}", rollout["status"]]
    steps = rollout.get("steps") or []
    if rollout["status"] in OPEN and steps:
        parts.append(f"step {min(rollout['currentStep'] + 1, len(steps))} of {len(steps)}")
        parts.append(f"{rollout['trafficPercent']} % new")
        if rollout.get("remainingMs"):
            parts.append(f"{format_duration(rollout['remainingMs'])} left")
    return "   ".join(parts)


def scale_lines(rollout: dict[str, Any]) -> list[str]:
    """Return the judge's statistic on a log scale, from 1 (no difference) to where it rolls back, and in
    numbers; nothing while it has none.
    """
    verdict = rollout.get("verdict") or {}
    statistic, limit = verdict.get("statistic"), verdict.get("limit")
    if statistic is None or not limit or limit <= 1:
        return []
    part = min(1.0, max(0.0, math.log(max(statistic, 1.0)) / math.log(limit)))
    filled = round(part * SCALE)
    line = "━" * filled + "●" + "─" * (SCALE - filled)
    return [f"no difference {line} roll back", odds_text(statistic, limit)]


def odds_text(statistic: float, limit: float) -> str:
    """Return the judge's odds in words."""
    return f"{overview.odds(statistic)} : 1 that it is worse, {overview.odds(limit)} : 1 rolls back"


def version_rows(sight: Sight) -> list[tuple[str, ...]]:
    """Return both versions' numbers: name, share, rate, errors, p95, health."""
    return [
        (
            each["version"],
            overview.share(each),
            f"{overview.rate(each.get('rate'))}/s",
            f"{overview.errors(each)} errors",
            f"p95 {overview.p95(each)}",
            overview.health(each),
        )
        for each in sight.sides
    ]


def block(sight: Sight) -> list[str]:
    """Return the lines of the live block."""
    rollout = sight.rollout
    rows = version_rows(sight)
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))] if rows else []
    numbers = [
        "  " + "   ".join(cell.rjust(width) if index else cell.ljust(width) for index, (cell, width) in
                          enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]  # fmt: skip
    closing = [
        overview.why_line(rollout),
        waits_for(rollout),
        quiet_line(sight) if sight.is_quiet else None,
        rollout.get("warning") and f"warning: {rollout['warning']}",
    ]
    return [
        head_line(rollout),
        *([f"  {steps_line(rollout)}"] if rollout.get("steps") else []),
        *numbers,
        *(f"  {scale}" for scale in scale_lines(rollout)),
        *(f"  {text}" for text in closing if text),
    ]

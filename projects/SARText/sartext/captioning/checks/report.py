"""The result of the checks as JSON and as a table to read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from mmovseg.projects.sartext.captioning.checks.dataset import CheckResult
from mmovseg.projects.sartext.captioning.checks.findings import KINDS, Finding
from mmovseg.projects.sartext.captioning.schema import CaptionRecord

MAX_EXAMPLES = 10


def make_report(files: Sequence[str], records: Sequence[CaptionRecord], result: CheckResult) -> dict[str, Any]:
    """Return a json-able report: totals, each check with its number and examples, statements, largest groups."""
    captions = sum(len(record.captions) for record in records)
    checks = {}
    for kind in KINDS:
        found = [finding for finding in result.findings if finding.kind == kind]
        checks[kind] = {"count": len(found), "examples": [_example(one, records) for one in found[:MAX_EXAMPLES]]}
    bad = {(one.record, one.caption) for one in result.findings}
    cells: dict[str, Counter[str]] = {}
    for position, record in enumerate(records):
        cell = cells.setdefault(f"{record.source}, {record.route}", Counter())
        cell["images"] += 1
        cell["captions"] += len(record.captions)
        for index in range(len(record.captions)):
            cell["with a finding"] += (position, index) in bad or (position, None) in bad
    statements = {
        route: {
            "nouns": one.nouns,
            "noun_precision": one.noun_precision,
            "counts": one.counts,
            "count_accuracy": one.count_accuracy,
        }
        for route, one in sorted(result.statements.items())
    }
    return {
        "files": list(files),
        "images": len(records),
        "captions": captions,
        "distinct_captions": result.distinct,
        "scenes": result.scenes,
        "checks": checks,
        "statements": statements,
        "by_source_and_route": {name: dict(cell) for name, cell in sorted(cells.items())},
        "largest_groups": [{"captions": count, "example": text} for count, text in result.groups],
    }


def _example(finding: Finding, records: Sequence[CaptionRecord]) -> dict[str, Any]:
    record = records[finding.record]
    caption = None if finding.caption is None else record.captions[finding.caption]
    return {"image_id": record.image_id, "caption": caption, "message": finding.message}


def format_report(report: dict[str, Any]) -> str:
    """Return the report as text."""
    lines = [
        f"{report['captions']} captions ({report['distinct_captions']} different) of {report['images']} images",
        "",
        f"{'check':<26}{'found':>8}  example",
    ]
    for kind, check in report["checks"].items():
        example = ""
        if check["examples"]:
            first = check["examples"][0]
            shown = first["caption"] if first["caption"] is not None else first["image_id"]
            example = f"{shown[:60]}: {first['message']}"
        blind = kind == "split leakage" and not report["scenes"] and not check["count"]
        note = "only equal images were looked for: no scene is known" if blind else example
        lines.append(f"{kind:<26}{check['count']:>8}  {note}"[:140].rstrip())
    for route, one in report["statements"].items():
        lines += ["", f"{route}: {_percent(one['noun_precision'])} of {one['nouns']} nouns are annotated, "]
        lines[-1] += f"{_percent(one['count_accuracy'])} of {one['counts']} counts are right"
    lines += ["", f"{'source, route':<36}{'images':>8}{'captions':>10}{'with a finding':>16}"]
    for name, cell in report["by_source_and_route"].items():
        lines.append(f"{name:<36}{cell['images']:>8}{cell['captions']:>10}{cell['with a finding']:>16}")
    if report["largest_groups"]:
        lines += ["", "most repeated captions, nearly identical ones together:"]
        lines += [f"{group['captions']:>8}  {group['example'][:100]}" for group in report["largest_groups"][:5]]
    return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"

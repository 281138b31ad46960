"""What two raters say: usable rates with their intervals, agreement beyond chance, and which errors they name.

Sources: Cohen, "A coefficient of agreement for nominal scales", 1960, and "Weighted kappa", 1968; Wilson, "Probable
inference, the law of succession, and statistical inference", 1927.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.audit.sample import ERROR_CODES, RATINGS, RatedItem

Z_95 = 1.959963984540054
Weights = Literal["none", "linear", "quadratic"]


def wilson_interval(hits: int, total: int, *, z: float = Z_95) -> tuple[float, float]:
    """Return the interval that holds a share with 95 % confidence; (0, 1) of nothing.

    Unlike the usual interval it stays within 0..1 and is right for shares near 1.
    """
    if total == 0:
        return 0.0, 1.0
    share = hits / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return (0.0 if hits == 0 else centre - half), (1.0 if hits == total else centre + half)


def cohen_kappa(first: Sequence[str], second: Sequence[str], *, weights: Weights = "none") -> float | None:
    """Return the agreement of two raters beyond chance, 1 = always, 0 = as by chance.

    Args:
        first: ratings, of `RATINGS`.
        second: ratings of the same items.
        weights: how disagreement counts: all alike, by distance on the scale, or by its square.

    Returns:
        None where chance alone would agree always: both used one and the same rating throughout, or there is no item.
    """
    if len(first) != len(second):
        raise ValueError(f"two raters rate the same items, got {len(first)} and {len(second)}")
    cost: dict[str, Callable[[int, int], float]] = {
        "none": lambda a, b: float(a != b),
        "linear": lambda a, b: float(abs(a - b)),
        "quadratic": lambda a, b: float((a - b) ** 2),
    }
    size = len(RATINGS)
    rows, columns, pairs = Counter(first), Counter(second), Counter(zip(first, second, strict=True))
    total = len(first)
    seen = sum(cost[weights](a, b) * pairs[RATINGS[a], RATINGS[b]] for a in range(size) for b in range(size))
    chance = sum(cost[weights](a, b) * rows[RATINGS[a]] * columns[RATINGS[b]] for a in range(size) for b in range(size))
    return None if chance == 0 else 1 - seen * total / chance


def usable_rate(ratings: Sequence[str | None]) -> dict[str, Any]:
    """Return number, share and interval of ratings that are no "wrong", and of those that are "usable" throughout."""
    given = [rating for rating in ratings if rating]
    result: dict[str, Any] = {"rated": len(given)}
    for name, accepted in (("usable", RATINGS[:2]), ("without_error", RATINGS[:1])):
        hits = sum(rating in accepted for rating in given)
        low, high = wilson_interval(hits, len(given))
        result[name] = {"count": hits, "share": hits / len(given) if given else None, "low": low, "high": high}
    return result


def compare_raters(sheets: Sequence[tuple[str, Sequence[RatedItem]]]) -> dict[str, Any]:
    """Return the report over one or two sheets.

    Args:
        sheets: (name of the rater, what they rated).

    Returns:
        json-able: ``raters`` (rates of each, by source and route, and error codes); with two also ``agreement`` (items
        both rated, share of equal ratings, kappas, table, items with different ratings) and ``both`` (captions that
        neither calls wrong).

    Raises:
        UserError: not one or two sheets, or the two are of different samples or have no item rated by both.
    """
    if len(sheets) not in (1, 2):
        raise UserError(f"agreement is between two raters (one alone gets rates only), got {len(sheets)} sheets")
    report: dict[str, Any] = {"raters": [_rate(name, rated) for name, rated in sheets]}
    if len(sheets) == 1:
        return report
    (name_a, rated_a), (name_b, rated_b) = sheets
    by_item = {one.item.item: one for one in rated_b}
    pairs = []
    for one in rated_a:
        other = by_item.get(one.item.item)
        if other is None or other.item.caption != one.item.caption or other.item.image_id != one.item.image_id:
            raise UserError(f"'{name_a}' and '{name_b}' are not of one sample: item {one.item.item} differs")
        if one.rating and other.rating:
            pairs.append((one, other))
    if len(by_item) != len(rated_a):
        raise UserError(f"'{name_a}' has {len(rated_a)} items and '{name_b}' {len(by_item)}: not one sample")
    if not pairs:
        raise UserError(f"no item is rated in both '{name_a}' and '{name_b}'")
    report["agreement"] = _agreement(pairs)
    worst = [max(a.rating, b.rating, key=RATINGS.index) for a, b in pairs]  # type: ignore[type-var]
    report["both"] = usable_rate(worst)
    return report


def _agreement(pairs: Sequence[tuple[RatedItem, RatedItem]]) -> dict[str, Any]:
    first = [str(a.rating) for a, _ in pairs]
    second = [str(b.rating) for _, b in pairs]
    return {
        "items": len(pairs),
        "equal": sum(a == b for a, b in zip(first, second, strict=True)) / len(pairs),
        "kappa": cohen_kappa(first, second),
        "kappa_linear": cohen_kappa(first, second, weights="linear"),
        "kappa_quadratic": cohen_kappa(first, second, weights="quadratic"),
        "ratings": list(RATINGS),
        "table": [
            [sum((x, y) == (a, b) for x, y in zip(first, second, strict=True)) for b in RATINGS] for a in RATINGS
        ],
        "disagreements": [
            {
                "item": a.item.item,
                "image_id": a.item.image_id,
                "caption": a.item.caption,
                "ratings": [a.rating, b.rating],
            }
            for a, b in pairs
            if a.rating != b.rating
        ],
    }


def _rate(name: str, rated: Sequence[RatedItem]) -> dict[str, Any]:
    cells: dict[str, list[str | None]] = {}
    for one in rated:
        cells.setdefault(f"{one.item.source}, {one.item.route}", []).append(one.rating)
    codes = Counter(code for one in rated for code in dict.fromkeys(one.codes))
    return {
        "name": name,
        "items": len(rated),
        **usable_rate([one.rating for one in rated]),
        "by_source_and_route": {cell: usable_rate(ratings) for cell, ratings in sorted(cells.items())},
        "codes": {code: codes[code] for code in ERROR_CODES},
    }


def format_agreement(report: dict[str, Any]) -> str:
    """Return the report as text."""
    lines: list[str] = []
    for rater in report["raters"]:
        lines += [f"{rater['name']}: {rater['rated']} of {rater['items']} items rated, {_rate_text(rater)}"]
        lines += [f"  {cell:<34}{_rate_text(rates)}" for cell, rates in rater["by_source_and_route"].items()]
        named = ", ".join(f"{code} {count}" for code, count in rater["codes"].items() if count)
        lines += [f"  errors: {named or 'none named'}", ""]
    if "agreement" in report:
        both = report["agreement"]
        lines.append(f"{both['items']} items rated by both, {100 * both['equal']:.1f} % with the same rating")
        kappas = (("kappa", "kappa"), ("linear", "kappa_linear"), ("quadratic", "kappa_quadratic"))
        lines.append("Cohen's " + ", ".join(f"{name} {_number(both[key])}" for name, key in kappas))
        lines.append(f"neither says wrong: {_rate_text(report['both'])}")
        lines += ["", f"{'':<12}" + "".join(f"{name:>10}" for name in both["ratings"])]
        for name, row in zip(both["ratings"], both["table"], strict=True):
            lines.append(f"{name:<12}" + "".join(f"{count:>10}" for count in row))
    return "\n".join(lines).rstrip()


def _rate_text(rates: dict[str, Any]) -> str:
    usable = rates["usable"]
    if usable["share"] is None:
        return "nothing rated"
    return (
        f"usable {100 * usable['share']:.1f} % ({100 * usable['low']:.1f} to {100 * usable['high']:.1f}), "
        f"without error {100 * rates['without_error']['share']:.1f} %, of {rates['rated']}"
    )


def _number(value: float | None) -> str:
    return "undefined (one rating throughout)" if value is None else f"{value:.3f}"

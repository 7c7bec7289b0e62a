"""Writes what run.py measured: CSV files and the tables in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from MedXlateCore.files import atomic_write_text, csv_text
from MedXlateCore.metrics.statistics import paired_test, patient_means, summarise

__all__ = ["tables", "write_csv"]

Row = Mapping[str, Any]
FACTS = {
    "sequence": "sequence",
    "plane": "plane",
    "fat_suppressed": "fat suppression",
    "contrast_agent": "contrast agent",
}
ROLES = ("T1", "T2", "FLAIR", "CT")


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows with all their keys as columns."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    atomic_write_text(path, csv_text(keys, ([row.get(key, "") for key in keys] for row in rows)))


def tables(
    made: Sequence[Row],
    methods: Sequence[str],
    facts: Sequence[Row],
    roles: Sequence[Row],
    real: Sequence[Row],
    purity: Sequence[Row],
    told: Sequence[Row],
) -> str:
    """Return all tables in Markdown.

    Args:
        made: figures of translations.
        methods: their order; the first one is compared with the others.
        facts: what slices are and look like.
        roles: what the gate says of declared roles.
        real: what patients' volumes look like.
        purity: of neighbourhoods in each space of vectors.
        told: cosines of sentences that differ in one thing.
    """
    text = ["## What a slice shows", "", *_facts(facts), "", "## Translation to held-out combinations", ""]
    rules = list(dict.fromkeys(row["rule"] for row in made if row["rule"]))
    for name, chosen in [("all held-out targets", rules), *((f"`{rule}`", [rule]) for rule in rules)]:
        text += [f"### {name}", "", *_translation([r for r in made if r["rule"] in chosen], methods), ""]
    text += ["## Translation to targets like those of the training", ""]
    known = [row for row in made if not row["rule"]]
    text += ["### all", "", *_translation(known, methods), ""]
    for target in dict.fromkeys(row["target"] for row in known):
        text += [f"### to {target}", "", *_translation([r for r in known if r["target"] == target], methods), ""]
    text += [
        "## Neighbours in the spaces of vectors",
        "",
        *_purity(purity),
        "",
        "### Sentences that differ in one thing",
        "",
        *_cosines(told),
        "",
        "## Swapped roles",
        "",
        *_roles(roles),
    ]
    if real:
        text += ["", "## Real volumes", "", *_real(real)]
    return "\n".join([*text, ""])


def _facts(rows: Sequence[Row]) -> list[str]:
    """Return accuracy by fact, and how sequences are confused."""
    lines = ["| fact | slices right, % | volumes right, % |", "|---|---|---|"]
    for fact, name in FACTS.items():
        own = [row for row in rows if row["sequence"] != "CT"] if fact in ("fat_suppressed", "contrast_agent") else rows
        whole = _volumes(own, fact) if fact != "plane" else _volumes(own, fact, "plane")
        lines.append(f"| {name} | {_share(_told(own, fact))} | {whole} |")
    names = list(dict.fromkeys(sorted(row["sequence"] for row in rows)))
    lines += ["", "Rows: what the slices are; columns: what they look like, % of slices.", ""]
    for fact, values in (("sequence", names), ("plane", ("axial", "coronal", "sagittal"))):
        counts = Counter((row[fact], row[f"{fact}_found"]) for row in rows)
        lines += [f"| {fact} | {' | '.join(values)} |", "|---|" + "---|" * len(values)]
        for one in values:
            total = sum(counts[one, other] for other in values)
            lines.append(f"| {one} | {' | '.join(f'{100 * counts[one, other] / total:.1f}' for other in values)} |")
        lines.append("")
    return lines[:-1]


def _volumes(rows: Sequence[Row], fact: str, *more: str) -> str:
    """Return the share of volumes (with more: of their parts) of which most slices are told right."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["case"], row["scan"], *(row[key] for key in more)), []).append(row)
    votes = []
    for own in groups.values():
        most = Counter(row[f"{fact}_found"] for row in own).most_common(1)[0][0]
        votes.append((own[0]["case"], most == own[0][fact]))
    return _share(votes)


def _told(rows: Sequence[Row], fact: str) -> list[tuple[str, bool]]:
    """Return the head of each slice, and whether a fact of it was told right."""
    return [(row["case"], row[fact] == row[f"{fact}_found"]) for row in rows]


def _share(found: Sequence[tuple[str, bool]]) -> str:
    """Return the mean over heads of a share in percent, with its interval."""
    return summarise(patient_means([100.0 * yes for _, yes in found], [case for case, _ in found])).as_text(1)


def _translation(rows: Sequence[Row], methods: Sequence[str]) -> list[str]:
    """Return PSNR and SSIM of each method over heads; p is Wilcoxon's, by head, against the first, not corrected."""
    lines = [
        f"| method | PSNR (dB) | SSIM | dB less than {methods[0]} | p, PSNR | p, SSIM |",
        "|---|---|---|---|---|---|",
    ]
    first: dict[str, list[float]] = {}
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        cases = [row["case"] for row in own]
        means = {name: [m for m in patient_means([row[name] for row in own], cases) if m is not None]
                 for name in ("psnr", "ssim")}  # fmt: skip
        first = first or means
        cells = [summarise(means["psnr"]).as_text(2), summarise(means["ssim"]).as_text(3)]
        if method == methods[0] or len(means["psnr"]) < 2:
            cells += ["", "", ""]
        else:
            tests = [paired_test(first[name], means[name]) for name in ("psnr", "ssim")]
            cells += [f"{tests[0].mean_difference:.2f}", *(f"{test.p_value:.2g}" for test in tests)]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    heads = len(first["psnr"])
    return [*lines, "", f"{len({(r['case'], r['target'], r['source']) for r in rows})} translations of {heads} heads."]


def _purity(rows: Sequence[Row]) -> list[str]:
    lines = ["| space | neighbours of the same sequence, % | of the same plane, % |", "|---|---|---|"]
    return lines + [f"| {r['space']} | {100 * r['sequence']:.1f} | {100 * r['plane']:.1f} |" for r in rows]


def _cosines(rows: Sequence[Row]) -> list[str]:
    lines = ["| difference | cosine of the two vectors |", "|---|---|"]
    return lines + [f"| {row['difference']} | {row['cosine']:.3f} |" for row in rows]


def _roles(rows: Sequence[Row]) -> list[str]:
    """Return how many swaps are caught and how often the gate warns of the right role."""
    own = [row for row in rows if row["true"] in ROLES]
    swapped = [row for row in own if row["declared"] in ROLES and row["declared"] != row["true"]]
    right = [row for row in own if row["declared"] == row["true"]]
    ce = [row for row in rows if row["true"] == "T1ce"]
    lines = [
        f"Caught: {_share([(row['case'], row['warned']) for row in swapped])} % of {len(swapped)} swapped roles.",
        f"False alarms: {_share([(row['case'], row['warned']) for row in right])} % of {len(right)} right roles.",
        "",
        f"| volume \\ declared as | {' | '.join(ROLES)} |",
        "|---|" + "---|" * len(ROLES),
    ]
    for true in ROLES:
        cells = []
        for declared in ROLES:
            found = [row["warned"] for row in own if (row["true"], row["declared"]) == (true, declared)]
            cells.append(f"{100 * sum(found) / len(found):.1f}" if found else "")
        lines.append(f"| {true} ({len([r for r in right if r['true'] == true])}) | {' | '.join(cells)} |")
    if ce:
        for role, name in (("T1ce", "as T1ce"), ("T1", "as T1")):
            found = [row["warned"] for row in ce if row["declared"] == role]
            lines += ["", f"T1 with contrast agent declared {name}: warned of {100 * sum(found) / len(found):.1f} %."]
    return lines


def _real(rows: Iterable[Row]) -> list[str]:
    lines = ["| group | case | is | looks like | probability | warned |", "|---|---|---|---|---|---|"]
    for row in rows:
        probability, warned = row.get("probability", ""), "yes" if row.get("warned") else "no"
        cells = (row["group"], row["case"], row["true"], row["looks"], probability, warned)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return lines

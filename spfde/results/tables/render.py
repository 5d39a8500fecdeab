"""A table as Markdown, CSV, TeX (booktabs) and HTML (one file that loads nothing else)."""

import html
import re
from pathlib import Path

from spfde.files import writing_all
from spfde.results.tables.table import Table

STYLE = """
body { margin: 1.5rem auto; max-width: 96rem; padding: 0 1rem; color: #1a1a1a; background: #fff;
       font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.15rem; font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; border-top: 2px solid #1a1a1a; border-bottom: 2px solid #1a1a1a; }
th, td { padding: .26rem .55rem; text-align: left; white-space: nowrap; }
tr > :first-child { position: sticky; left: 0; background: #fff; }
td.text { white-space: normal; min-width: 13rem; }
th { font-weight: 600; vertical-align: bottom; }
thead tr:last-child th { border-bottom: 1px solid #1a1a1a; }
th.group { text-align: center; border-bottom: 1px solid #b0b0b0; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.part td { border-top: 1px solid #d5d5d5; }
tbody tr:hover { background: #f3f6f9; }
.muted { color: #6b6b6b; font-style: italic; }
ul { padding-left: 1.2rem; color: #333; max-width: 60rem; }
@media (max-width: 40rem) {
  body { margin: .8rem auto; padding: 0 .7rem; }
  th, td { padding: .26rem .4rem; }
  tr > :first-child { white-space: normal; min-width: 6rem; }
}
""".strip()
EMPHASIS = re.compile(r"\*([^*]+)\*")
MUTED = ("not run", "not available", "diverged", "depends on the mask")
TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "Δ": r"$\Delta$",
    "−": "$-$",
    "–": "--",
}
SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")


def write(table: Table, folder: Path) -> list[Path]:
    """Writes <name>.md, .csv, .tex, .html and <name>.seeds.csv, all of them or none; returns their paths."""
    texts = {
        "md": markdown(table),
        "csv": table.values.to_csv(index=False),
        "tex": tex(table),
        "html": page(table),
        "seeds.csv": table.seeds.to_csv(index=False),
    }
    paths = [folder / f"{table.name}.{suffix}" for suffix in texts]
    with writing_all(*paths) as temporaries:
        for temporary, text in zip(temporaries, texts.values(), strict=True):
            temporary.write_text(text, encoding="utf-8")
    return paths


def markdown(table: Table) -> str:
    """GitHub's Markdown: the title, the table, the notes."""
    titles = [f"{column.group}: {column.title}" if column.group else column.title for column in table.columns]
    rule = ["---:" if column.numeric else ":---" for column in table.columns]
    lines = [f"| {' | '.join(_pipe(cell) for cell in row)} |" for row in [titles, rule, *table.cells]]
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([f"# {table.title}", "", *lines, "", "Notes", "", *notes]) + "\n"


def tex(table: Table) -> str:
    r"""A table environment; the document needs `\usepackage{booktabs}`."""
    groups = " & ".join(rf"\multicolumn{{{span}}}{{c}}{{{_tex(title)}}}" for title, span in table.groups)
    rows = []
    for cells, part in zip(table.cells, table.parts, strict=True):
        rows += [r"\addlinespace"] * part
        rows.append(" & ".join(map(_tex, cells)) + r" \\")
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table*}",
        r"\centering\footnotesize\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{_tex(table.title)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{{''.join('r' if column.numeric else 'l' for column in table.columns)}}}",
        r"\toprule",
        *([groups + r" \\", *_rules(table)] if any(title for title, _ in table.groups) else []),
        " & ".join(_tex(column.title) for column in table.columns) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        *(r"\par " + EMPHASIS.sub(r"\\emph{\1}", _tex(note)) for note in table.notes),
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def page(table: Table) -> str:
    """A complete page that loads nothing else."""
    return document(table.title, fragment(table))


def document(title: str, body: str, style: str = "") -> str:
    """A page around HTML, in the one style of the results; it loads nothing.

    Args:
        style: CSS of this page, added after the common style.
    """
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title>\n<style>\n{STYLE}\n{style}</style>\n</head>\n<body>",
            f"<h1>{html.escape(title)}</h1>\n{body}\n</body>\n</html>\n",
        ]
    )


def fragment(table: Table) -> str:
    """The table and its notes as a part of a page."""
    groups = "".join(
        f'<th colspan="{span}"{" class=group" if title else ""}>{html.escape(title)}</th>'
        for title, span in table.groups
    )
    numbers = [
        ' class="number"' if column.numeric else ' class="text"' if column.wraps else "" for column in table.columns
    ]
    titles = "".join(
        f"<th{number}>{html.escape(column.title)}</th>" for column, number in zip(table.columns, numbers, strict=True)
    )
    body = []
    for cells, part in zip(table.cells, table.parts, strict=True):
        inner = "".join(f"<td{number}>{_html(cell)}</td>" for cell, number in zip(cells, numbers, strict=True))
        body.append(f"<tr{' class=part' * part}>{inner}</tr>")
    notes = ["<li>" + EMPHASIS.sub(r"<em>\1</em>", html.escape(note)) + "</li>" for note in table.notes]
    return "\n".join(
        [
            '<div class="wide">\n<table>\n<thead>',
            *([f"<tr>{groups}</tr>"] if any(title for title, _ in table.groups) else []),
            f"<tr>{titles}</tr>\n</thead>\n<tbody>",
            *body,
            "</tbody>\n</table>\n</div>",
            *(["<ul>", *notes, "</ul>"] if notes else []),
        ]
    )


def _pipe(cell: str) -> str:
    return cell.replace("|", r"\|")


def _html(cell: str) -> str:
    text = html.escape(cell)
    return f'<span class="muted">{text}</span>' if cell in MUTED else text


def _tex(text: str) -> str:
    escaped = "".join(TEX.get(letter, letter) for letter in text)
    return re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", lambda match: f"$^{{{match[0].translate(SUPERSCRIPTS)}}}$", escaped)


def _rules(table: Table) -> list[str]:
    r"""A \cmidrule under each shared title."""
    rules, start = [], 1
    for title, span in table.groups:
        rules += [rf"\cmidrule(lr){{{start}-{start + span - 1}}}"] if title else []
        start += span
    return rules

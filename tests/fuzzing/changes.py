"""Ways to spoil an input: bytes, lines of a text, values of a tree. All is drawn from a generator with a seed."""

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import yaml

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 10**6, 10**12, 2**63, -(2**63), 10**400, 0.0, 0.5, 1.0, 1e-300, 1e300, -0.1,
    float("nan"), float("inf"), "", "x", "dense", "spfde", "set", "../../x", "a b", "a\nb", "\0", "é", "1", "nan",
    "none", "resnet8", "vgg19", "2:4", "block", "erk", [], [1], [[]], ["x"], {}, {"x": 1}, {"": None}, "x" * 3000,
]  # fmt: skip
WORDS = [
    "null", "true", "[", "]", "{", "}", "{}", "[]", "-", "- ", ": ", "*a", "&a ", "&a [*a]", "<<: *a", "? ", "|", ">",
    "!!python/object:x", "!!binary x", "!!set {a}", "!!float x", "%YAML 9", "---", "...", "\t", "\0", "\ufeff", "é",
    "'", '"', "#", "2001-01-01", "2001-99-99", "1:30", "0x", "0o9", "1_000", ".nan", ".inf", "-.inf", "1e999",
    "9" * 5000, "~", "=", "@",
]  # fmt: skip


def any_value(draws: random.Random) -> Any:
    """One of VALUES, as a copy: what is put into a tree may be spoiled there."""
    return copy.deepcopy(draws.choice(VALUES))


def spoil_bytes(draws: random.Random, data: bytes) -> bytes:
    """A few changes of bytes, anywhere or near the beginning, where headers are."""
    spoiled = bytearray(data)
    for _ in range(draws.choice((1, 1, 1, 2, 5, 50))):
        most = len(spoiled)
        at = draws.randrange(min(most, draws.choice((8, 64, 1024, most or 1))) or 1) if most else 0
        size = draws.choice((1, 2, 8, 100))
        change = draws.randrange(7)
        if change == 0 and most:
            spoiled[at] ^= 1 << draws.randrange(8)
        elif change == 1:
            spoiled[at : at + size] = draws.randbytes(size)
        elif change == 2:
            del spoiled[at : at + size]
        elif change == 3:
            spoiled[at:at] = draws.randbytes(size)
        elif change == 4:
            del spoiled[draws.randrange(most + 1) :]
        elif change == 5:
            spoiled[at : at + size] = draws.choice((b"\0", b"\xff", b"9", b"[", b"\n")) * size
        else:
            spoiled[at:at] = spoiled[at : at + size]
    return bytes(spoiled)


def spoil_text(draws: random.Random, text: str) -> str:
    """Changes of lines and words, as a slip of the editor or a hostile hand makes them."""
    lines = text.splitlines() or [""]
    for _ in range(draws.choice((1, 1, 2, 5))):
        at = draws.randrange(len(lines)) if lines else 0
        line = lines[at] if lines else ""
        change = draws.randrange(8)
        if change == 0 and lines:
            del lines[at]
        elif change == 1:
            lines.insert(at, line)
        elif change == 2:
            lines.insert(at, lines[draws.randrange(len(lines))] if lines else "")
        elif change == 3 and lines:
            lines[at] = draws.choice(("  ", " ", "\t", "")) + line.lstrip() if draws.random() < 0.5 else "  " + line
        elif change == 4 and lines:
            key, colon, _ = line.partition(":")
            lines[at] = f"{key}{colon} {draws.choice(WORDS)}"
        elif change == 5 and lines:
            place = draws.randrange(len(line) + 1)
            lines[at] = line[:place] + draws.choice(WORDS) + line[place:]
        elif change == 6 and lines:
            value = any_value(draws)
            shown = str(value) if isinstance(value, int | float | str) else json.dumps(value)
            key, colon, _ = line.partition(":")
            lines[at] = f"{key}{colon} {shown}" if colon else ",".join([shown, *line.split(",")[1:]])
        else:
            lines.insert(at, draws.choice(WORDS))
    return "\n".join(lines) + "\n"


def spoil_tree(draws: random.Random, tree: Any) -> Any:
    """Another value, a missing or a further key, at random places of nested mappings and lists."""
    spoiled = copy.deepcopy(tree)
    for _ in range(draws.choice((1, 1, 2, 4))):
        node, place = spoiled, None
        while isinstance(node, dict | list) and node and draws.random() < 0.75:
            place = node, draws.choice(list(node) if isinstance(node, dict) else range(len(node)))
            node = place[0][place[1]]
        if place is None:
            continue
        inside, key = place
        change = draws.randrange(4)
        if change < 2:
            inside[key] = any_value(draws)
        elif change == 2:
            del inside[key]
        elif isinstance(inside, dict):
            inside[draws.choice(("x", "epochs", 1, None, "", str(key) + "s", str(key).upper()))] = node
        else:
            inside.append(any_value(draws))
    return spoiled


def spoil_yaml(draws: random.Random, text: str) -> bytes:
    """A YAML text with spoiled bytes, lines or values."""
    how = draws.randrange(3)
    if how == 0:
        return spoil_bytes(draws, text.encode())
    if how == 1:
        return spoil_text(draws, text).encode(errors="surrogatepass")
    return yaml.safe_dump(spoil_tree(draws, yaml.safe_load(text)), sort_keys=False).encode()


def spoil_json(draws: random.Random, text: str) -> bytes:
    """A JSON text with spoiled bytes or values."""
    if draws.random() < 0.3:
        return spoil_bytes(draws, text.encode())
    return json.dumps(spoil_tree(draws, json.loads(text)), default=str).encode()


def spoil_csv(draws: random.Random, text: str) -> bytes:
    """A table with spoiled bytes, lines or cells."""
    how = draws.randrange(3)
    if how == 0:
        return spoil_bytes(draws, text.encode())
    if how == 1:
        return spoil_text(draws, text).encode(errors="surrogatepass")
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(draws.choice((1, 2, 5))):
        row = draws.choice(rows)
        row[draws.randrange(len(row))] = str(draws.choice([*VALUES, *WORDS]))
    return "\n".join(",".join(row) for row in rows).encode(errors="surrogatepass")


BY_SUFFIX: dict[str, Callable[[random.Random, str], bytes]] = {
    ".yaml": spoil_yaml,
    ".json": spoil_json,
    ".csv": spoil_csv,
}


def spoil_file(draws: random.Random, name: str, data: bytes) -> bytes:
    """Contents of a file, spoiled as its kind allows."""
    suffix = "." + name.rpartition(".")[2]
    if suffix in BY_SUFFIX and draws.random() < 0.8:
        return BY_SUFFIX[suffix](draws, data.decode())
    return spoil_bytes(draws, data)

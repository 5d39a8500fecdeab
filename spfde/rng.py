"""One root seed, many named streams.

A stream is drawn afresh for each purpose and moment (`generator(seed, "order", epoch)`), so nothing random has to be
stored to resume a run, and two runs of one seed see the same data order and augmentation whatever their method draws.
"""

import hashlib

import torch


def derive(seed: int, *key: object) -> int:
    """A 63-bit seed from the root seed and a key, stable over processes and platforms (unlike `hash`)."""
    text = "/".join(map(str, (seed, *key)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *key: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator of its own for `key`; on the CPU by default, so that draws agree on every device."""
    return torch.Generator(device=device).manual_seed(derive(seed, *key))

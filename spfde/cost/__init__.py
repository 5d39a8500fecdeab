"""What training costs: profile (the network) x trace (what was done) -> FLOPs and memory."""

from spfde.cost.flops import flops, paper_flops
from spfde.cost.memory import Memory, memory, paper_memory
from spfde.cost.profile import LayerProfile, Profile, profile
from spfde.cost.trace import build_trace, make_trace, read_trace, validate_trace, write_trace

__all__ = [
    "LayerProfile",
    "Memory",
    "Profile",
    "build_trace",
    "flops",
    "make_trace",
    "memory",
    "paper_flops",
    "paper_memory",
    "profile",
    "read_trace",
    "validate_trace",
    "write_trace",
]

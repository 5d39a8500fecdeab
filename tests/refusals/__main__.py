"""Provokes every refusal and writes docs/refusals.md."""

import tempfile
import warnings
from pathlib import Path

from spfde.files import write_text
from tests.refusals.table import PAGE, collected, page

warnings.simplefilter("ignore")
messages = {}
for name, refusal in collected().items():
    with tempfile.TemporaryDirectory() as folder:
        messages[name] = refusal.message(Path(folder).resolve())
write_text(PAGE, page(messages))
print(f"{len(messages)} refusals in {PAGE}")

"""`python -m spfde` is the `spfde` command."""

from spfde.cli import main

main()

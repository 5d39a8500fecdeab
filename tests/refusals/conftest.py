"""The provocations are called by tests/test_refusals.py, and hold no tests of their own."""

collect_ignore_glob = ["*.py"]

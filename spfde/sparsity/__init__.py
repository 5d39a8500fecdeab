"""Masks, distributions over layers, schemes. Importing this package registers the schemes."""

from spfde.sparsity import block, channel, nm, pattern  # noqa: F401

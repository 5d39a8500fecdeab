"""The methods of the tables. Importing this package registers them all, in the order of the tables."""

from spfde.methods import dense, small_dense, static, lottery, snip, grasp  # noqa: F401, I001
from spfde.methods import set, deepr, dsr, rigl, set_itop, rigl_itop  # noqa: F401
from spfde.methods import mest, swat, gse, spfde  # noqa: F401
from spfde.methods.base import METHODS, DropAndGrow, Method, Options, MethodPlan, check_scheme, make, register
from spfde.methods.run import Run

__all__ = ["METHODS", "DropAndGrow", "Method", "MethodPlan", "Options", "Run", "check_scheme", "make", "register"]

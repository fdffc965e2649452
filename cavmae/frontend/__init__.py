"""The front end: stored samples become model inputs on the training device."""

from cavmae.frontend.frontend import FrontEnd, FrontEndOptions, Inputs

__all__ = ["FrontEnd", "FrontEndOptions", "Inputs"]

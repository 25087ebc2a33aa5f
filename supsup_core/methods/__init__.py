"""Mask finders: how real scores become a binary mask, one method a file."""

from supsup_core.methods.protocol import Method
from supsup_core.methods.threshold import Threshold

METHODS: dict[str, Method] = {"threshold": Threshold()}

__all__ = ["METHODS", "Method", "Threshold"]

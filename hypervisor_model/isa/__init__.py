"""Formats and constants of the privileged specification."""

"""Synthesis methods, their registry and their packages. This file imports nothing: torch comes with the modules."""

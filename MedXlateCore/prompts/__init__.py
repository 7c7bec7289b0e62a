"""Prompts: regions drawn by a reader, and acquisition facts."""

"""Writes tables and reports as Markdown, CSV, JSON and LaTeX, and prints them on a terminal."""

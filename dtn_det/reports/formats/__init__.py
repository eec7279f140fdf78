"""Tables and reports as text: Markdown, CSV, JSON, LaTeX, and for a terminal."""

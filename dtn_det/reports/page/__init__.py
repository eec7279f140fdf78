"""A report as one HTML file: tables to sort and filter, figures to explore, sample images."""

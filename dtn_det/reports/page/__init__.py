"""Makes the page of a report: one HTML file with tables to sort and filter, interactive figures and sample images."""

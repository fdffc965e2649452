"""Self-contained HTML pages: `avprep report`, and the parts that other pages are made of."""

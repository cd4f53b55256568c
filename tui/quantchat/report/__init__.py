"""Show snapshots: tables in a terminal, and reports as HTML, Markdown or CSV."""

"""Build HTML pages that need no other file: their content, their figures and their templates."""

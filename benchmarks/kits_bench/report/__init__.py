"""The report on a folder of records: one story, told as Markdown and as one HTML page."""

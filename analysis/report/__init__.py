"""The sweep's report: one HTML file with the answer, tables, figures and an utterance browser.

The page that it shares with the data report is in `conf.document`. Begin with `page.py`.
"""

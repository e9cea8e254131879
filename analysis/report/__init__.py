"""The sweep's report: one HTML file with tables, figures and an utterance browser.

Begin with `page.py`.
"""

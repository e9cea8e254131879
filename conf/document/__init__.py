"""Documents that people read, whatever they are about: typed tables and figures, drawn as one
self-contained HTML page or as Markdown, in English and Chinese.

It lies here since both the data report (`trainer`) and the sweep's report (`analysis`) are made of
it, and it loads no torch.
"""

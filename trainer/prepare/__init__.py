"""Manifests from recordings and transcripts as people have them: ``python -m trainer prepare``.

Read top to bottom in this order: `job` (the whole job), `inputs` with `tables`, `kaldi` and
`folder` (what people have), `rules` (why a line is left out), `headers` (the first pass: texts and
headers), `split`, `content` (the second pass: the audio itself), `write`. `passes` runs the two
passes in parallel and resumes them.
"""

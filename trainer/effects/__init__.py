"""The proof of which configuration keys do something: `python -m trainer effects`.

For every key and stage two questions are asked of stock FunASR and of our trainer, and the answers
have to agree or the row says why not:

- is the key read, while everything is built and trained for some updates (`trace`)?
- does another value of it change anything that can be seen (`watch`)?

`scene` is what is trained: the tiny base on a few utterances, so that most keys have something to
act on. `values` says which other value is tried. `prove` decides, `parameters` counts what trains
at full size, `files` writes conf/effects.yaml and conf/parameters.yaml.
"""
